"""Nodes in float and with dynamic int8 weights among int8 ones: every file is what the simulation says."""

from __future__ import annotations

import random

import pytest
import torch
from litert import run_file, to_torch_layout

from edgekit.errors import QuantizationError
from edgekit.graph.ir import Graph
from edgekit.graph.run import run
from edgekit.lower.lowered import lowering_of
from edgekit.lower.tflite import lower, prepare
from edgekit.quantize import qparams, simulate, sqnr_db
from edgekit.quantize.precision import DYNAMIC, FLOAT, assign, choices, of_modules
from edgekit.runtimes.audit import partitions
from edgekit.runtimes.sources import open_source
from edgekit.targets import get_target
from edgekit.verify.fidelity import fidelity, probe_values
from tests.lower.test_mixed_types import annotated, images, one_case_an_op
from tests.quantize.quantize_graphs import Builder

INT8 = get_target("tflite-int8")


def network() -> Graph:
    """A stem, a bottleneck with a gate and a sum, 3x3 and grouped convolutions, a classifier."""
    b = Builder((1, 3, 16, 16))
    x = b.op("hardswish", b.conv(b.input, 16, 3, 2))
    y = b.conv(x, 32, activation="relu")
    y = b.conv(y, 32, 3, groups=32, activation="relu6")
    gate = b.op("mean", y, dims=(2, 3), keepdim=True)
    gate = b.op("hardsigmoid", b.conv(b.conv(gate, 8, activation="relu"), 32))
    x = b.op("add", b.conv(b.op("mul", y, gate, activation=None), 16), x, activation=None)
    x = b.op("concat", b.conv(x, 8, 3), b.conv(x, 8, 3, groups=2), dim=1)
    x = b.op("silu", b.conv(x, 24, 1, 2))
    x = b.op("max_pool2d", x, kernel=(2, 2), stride=(2, 2), padding=(0, 0))
    x = b.op("mean", x, dims=(2, 3), keepdim=False)
    return b.graph(b.linear(b.linear(x, 12, "relu"), 5))


def proven(graph: Graph) -> list[str]:
    """Operators of the file, which agrees with both integer implementations and runs in one partition."""
    prepared = prepare(graph, INT8)
    file = lower(prepared, INT8, io_dtype="float32")
    probe = lower(prepared, INT8, io_dtype="float32", outputs_also=probe_values(prepared))
    found = fidelity(prepared, probe, [images().numpy()], file.data)
    assert found.probe_agrees and found.max_lsb <= 1 and not found.unexpected(), found.worst
    for image in images().split(1):
        (given,) = run_file(file.data, image)
        (wanted,) = simulate(prepared, image)
        assert sqnr_db(wanted, torch.from_numpy(to_torch_layout(given)).reshape(wanted.shape)) > 30.0
    assert partitions(open_source(file.data)) == 1
    return [op.builtin for op in file.operators]


@pytest.mark.parametrize("seed", range(6))
def test_any_choice_of_precisions_is_what_the_file_computes(seed: int) -> None:
    graph, rng = annotated(network(), {}), random.Random(seed)
    wanted = run(network(), [images()])[0]
    plain = sqnr_db(wanted, simulate(graph, images())[0])
    kinds = {name: rng.choice(able) for name, able in choices(graph).items()}
    assert assign(graph, kinds) == sum(kind != "int8" for kind in kinds.values())
    proven(graph)
    assert sqnr_db(wanted, simulate(graph, images())[0]) > plain - 3.0


@pytest.mark.parametrize("kind", [DYNAMIC, FLOAT])
def test_everything_in_float_answers_as_float(kind: str) -> None:
    graph = annotated(network(), {})
    wanted = run(network(), [images()])[0]
    kinds = {name: kind if kind in able else able[-1] for name, able in choices(graph).items()}
    assign(graph, kinds)
    operators = proven(graph)
    assert sqnr_db(wanted, simulate(graph, images())[0]) > (30.0 if kind == FLOAT else 20.0)
    assert operators.count("CONV_2D") == 8


@pytest.mark.parametrize("op", sorted(one_case_an_op()))
def test_every_op_among_precisions(op: str) -> None:
    case = one_case_an_op()[op]
    graph, given, rng = case.graph(), case.images(2), random.Random(op)
    ranges = {}

    def see(value, tensor):
        ranges[value] = (float(tensor.min()), float(tensor.max()))
        return tensor

    run(graph, [given], on_value=see)
    qparams.annotate(graph, ranges)
    assign(graph, {name: rng.choice(able) for name, able in choices(graph).items()})
    prepared = prepare(graph, INT8)
    probe = lower(prepared, INT8, io_dtype="float32", outputs_also=probe_values(prepared))
    found = fidelity(prepared, probe, [given[:1].numpy()], lower(prepared, INT8, io_dtype="float32").data)
    assert found.probe_agrees and found.max_lsb <= 1 and not found.unexpected(), found.worst


@pytest.mark.parametrize("name", ["onnx-int8", "openvino-int8", "tensorrt-int8", "tflite-int16x8"])
def test_other_targets_keep_the_same_nodes_in_float(name: str) -> None:
    graph, target = annotated(network(), {}), get_target(name)
    names = [node.output.name for node in graph.nodes if node.op == "conv2d"][:5]
    assign(graph, {names[1]: FLOAT, names[2]: FLOAT, "conv2d_9": DYNAMIC})
    prepared = lowering_of(target).prepare(graph, target)
    by_name = {value.name: value for value in prepared.values()}
    assert by_name[names[1]].quant is None and by_name[f"{names[1]}.weight"].quant is None
    lowering_of(target).lower(prepared, target)


def test_modules_are_named_by_their_paths() -> None:
    graph = annotated(network(), {})
    graph.nodes[3].source = "block.depthwise"
    graph.nodes[2].source = "block.expand"
    kinds = of_modules(graph, ["block"], DYNAMIC)
    assert kinds == {graph.nodes[2].output.name: DYNAMIC, graph.nodes[3].output.name: FLOAT}
    with pytest.raises(QuantizationError, match="'blok' is no module of small"):
        of_modules(graph, ["blok"], FLOAT)
    with pytest.raises(QuantizationError, match="one of int8, float"):
        assign(graph, {graph.nodes[3].output.name: DYNAMIC})
