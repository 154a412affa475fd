"""What OpenVINO's CPU plugin really executes of our int8 files, and where they are rounded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from litert import annotate
from openvino_runs import executed, run_files

from edgekit.capture import capture
from edgekit.graph.ir import Graph, Value
from edgekit.graph.run import run
from edgekit.lower.openvino import lower, prepare
from edgekit.passes import optimize
from edgekit.quantize import simulate, sqnr_db
from edgekit.targets import get_target
from tests.cases import OP_CASES, Sketch

INT8 = get_target("openvino-int8")
SIDE = 96


def _images(count: int) -> torch.Tensor:
    return torch.randn((count, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(5))


def _network(name: str) -> Graph:
    """A torchvision network with seeded weights, calibrated on four images and prepared."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = getattr(torchvision.models, name)(weights=None, num_classes=10)
    module.train()
    with torch.no_grad():
        for _ in range(3):
            module(_images(8))
    graph = capture(module.eval(), torch.zeros(1, 3, SIDE, SIDE), name)
    optimize(graph)
    annotate(graph, _images(4))
    return prepare(graph, INT8)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "resnet18"])
def test_every_convolution_runs_in_eight_bits(name: str) -> None:
    prepared = _network(name)
    lowered = lower(prepared, INT8)
    rows = [row for row in executed(lowered.files) if row["layer"] in ("Convolution", "FullyConnected")]
    weighted = [node for node in prepared.nodes if node.op in ("conv2d", "linear")]
    assert len(rows) == len(weighted)
    assert [row for row in rows if row["precision"] not in ("i8", "u8")] == []
    image = _images(1)
    (found,) = run_files(lowered.files, image)
    assert sqnr_db(simulate(prepared, image)[0], torch.from_numpy(found)) > 25.0


@pytest.mark.parametrize("name", ["mobilenet_v3_small"])
def test_hardswish_is_fused_into_its_convolution(name: str) -> None:
    """Nothing is rounded between them, so that no element-wise operator is left to run alone."""
    prepared = _network(name)
    hardswishes = [node for node in prepared.nodes if node.op == "hardswish"]
    assert len(hardswishes) > 10
    assert all(node.operands[0].quant is None for node in hardswishes)
    layers = {row["origins"]: row["layer"] for row in executed(lower(prepared, INT8).files)}
    alone = [name for name, layer in layers.items() if "HSwish" in name and layer != "Convolution"]
    assert [name for name in alone if "classifier" not in name] == []


def _placed(sketch: Sketch, *outputs: Value) -> Graph:
    graph = sketch.graph(*outputs)
    annotate(graph, torch.randn((4, *sketch.input.shape[1:]), generator=torch.Generator().manual_seed(3)))
    return prepare(graph, INT8)


def _fake_quantizes(graph: Graph) -> int:
    return sum(op.builtin == "FakeQuantize" for op in lower(graph, INT8).operators)


def _branch(s: Sketch, x: Value) -> Value:
    return s.conv(s.conv(x, 16, activation="relu"), 16)


def _residual(kind: str) -> tuple[Graph, torch.Tensor]:
    """A prepared graph around one addition of a convolution's result or two, and images."""
    s = Sketch((1, 16, 12, 12))
    x = s.conv(s.input, 16, activation="relu")
    also: list[Value] = []
    if kind == "identity-left":
        y = s.op("add", x, _branch(s, x), activation="relu")
    elif kind == "two-convolutions":
        y = s.op("add", s.conv(x, 16, activation="relu"), _branch(s, x))
    elif kind == "activation-after":
        y = s.op("hardswish", s.op("add", _branch(s, x), x))
    elif kind == "activation-before":
        y = s.op("add", s.op("hardswish", _branch(s, x)), x)
    elif kind == "activation-beside":
        y = s.op("add", s.op("hardswish", _branch(s, x)), s.conv(s.conv(x, 16), 16))
    elif kind == "chain":
        first = s.op("add", _branch(s, x), x)
        y = s.op("add", _branch(s, first), first)
    elif kind == "own-input":
        y = s.op("add", s.conv(x, 16), x)
    else:
        y = s.op("add", _branch(s, x), x)
        also = {"read-later": [s.conv(x, 16)], "float-sum": [s.op("hardswish", y)]}.get(kind, [])
    graph = s.graph(s.conv(y, 16), *also)
    generator = torch.Generator().manual_seed(3)
    annotate(graph, torch.randn((4, *s.input.shape[1:]), generator=generator))
    if kind == "float-convolution":
        graph.nodes[2].operands[0].quant = None
    return prepare(graph, INT8), torch.randn((1, *s.input.shape[1:]), generator=generator)


_IN_PLACE = {
    "identity": 1,
    "identity-left": 1,
    "two-convolutions": 1,
    "activation-after": 1,
    "activation-beside": 1,
    "chain": 2,
    "activation-before": 0,
    "own-input": 0,
    "float-convolution": 0,
    "read-later": 0,
    "float-sum": 0,
}


@pytest.mark.parametrize("kind", _IN_PLACE)
def test_what_is_added_in_place_is_not_called_rounded(kind: str) -> None:
    """The kernel leaves that rounding out; a graph that rounds there is 30 to 42 dB from the file."""
    graph, images = _residual(kind)
    lowered = lower(graph, INT8)
    (found, *_), (meant, *_) = run_files(lowered.files, images), simulate(graph, images)
    assert sqnr_db(meant, torch.from_numpy(found)) > 46.0
    bounded = [node for node in graph.nodes if node.op == "clamp"]
    assert len(bounded) == _IN_PLACE[kind]
    assert all(n.output.quant is None and n.operands[0].quant is None for n in bounded)
    if bounded:
        alone = [row["origins"] for row in executed(lowered.files) if row["layer"] != "Convolution"]
        assert not any("/Add" in name for name in alone)
        assert "Clamp" not in {op.builtin for op in lowered.operators}


@pytest.mark.parametrize("layer_scale", [1.0, 1e-6, 1e-7, 1e-8])
def test_the_plugin_keeps_the_zero_point_of_every_grid(layer_scale: float) -> None:
    """A branch behind a small layer scale: a FakeQuantize that narrow would lose its lower half."""
    s = Sketch((1, 8, 10, 12))
    x = s.conv(s.input, 8)
    hidden = s.op("gelu", s.conv(x, 16))
    weight, bias = s.const(8, 16, 1, 1, scale=0.25 * layer_scale), s.const(8, scale=0.3 * layer_scale)
    attrs = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1, "activation": None}
    branch = s.op("conv2d", hidden, weight, bias, **attrs)
    tokens = s.op("permute", s.op("add", x, branch, activation=None), dims=(0, 2, 3, 1))
    normal = s.op("layer_norm", tokens, s.const(8), s.const(8), normalized_shape=(8,), eps=1e-6)
    graph = s.graph(s.linear(normal, 4))
    images = torch.randn((4, *s.input.shape[1:]), generator=torch.Generator().manual_seed(3))
    annotate(graph, images)
    prepared = prepare(graph, INT8)
    lowered = lower(prepared, INT8, outputs_also=(branch.name,))
    _, found = run_files(lowered.files, images[:1])
    seen: dict[str, torch.Tensor] = {}
    run(prepared, [images[:1]], on_value=lambda v, t: seen.setdefault(v.name, t))
    assert sqnr_db(seen[branch.name], torch.from_numpy(found)) > 30.0


def test_one_rounding_serves_a_chain_of_moves() -> None:
    s = Sketch((1, 8, 10, 12))
    moved = s.op(
        "channel_shuffle", s.op("max_pool2d", s.input, kernel=(2, 2), stride=(2, 2), padding=(0, 0)), groups=2
    )
    first, second = s.ops("split", moved, sizes=(4, 4), dim=1)
    graph = _placed(s, s.conv(first, 4), s.conv(second, 4))
    assert graph.inputs[0].quant is not None
    assert _fake_quantizes(graph) == 1


def test_a_reader_that_only_loses_precision_reads_the_float() -> None:
    """x is normalized in float and multiplied in integers."""
    s = Sketch((1, 8, 10, 12))
    x = s.op("hardswish", s.input)
    normal = s.op("group_norm", x, s.const(8), s.const(8), groups=2, eps=1e-5)
    graph = _placed(s, normal, s.conv(x, 4))
    held = graph.value(x.name)
    assert held.quant is None
    (copy,) = [node.output for node in graph.nodes if node.op == "reshape"]
    assert copy.quant is not None
    assert copy.name == f"{x.name}.rounded"


def test_an_output_is_never_rounded() -> None:
    s = Sketch((1, 8, 10, 12))
    x = s.conv(s.input, 8, activation="relu")
    graph = _placed(s, x, s.conv(x, 4))
    assert all(value.quant is None for value in graph.outputs)
    assert _fake_quantizes(graph) == 2


def test_the_right_side_of_a_product_has_zero_point_zero() -> None:
    graph = OP_CASES["attention"].graph()
    annotate(graph, OP_CASES["attention"].images())
    products = [node for node in prepare(graph, INT8).nodes if node.op == "matmul"]
    assert len(products) == 2
    assert all(n.operands[1].quant and n.operands[1].quant.zero_point == (0,) for n in products)


def test_a_layer_left_in_float_keeps_its_weights() -> None:
    case = OP_CASES["conv2d-1x1"]
    graph = case.graph()
    annotate(graph, case.images())
    graph.inputs[0].quant = None
    prepared = prepare(graph, INT8)
    assert [value for value in prepared.values() if value.quant is not None] == []
    assert _fake_quantizes(prepared) == 0


def test_weights_are_the_graphs_integers() -> None:
    from edgekit.quantize import integers

    case = OP_CASES["conv2d-grouped"]
    graph = case.graph()
    annotate(graph, case.images())
    prepared = prepare(graph, INT8)
    weight = prepared.nodes[0].operands[1]
    wanted = integers(weight).numpy()
    assert wanted.dtype == np.int8
    assert wanted.tobytes() in lower(prepared, INT8).files["model.bin"]
