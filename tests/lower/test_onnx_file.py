"""What the .onnx file looks like from outside: checks, names, batch, edges, determinism, refusals."""

from __future__ import annotations

import numpy as np
import onnx
import onnxsim
import pytest
import torch
from onnx_runs import annotate, lowered_case, op_types, parsed, run_file

from edgekit.errors import UnsupportedError, UsageError
from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.run import run
from edgekit.lower.onnx import lower, lowering, prepare, unsupported
from edgekit.quantize import simulate
from edgekit.targets import get_target
from tests.cases import OP_CASES, Case, Sketch, unary

TARGETS = ("onnx-float32", "onnx-int8", "tensorrt-int8")
NET = Case(lambda s: s.op("hardswish", s.conv(s.conv(s.input, 16, activation="relu"), 8, 3, padding=1)))
BATCHED = sorted(set(OP_CASES) - {"conv2d-stem-11x11"})


def _attention_case() -> Case:
    def build(s: Sketch) -> Value:
        q, k, v = (s.linear(s.tokens(s.input), 8) for _ in range(3))
        return s.op("scaled_dot_product_attention", q, k, v, None, scale=None)

    return Case(build)


@pytest.mark.parametrize("target", TARGETS)
def test_the_file_passes_the_checker_and_states_every_shape(target: str) -> None:
    _, lowered = lowered_case(NET, target)
    model = parsed(lowered)
    onnx.checker.check_model(model, full_check=True)
    stated = {v.name for v in (*model.graph.value_info, *model.graph.input, *model.graph.output)}
    assert {name for node in model.graph.node for name in node.output} <= stated
    assert (model.producer_name, model.ir_version, model.opset_import[0].version) == ("edgekit", 8, 17)


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize(
    "op", [("resize_bilinear", {}), ("resize_bilinear", {"align_corners": True}), ("resize_nearest", {})]
)
def test_resized_sizes_are_whole_in_every_reader(op: tuple[str, dict], batch: bool) -> None:
    """Readers multiply size and scale in float32 or in float64: 11 times float32(21 / 11) is 20.9999998."""
    openvino = pytest.importorskip("openvino")
    name, attrs = op
    for before, after in (((11, 17), (21, 33)), ((26, 21), (51, 11)), ((3, 5), (7, 13))):
        case = Case(unary(name, size=after, **attrs), (1, 4, *before))
        _, lowered = lowered_case(case, "onnx-float32", dynamic_batch=batch)
        onnx.checker.check_model(parsed(lowered), full_check=True)
        image = case.images(1)
        (wanted,), (found,) = run(case.graph(), [image]), run_file(lowered, image)
        core = openvino.Core()
        model = core.read_model(lowered.files["model.onnx"])
        read = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([image.numpy()])[0]
        for got in (found, read):
            assert got.shape == wanted.shape
            assert np.abs(got - wanted.numpy()).max() <= 1e-4  # positions are float32 numbers


@pytest.mark.parametrize("target", TARGETS)
def test_lowering_twice_gives_the_same_bytes(target: str) -> None:
    first, second = (lowered_case(NET, target)[1].files["model.onnx"] for _ in range(2))
    assert first == second


@pytest.mark.parametrize("target", TARGETS)
def test_nodes_are_called_after_modules_and_once(target: str) -> None:
    prepared, lowered = lowered_case(NET, target)
    names = [node.name for node in parsed(lowered).graph.node]
    assert names == [op.name for op in lowered.operators]
    assert len(set(names)) == len(names)
    assert {"conv2d.0/Conv", "conv2d.1/Conv"} <= set(names)
    for op in lowered.operators:
        if op.node_index >= 0:
            assert prepared.nodes[op.node_index].source == op.source


def test_tensors_hold_exactly_the_values() -> None:
    prepared, lowered = lowered_case(NET, "onnx-int8")
    model = parsed(lowered)
    written = {name for node in model.graph.node for name in node.output} | {
        i.name for i in model.graph.input
    }
    assert set(lowered.tensors.values()) <= written
    assert {v.name for v in prepared.values() if not v.is_constant} == set(lowered.tensors)
    producers = {name: node.op_type for node in model.graph.node for name in node.output}
    for value in prepared.values():
        if value.quant is not None and not value.is_constant:
            assert producers[lowered.tensors[value.name]] == "QuantizeLinear"


def test_a_probe_reads_the_integers_of_a_value() -> None:
    case = NET
    graph = case.graph()
    annotate(graph, case.images())
    target = get_target("onnx-int8")
    prepared = prepare(graph, target)
    inner = prepared.nodes[1].output
    assert inner.quant is not None
    probed = lower(prepared, target, outputs_also=(inner.name,))
    image = case.images(1)
    found = run_file(probed, image)[1]
    prepared.outputs = [inner]
    wanted = simulate(prepared, image)[0].numpy()
    assert found.dtype == np.uint8
    real = (found.astype(np.float32) - (inner.quant.zero_point[0] + 128)) * np.float32(inner.quant.scale[0])
    assert np.abs(real - wanted).max() <= 1.01 * inner.quant.scale[0]


@pytest.mark.parametrize("name", BATCHED)
def test_an_open_batch_answers_image_by_image(name: str) -> None:
    case = OP_CASES[name]
    graph = case.graph()
    target = get_target("onnx-float32")
    lowered = lower(prepare(graph, target), target, dynamic_batch=True)
    onnx.checker.check_model(parsed(lowered), full_check=True)
    images = case.images(3)
    together = run_file(lowered, images)
    wanted = run(graph, [images])
    for found, expected in zip(together, wanted, strict=True):
        scale = expected.abs().max().item()
        assert np.abs(found - expected.numpy()).max() <= max(case.float_tolerance, 1e-5) * scale


def test_an_open_batch_in_int8() -> None:
    case = NET
    graph = case.graph()
    annotate(graph, case.images())
    target = get_target("onnx-int8")
    lowered = lower(prepare(graph, target), target, dynamic_batch=True)
    images = case.images(3)
    (together,) = run_file(lowered, images)
    single = np.concatenate([run_file(lowered, image)[0] for image in images.split(1)])
    assert np.array_equal(together, single)


def test_a_baked_batch_is_refused() -> None:
    graph = NET.graph()
    graph.batchable = False
    target = get_target("onnx-float32")
    with pytest.raises(UsageError, match="has a batch of 1 built into its shapes: dynamic_batch=False"):
        lower(prepare(graph, target), target, dynamic_batch=True)


def test_uint8_input_skips_the_first_rounding() -> None:
    case = Case(
        lambda s: s.op("max_pool2d", s.conv(s.input, 8), kernel=(2, 2), stride=(2, 2), padding=(0, 0))
    )
    graph = case.graph()
    annotate(graph, case.images())
    target = get_target("onnx-int8")
    prepared = prepare(graph, target)
    quant = prepared.inputs[0].quant
    assert quant is not None
    image = case.images(1)
    codes = np.clip(np.rint(image.numpy() / np.float32(quant.scale[0])) + quant.zero_point[0] + 128, 0, 255)
    (from_codes,) = run_file(lower(prepared, target, io_dtype="uint8"), codes.astype(np.uint8))
    (from_floats,) = run_file(lower(prepared, target), image)
    assert np.array_equal(from_codes, from_floats)


def test_uint8_input_of_a_float_stem() -> None:
    case = Case(lambda s: s.op("hardswish", s.conv(s.input, 8, 3, stride=2)))
    graph = case.graph()
    annotate(graph, case.images())
    grid = graph.inputs[0].quant
    assert grid is not None
    target = get_target("onnx-int8")
    prepared = prepare(graph, target)
    assert prepared.inputs[0].quant is None
    codes = np.random.default_rng(0).integers(0, 256, case.shape).astype(np.uint8)
    real = (codes.astype(np.float32) - (grid.zero_point[0] + 128)) * np.float32(grid.scale[0])
    (found,) = run_file(lower(prepared, target, io_dtype="uint8"), codes)
    (wanted,) = run_file(lower(prepared, target), real)
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_an_unknown_input_type_is_one_line() -> None:
    with pytest.raises(UsageError) as error:
        lowered_case(NET, "tensorrt-int8", io_dtype="uint8")
    assert str(error.value) == "[target] 'uint8' is no input type of tensorrt-int8: one of float32"


def test_all_unsupported_nodes_are_named_at_once() -> None:
    def build(s: Sketch) -> Value:
        x = s.op("pad", s.input, pads=(1, 1, 1, 1), mode="circular")
        return s.op("pad", x, pads=(2, 2, 1, 1), mode="circular")

    graph, target = Case(build).graph(), get_target("onnx-float32")
    assert len(unsupported(graph, target)) == 2
    with pytest.raises(UnsupportedError) as error:
        lower(prepare(graph, target), target)
    assert str(error.value) == (
        "onnx-float32: cannot lower 'pad' at pad.0 (padding mode 'circular': constant, reflect, replicate "
        "are lowered); cannot lower 'pad' at pad.1 (padding mode 'circular': constant, reflect, replicate "
        "are lowered)"
    )


def test_too_large_a_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lowering, "_LIMIT_BYTES", 1000)
    with pytest.raises(UnsupportedError, match="GiB of constants: a file ends at 2 GiB"):
        lowered_case(NET, "onnx-float32")


def test_outputs_that_are_inputs_constants_or_twice() -> None:
    sketch = Sketch((1, 4, 5, 5))
    y = sketch.op("relu", sketch.input)
    same = sketch.op("expand", y, shape=(-1, -1, -1, -1))
    constant = sketch.const(2, 3)
    graph = Graph([sketch.input], [y, same, sketch.input, constant], sketch.nodes, "edges")
    target = get_target("onnx-float32")
    lowered = lower(prepare(graph, target), target)
    image = torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    for found, wanted in zip(run_file(lowered, image), run(graph, [image]), strict=True):
        assert np.array_equal(found, wanted.numpy())


def test_attention_that_no_pass_expanded() -> None:
    case = _attention_case()
    _, lowered = lowered_case(case, "onnx-float32")
    image = case.images(1)
    (wanted,) = run(case.graph(), [image])
    assert np.abs(run_file(lowered, image)[0] - wanted.numpy()).max() <= 1e-5 * wanted.abs().max().item()


@pytest.mark.parametrize("target", TARGETS)
def test_onnxsim_finds_nothing_to_remove(target: str) -> None:
    """A check only: its constant folding, off here, would undo a weight's DequantizeLinear."""
    _, lowered = lowered_case(NET, target)
    simplified, _ = onnxsim.simplify(parsed(lowered), skip_constant_folding=True)
    kept = [n.op_type for n in simplified.graph.node if not n.op_type.endswith("Linear")]
    assert sorted(kept) == sorted(op_types(lowered))


def test_a_missing_op_is_named() -> None:
    graph = NET.graph()
    (out,) = graph.outputs
    graph.nodes.append(Node("erode", [out], [Value("eroded", out.shape)], {}, "blocks.0"))
    assert unsupported(graph, get_target("onnx-int8")) == ["cannot lower 'erode' at blocks.0"]
