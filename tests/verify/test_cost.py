"""Counts worked out by hand, and published figures where the model is at hand."""

from __future__ import annotations

import json

import pytest
import torch
from op_graphs import CASES, op_graph

from edgekit.graph.ir import Graph, Node, Value
from edgekit.verify.cost import cost, node_macs, peak_activation_bytes

_CONV = {"stride": (4, 4), "padding": (2, 2, 2, 2), "dilation": (1, 1), "groups": 1, "activation": None}


def _alexnet_stem() -> Graph:
    x = Value("x", (1, 3, 224, 224))
    weight = Value("w", (96, 3, 11, 11), data=torch.zeros(96, 3, 11, 11))
    bias = Value("b", (96,), data=torch.zeros(96))
    out = Value("y", (1, 96, 55, 55))
    return Graph([x], [out], [Node("conv2d", [x, weight, bias], [out], dict(_CONV), "conv1")])


def test_alexnet_conv1():
    (layer,) = cost(_alexnet_stem()).layers
    assert layer.params == 34_944 and layer.module == "conv1"
    assert layer.macs == 55 * 55 * 96 * 3 * 11 * 11 == 105_415_200
    assert layer.mem_bytes == 4 * (3 * 224 * 224 + 34_944 + 96 * 55 * 55)


def test_int8_moves_a_quarter_except_biases():
    whole, narrow = cost(_alexnet_stem()), cost(_alexnet_stem(), 1)
    assert narrow.mem_bytes == (whole.mem_bytes - 4 * 96) // 4 + 4 * 96
    assert (
        narrow.intensity > whole.intensity and narrow.peak_activation_bytes * 4 == whole.peak_activation_bytes
    )
    json.dumps(whole.as_dict())


@pytest.mark.parametrize(
    ("case", "macs"),
    [
        ("conv grouped", 24 * 12 * 10 * 4 * 9),
        ("depthwise 3x3", 16 * 12 * 10 * 9),
        ("linear", 640),
        ("conv transpose", 16 * 12 * 10 * 8 * 4),
        ("matmul", 2 * 12 * 12 * 10),
        ("hardswish", 0),
    ],
)
def test_macs_by_hand(case, macs):
    assert case in CASES and node_macs(op_graph(case).nodes[-1]) == macs


def test_peak_is_the_largest_sum_of_live_tensors():
    x, a, b, c, y = (Value(n, (1, s)) for n, s in (("x", 10), ("a", 30), ("b", 30), ("c", 5), ("y", 30)))
    nodes = [
        Node("relu", [x], [a]),
        Node("relu", [a], [b]),  # a stays alive for the sum: 60
        Node("slice", [b], [c], {"dim": 1, "start": 0, "end": 5, "step": 1}),
        Node("add", [a, b], [y]),  # a, b and y: 90, and c if it is an output
    ]
    assert peak_activation_bytes(Graph([x], [y], nodes), 1) == 90
    assert peak_activation_bytes(Graph([x], [y, c], nodes), 1) == 95


def test_a_view_takes_no_memory_and_no_traffic():
    x, flat, y = Value("x", (1, 4, 5)), Value("flat", (1, 20)), Value("y", (1, 20))
    nodes = [Node("reshape", [x], [flat], {"shape": (-1, 20)}), Node("relu", [flat], [y])]
    found = cost(Graph([x], [y], nodes), 1)
    assert found.peak_activation_bytes == 40 and found.layers[0].mem_bytes == 0
    assert found.mem_bytes == 40


def test_a_shared_weight_counts_once():
    x, y, z = Value("x", (1, 8)), Value("y", (1, 8)), Value("z", (1, 8))
    weight = Value("w", (8, 8), data=torch.zeros(8, 8))
    nodes = [Node("linear", [x, weight, None], [y]), Node("linear", [y, weight, None], [z])]
    found = cost(Graph([x], [z], nodes))
    assert found.params == 64 and found.macs == 128


def test_running_statistics_are_not_parameters():
    x, y = Value("x", (1, 4, 2, 2)), Value("y", (1, 4, 2, 2))
    constants = [Value(n, (4,), data=torch.ones(4)) for n in ("gamma", "beta", "mean", "var")]
    found = cost(Graph([x], [y], [Node("batch_norm", [x, *constants], [y], {"eps": 1e-5})]))
    assert found.params == 8


@pytest.mark.parametrize(
    ("name", "params", "gmacs"), [("mobilenet_v3_large", 5_483_032, 0.217), ("resnet18", 11_689_512, 1.81)]
)
def test_published_figures(name, params, gmacs):
    models = pytest.importorskip("torchvision").models
    from edgekit.capture import capture

    model = getattr(models, name)().eval()
    found = cost(capture(model, torch.zeros(1, 3, 224, 224), name))
    assert found.params == params
    assert found.macs / 1e9 == pytest.approx(gmacs, abs=0.005)
