"""int8, int16 and float nodes in one graph: the file against both integer implementations, value by value."""

from __future__ import annotations

import random
from importlib import import_module

import pytest
import torch
from litert import run_file, to_torch_layout

from edgekit.errors import UnsupportedError
from edgekit.graph.boundaries import crossings, meet_types
from edgekit.graph.ir import Graph, Node, QuantParams, Value
from edgekit.graph.run import run, walk
from edgekit.lower.lowered import Lowered, lowering_of
from edgekit.lower.tflite import lower, prepare
from edgekit.lower.tflite.reader import read_model
from edgekit.quantize import qparams, rules, simulate, sqnr_db
from edgekit.quantize.choices import Choices
from edgekit.quantize.simulate import Simulator
from edgekit.runtimes.litert.audit import audit
from edgekit.runtimes.sources import open_source
from edgekit.targets import get_target
from edgekit.verify.fidelity import fidelity, probe_values, read_values
from tests.cases import OP_CASES, Case
from tests.quantize.quantize_graphs import Builder, smooth_images

INT8 = get_target("tflite-int8")
Kinds = dict[str, str]


def images() -> torch.Tensor:
    return smooth_images(4, 3, 16)


def annotated(graph: Graph, kinds: Kinds) -> Graph:
    """The graph with ranges of its own answers and the chosen types by value name."""
    ranges: dict[Value, tuple[float, float]] = {}

    def see(value: Value, tensor: torch.Tensor) -> torch.Tensor:
        if not value.is_constant:
            ranges[value] = (float(tensor.min()), float(tensor.max()))
        return tensor

    run(graph, [images()], on_value=see)
    chosen = {graph.value(name): kind for name, kind in kinds.items()}
    qparams.annotate(graph, ranges, choices=Choices(chosen))
    return graph


def teacher_forced(graph: Graph, probe: Lowered) -> dict[str, int]:
    """Steps between the simulation and the runtime of every value, each node given the runtime's operands."""
    simulator, actual, worst = Simulator(graph), read_values(probe, graph, [images().numpy()]), {}

    def seen(value: Value, tensor: torch.Tensor) -> torch.Tensor:
        tensor = simulator.as_read(value, tensor)
        if value.name not in actual:
            return tensor
        worst[value.name] = int((tensor - actual[value.name]).abs().max())
        return actual[value.name]

    with torch.inference_mode():
        start = [simulator.start(value, images()) for value in graph.inputs]
        for _ in walk(graph, start, simulator.step, seen):
            pass
    return worst


def held(graph: Graph, kinds: Kinds) -> tuple[Graph, Lowered]:
    """The prepared graph and its file, both implementations within a step of the runtime at every value."""
    wanted = run(graph.copy(), [images()])
    source = annotated(graph, kinds)
    prepared = prepare(source, INT8)
    file = lower(prepared, INT8, io_dtype="float32")
    probe = lower(prepared, INT8, io_dtype="float32", outputs_also=probe_values(prepared))
    found = fidelity(prepared, probe, [images().numpy()], file.data)
    assert found.probe_agrees and found.max_lsb <= 1 and not found.unexpected()
    assert not file.certificate
    steps = teacher_forced(prepared, probe)
    assert max(steps.values()) <= 1, steps
    results = {v.name for node in source.nodes for v in node.outputs}
    assert {name for name in results if kinds.get(name) == "int16"} <= set(steps)
    for real, given, ahead in zip(
        wanted, simulate(prepared, images()), simulate(source, images()), strict=True
    ):
        assert sqnr_db(real, given) > 25.0 and sqnr_db(given, ahead) > 35.0
    return prepared, file


def kinds_of(file: Lowered) -> dict[str, set[str]]:
    """Kinds the audit gives the operators of each graph node's module."""
    found = audit(open_source(file.data), {})
    kinds: dict[str, set[str]] = {}
    for op, row in zip(file.operators, found.ops, strict=True):
        kinds.setdefault(op.source, set()).add(row.kind)
    return kinds


def conversions(file: Lowered) -> list[tuple[str, str]]:
    graph = read_model(file.data, "mixed.tflite").main
    return [
        (graph.tensors[op.inputs[0]].dtype, graph.tensors[op.outputs[0]].dtype)
        for op in graph.operators
        if op.name == "QUANTIZE"
    ]


def one_case_an_op() -> dict[str, Case]:
    return {name.partition("-")[0]: case for name, case in OP_CASES.items()}


@pytest.mark.parametrize("op", sorted(one_case_an_op()))
def test_every_op_among_all_types(op: str) -> None:
    """Every value of a case in a type drawn for it: the file is what the formulas say."""
    case, rng = one_case_an_op()[op], random.Random(op)
    graph, ranges, given = case.graph(), {}, case.images(2)

    def see(value: Value, tensor: torch.Tensor) -> torch.Tensor:
        ranges[value] = (float(tensor.min()), float(tensor.max()))
        return tensor

    run(graph, [given], on_value=see)
    kinds = {value: rng.choice(("int8", "int16", "float32")) for value in rules.activations(graph)}
    qparams.annotate(graph, ranges, choices=Choices(kinds))
    prepared = prepare(graph, INT8)
    probe = lower(prepared, INT8, io_dtype="float32", outputs_also=probe_values(prepared))
    found = fidelity(prepared, probe, [given[:1].numpy()], lower(prepared, INT8, io_dtype="float32").data)
    assert found.probe_agrees and found.max_lsb <= 1 and not found.unexpected(), found.worst


def three_types() -> Graph:
    b = Builder((1, 3, 16, 16))
    x = b.conv(b.input, 8, 3, 2, activation="relu")
    x = b.conv(x, 8, 3)  # int16
    x = b.conv(x, 8, activation="relu")
    x = b.op("softmax", x, dim=1)  # float
    x = b.op("mean", b.conv(x, 8), dims=(2, 3), keepdim=False)
    return b.graph(b.linear(x, 5))


def test_one_int16_convolution_and_one_float_node_among_int8_ones() -> None:
    prepared, file = held(three_types(), {"conv2d_1": "int16", "softmax_3": "float32"})
    of_op = {node.source: node for node in prepared.nodes if node.op != "reshape"}
    assert of_op["conv2d_1"].inputs[0].quant.dtype == "int16"
    kinds = kinds_of(file)
    assert kinds["conv2d_0"] <= {"int8", "convert"} and "int16" in kinds["conv2d_1"]
    assert "float" in kinds["softmax_3"] and kinds["linear_6"] <= {"int8", "convert", "float"}
    assert conversions(file).count(("int8", "int16")) == 1 == conversions(file).count(("int16", "int8"))
    main = read_model(file.data, "mixed.tflite").main
    operands = [[main.tensors[i].dtype for i in op.inputs] for op in main.operators if op.name == "CONV_2D"]
    integers = ["int8", "int8", "int32"]
    assert operands == [integers, ["int16", "int8", "int64"], integers, ["float32"] * 3]


def residual() -> Graph:
    b = Builder((1, 3, 16, 16))
    x = b.conv(b.input, 8, 3, activation="relu")
    y = b.conv(x, 8, 3)
    x = b.op("add", y, x, activation="relu")
    x = b.op("add", x, b.constant("shift", torch.tensor([0.3])), activation=None)
    return b.graph(b.conv(x, 4))


@pytest.mark.parametrize(
    "kinds",
    [
        {"conv2d_1": "int16"},
        {"add_2": "int16"},
        {"conv2d_0": "int16", "conv2d_1": "int16"},
        {"add_3": "int16"},
        {"conv2d_1": "int16", "add_2": "float32"},
        {"image": "int16", "conv2d_4": "int16"},
        {"conv2d_1": "float32", "add_2": "int16", "add_3": "int16", "shift": "int16"},
    ],
)
def test_a_residual_sum_converts_its_operands(kinds: Kinds) -> None:
    prepared, _ = held(residual(), kinds)
    assert not any(map(crossings, prepared.nodes))
    for node in prepared.nodes:
        if node.op == "add" and node.output.quant is not None:
            quants = [v.quant for v in node.operands]
            assert None in quants or {q.dtype for q in quants} == {node.output.quant.dtype}


def joined() -> Graph:
    b = Builder((1, 3, 16, 16))
    x = b.conv(b.input, 4, 3, activation="relu")
    y = b.conv(x, 4, 3)
    z = b.op("concat", x, y, dim=1)
    pooled = b.op("max_pool2d", z, kernel=(2, 2), stride=(2, 2), padding=(0, 0))
    flat = b.op(
        "reshape", b.op("avg_pool2d", pooled, kernel=(2, 2), stride=(2, 2), padding=(0, 0)), shape=(-1, 128)
    )
    return b.graph(b.linear(flat, 6), b.conv(z, 4))


@pytest.mark.parametrize(
    "kinds",
    [
        {"conv2d_1": "int16"},
        {"concat_2": "int16"},
        {"conv2d_0": "int16", "conv2d_1": "int16", "concat_2": "int16"},
        {"max_pool2d_3": "int16"},
        {"avg_pool2d_4": "int16", "reshape_5": "int16"},
        {"reshape_5": "int16", "concat_2": "float32"},
        {"linear_6": "int16"},
    ],
)
def test_what_ties_inputs_and_output_takes_the_outputs_type(kinds: Kinds) -> None:
    prepared, _ = held(joined(), kinds)
    wanted = kinds.get("concat_2", "int8")
    found = prepared.value("concat_2").quant
    assert (found.dtype if found else "float32") == wanted


def test_pieces_of_a_split_may_differ_in_type() -> None:
    b = Builder((1, 3, 16, 16))
    x = b.conv(b.input, 8, 3)
    first = b.op("split", x, outputs=2, sizes=(4, 4), dim=1)
    second = b.nodes[-1].outputs[1]
    held(b.graph(b.conv(first, 4), b.conv(second, 4)), {"split_1.1": "int16"})


def test_int8_becomes_int16_without_rounding() -> None:
    """Each step of int8 is a whole number of int16 steps, so that QUANTIZE has nothing to round."""
    for low, high in ((-1.0, 0.0), (0.0, 6.0), (-0.3, 2.9)):
        x, y = Value("x", (1, 4)), Value("y", (1, 4))
        graph = Graph([x], [y], [Node("add", [x, x], [y], {}, "sum")], "net")
        qparams.annotate(graph, {x: (low, high), y: (2 * low, 2 * high)}, choices=Choices({y: "int16"}))
        assert meet_types(graph) == 2 and len(graph.nodes) == 2 and meet_types(graph) == 0
        given, wide = x.quant, graph.nodes[0].output.quant
        codes = torch.arange(-128, 128) - given.zero_point[0]
        steps = codes.double() * given.scale[0] / wide.scale[0]
        assert float((steps - steps.round()).abs().max()) < 1e-2 and 16000 < float(steps.abs().max()) < 32768


@pytest.mark.parametrize("io_dtype", ["int8", "uint8", "float32"])
def test_inputs_and_outputs_of_sixteen_bits(io_dtype: str) -> None:
    """They stay as they are where integers are asked for, and are converted where other types are."""
    wanted = run(residual(), [images()[:1]])[0]
    prepared = prepare(annotated(residual(), {"image": "int16", "conv2d_4": "int16"}), INT8)
    file = lower(prepared, INT8, io_dtype=io_dtype)
    main = read_model(file.data, "x").main
    types = {main.tensors[i].dtype for i in (*main.inputs, *main.outputs)}
    assert types == {"int16" if io_dtype == "int8" else io_dtype}
    (found,) = run_file(file.data, images()[:1])
    assert sqnr_db(wanted, torch.from_numpy(to_torch_layout(found))) > 25.0


@pytest.mark.parametrize("name", ["onnx-int8", "openvino-int8", "tensorrt-int8"])
def test_a_target_without_sixteen_bits_refuses_before_any_pass(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = get_target(name)
    lowering = lowering_of(target)
    package = import_module(f"edgekit.lower.{target.format}.prepare")
    monkeypatch.setattr(package, "PASSES", (lambda graph, target: pytest.fail("a pass ran"),))
    graph = annotated(residual(), {"conv2d_1": "int16"})
    with pytest.raises(UnsupportedError) as caught:
        lowering.prepare(graph, target)
    assert str(caught.value) == (f"{name}: conv2d_1 (conv2d at conv2d_1) is int16: int8 or float32 is needed")


def test_other_tflite_targets_derive_one_type_of_a_mixed_graph() -> None:
    graph = annotated(residual(), {"conv2d_1": "int16", "add_2": "float32"})
    for name, kinds in (("tflite-int16x8", {"int16"}), ("tflite-float32", set()), ("onnx-float32", set())):
        target = get_target(name)
        prepared = lowering_of(target).prepare(graph, target)
        found = {v.quant.dtype for v in prepared.values() if v.quant is not None and not v.is_constant}
        assert found == kinds
        lowering_of(target).lower(prepared, target)


@pytest.mark.parametrize("name", ["tflite-int8", "tflite-int16x8"])
def test_sixteen_bits_around_another_zero_point_are_centred(name: str) -> None:
    """Files quantized elsewhere hold uint16, zero anywhere; kernels refuse it."""
    graph, target = annotated(residual(), {"conv2d_1": "int16"}), get_target(name)
    wanted = run(graph, [images()[:1]])[0]
    value = graph.value("conv2d_1")
    value.quant = QuantParams((2.0 * value.quant.scale[0],), (9000,), "int16")
    prepared = lowering_of(target).prepare(graph, target)
    (found,) = run_file(lower(prepared, target, io_dtype="float32").data, images()[:1])
    assert sqnr_db(wanted, torch.from_numpy(to_torch_layout(found))) > 25.0
