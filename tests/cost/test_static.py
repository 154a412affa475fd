"""Counts worked out by hand, and published figures of torchvision's models, built on the meta device."""

from __future__ import annotations

import json

import pytest
import torch

from edgekit.capture.torch.importer import Importer
from edgekit.capture.torch.inline import inline_regions
from edgekit.cost.static import count, node_macs, peak_activation_bytes
from edgekit.errors import GraphError
from edgekit.graph.ir import Graph, Node, Value

_CONV = {"stride": (4, 4), "padding": (2, 2, 2, 2), "dilation": (1, 1), "groups": 1, "activation": None}


def _constant(name: str, *shape: int) -> Value:
    return Value(name, shape, data=torch.zeros(shape))


def _alexnet_stem() -> Graph:
    x, out = Value("x", (1, 3, 224, 224)), Value("y", (1, 96, 55, 55))
    operands = [x, _constant("w", 96, 3, 11, 11), _constant("b", 96)]
    return Graph([x], [out], [Node("conv2d", operands, [out], dict(_CONV), "conv1")])


def test_alexnet_conv1():
    whole = count(_alexnet_stem())
    (node,) = whole.nodes
    assert node.params == 34_944 and node.module == "conv1" and node.weight_bytes == 4 * 34_944
    assert node.macs == 55 * 55 * 96 * 3 * 11 * 11 == 105_415_200
    assert node.traffic_bytes == 4 * (3 * 224 * 224 + 34_944 + 96 * 55 * 55)
    assert node.intensity == whole.intensity == pytest.approx(105_415_200 / node.traffic_bytes)


def test_narrow_types_move_less_except_biases():
    x, weights, biases, y = 3 * 224 * 224, 96 * 3 * 11 * 11, 96, 96 * 55 * 55
    whole = count(_alexnet_stem())
    for dtype, activation, weight, bias in (("float16", 2, 2, 2), ("int8", 1, 1, 4), ("int16", 2, 1, 8)):
        narrow = count(_alexnet_stem(), dtype)
        assert narrow.weight_bytes == weight * weights + bias * biases
        assert narrow.traffic_bytes == activation * (x + y) + narrow.weight_bytes
        assert (
            narrow.peak_activation_bytes
            == activation * (x + y)
            == peak_activation_bytes(_alexnet_stem(), dtype)
        )
        assert narrow.macs == whole.macs and narrow.params == whole.params
    json.dumps(whole.as_dict())


def test_another_type_is_refused():
    with pytest.raises(GraphError, match="'int4' are not counted: one of float32"):
        count(_alexnet_stem(), "int4")


@pytest.mark.parametrize(
    ("op", "shapes", "out", "macs"),
    [
        ("conv2d", [(1, 16, 12, 10), (24, 4, 3, 3), (24,)], (1, 24, 12, 10), 24 * 12 * 10 * 4 * 9),
        ("conv2d", [(1, 16, 12, 10), (16, 1, 3, 3)], (1, 16, 12, 10), 16 * 12 * 10 * 9),
        ("linear", [(1, 64), (10, 64), (10,)], (1, 10), 640),
        ("conv_transpose2d", [(1, 16, 12, 10), (16, 8, 2, 2)], (1, 8, 24, 20), 16 * 12 * 10 * 8 * 4),
        ("matmul", [(1, 2, 12, 10), (1, 2, 10, 12)], (1, 2, 12, 12), 2 * 12 * 12 * 10),
        ("scaled_dot_product_attention", [(1, 3, 7, 5)] * 3, (1, 3, 7, 5), 2 * 3 * 7 * 7 * 5),
        ("hardswish", [(1, 16, 12, 10)], (1, 16, 12, 10), 0),
    ],
)
def test_macs_by_hand(op, shapes, out, macs):
    operands: list[Value | None] = [Value(f"v{i}", shape) for i, shape in enumerate(shapes)]
    assert node_macs(Node(op, operands, [Value("y", out)])) == macs


def test_peak_is_the_largest_sum_of_live_tensors():
    x, a, b, c, y = (Value(n, (1, s)) for n, s in (("x", 10), ("a", 30), ("b", 30), ("c", 5), ("y", 30)))
    nodes = [
        Node("relu", [x], [a]),
        Node("relu", [a], [b]),  # a stays alive for the sum: 60
        Node("slice", [b], [c], {"dim": 1, "start": 0, "end": 5, "step": 1}),
        Node("add", [a, b], [y]),  # a, b and y: 90, and c if it is an output
    ]
    assert peak_activation_bytes(Graph([x], [y], nodes), "int8") == 90
    assert peak_activation_bytes(Graph([x], [y, c], nodes), "int8") == 95
    picked = count(Graph([x], [y, c], nodes), "int8").nodes[2]
    assert picked.traffic_bytes == 10  # five read, five written


def test_a_view_takes_no_memory_and_no_traffic():
    x, flat, y = Value("x", (1, 4, 5)), Value("flat", (1, 20)), Value("y", (1, 20))
    nodes = [Node("reshape", [x], [flat], {"shape": (-1, 20)}), Node("relu", [flat], [y])]
    found = count(Graph([x], [y], nodes), "int8")
    assert found.peak_activation_bytes == 40 and found.nodes[0].traffic_bytes == 0
    assert found.traffic_bytes == 40


def test_places_keep_their_own_width():
    x, y = Value("x", (1, 10)), Value("y", (1, 10), "bool")
    nodes = [Node("greater", [x, _constant("limit", 1)], [y])]
    assert count(Graph([x], [y], nodes)).traffic_bytes == 4 * 10 + 4 + 10


def test_a_shared_weight_counts_once():
    x, y, z = Value("x", (1, 8)), Value("y", (1, 8)), Value("z", (1, 8))
    weight = _constant("w", 8, 8)
    nodes = [Node("linear", [x, weight, None], [y]), Node("linear", [y, weight, None], [z])]
    found = count(Graph([x], [z], nodes), "int8")
    assert found.params == found.weight_bytes == 64 and found.macs == 128
    assert found.traffic_bytes == 2 * (8 + 64 + 8)  # but it is read twice


def test_running_statistics_are_not_parameters():
    x, y = Value("x", (1, 4, 2, 2)), Value("y", (1, 4, 2, 2))
    constants = [_constant(n, 4) for n in ("gamma", "beta", "mean", "var")]
    found = count(Graph([x], [y], [Node("batch_norm", [x, *constants], [y], {"eps": 1e-5})]))
    assert found.params == 8


# Parameters are exact, from the metadata of torchvision's checkpoints; GMACs as torchvision publishes them.
_PUBLISHED = [
    ("alexnet", 61_100_840, 0.714),
    ("vgg16", 138_357_544, 15.47),
    ("googlenet", 6_624_904, 1.498),
    ("resnet18", 11_689_512, 1.814),
    ("wide_resnet50_2", 68_883_240, 11.40),
    ("resnext50_32x4d", 25_028_904, 4.23),
    ("mobilenet_v2", 3_504_872, 0.301),
    ("mobilenet_v3_large", 5_483_032, 0.217),
    ("mobilenet_v3_small", 2_542_856, 0.057),
    ("efficientnet_b0", 5_288_548, 0.386),
    ("shufflenet_v2_x0_5", 1_366_792, 0.040),
    ("mnasnet1_0", 4_383_312, 0.314),
    ("vit_b_16", 86_567_656, 17.56),
]


@pytest.mark.parametrize(("name", "params", "gmacs"), _PUBLISHED)
def test_published_figures(name, params, gmacs):
    models = pytest.importorskip("torchvision").models
    own = {"init_weights": False} if name == "googlenet" else {}
    with torch.device("meta"), torch.no_grad():
        program = torch.export.export(getattr(models, name)(**own).eval(), (torch.zeros(1, 3, 224, 224),))
    inline_regions(program)
    found = count(Importer(program, name).graph)
    assert found.params == params
    assert found.macs / 1e9 == pytest.approx(gmacs, rel=0.003, abs=0.0006)
