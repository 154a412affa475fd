"""The file itself: bytes, signature, input and output types, probes, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from litert import interpreter, lowered_case, run_file, to_native, to_real, undelegated

from edgekit.errors import UnsupportedError, UsageError
from edgekit.graph.ir import Node, Value
from edgekit.graph.ops import OPS
from edgekit.lower.tflite import lower, prepare, supported, unsupported
from edgekit.targets import TARGETS, get_target
from tests.cases import Case, Sketch, conv

NET = Case(lambda s: s.op("hardswish", s.conv(s.conv(s.input, 8, 3, padding=1), 6)))


def test_bytes_are_deterministic() -> None:
    for target in ("tflite-float32", "tflite-int8"):
        assert lowered_case(NET, target)[1].data == lowered_case(NET, target)[1].data


def test_equal_constants_share_a_buffer_and_start_at_16_bytes() -> None:
    _, lowered = lowered_case(
        Case(lambda s: s.conv(s.conv(s.input, 8, bias=False), 8, bias=False)), "tflite-float32"
    )
    model = schema.Model.GetRootAs(lowered.data, 0)
    filled = [model.Buffers(i) for i in range(model.BuffersLength()) if model.Buffers(i).DataLength()]
    assert sum(b.DataLength() == 8 * 4 for b in filled) == 1  # both zero biases
    for entry in filled:
        start = entry._tab.Vector(entry._tab.Offset(4))
        assert start % 16 == 0
    assert schema.Model.ModelBufferHasIdentifier(lowered.data, 0)


def test_the_signature_names_inputs_and_outputs() -> None:
    _, lowered = lowered_case(NET, "tflite-int8")
    signature = interpreter(lowered.data).get_signature_list()["serving_default"]
    assert signature == {"inputs": ["image"], "outputs": ["hardswish_1"]}
    assert (lowered.inputs, lowered.outputs) == (("image",), ("hardswish_1",))


def test_tensors_carry_the_names_of_values() -> None:
    _, lowered = lowered_case(NET, "tflite-int8")
    names = {entry["name"] for entry in interpreter(lowered.data).get_tensor_details()}
    assert {"image", "conv2d_1", "conv2d_2", "hardswish_1"} <= names
    assert lowered.tensors["conv2d_1"] == "conv2d_1"
    assert lowered.layouts["conv2d_1"] == (0, 2, 3, 1)


@pytest.mark.parametrize("io_dtype", ["int8", "float32", "uint8"])
def test_input_and_output_types(io_dtype: str) -> None:
    _, native = lowered_case(NET, "tflite-int8")
    _, lowered = lowered_case(NET, "tflite-int8", io_dtype=io_dtype)
    runner = interpreter(lowered.data)
    (entry,), (out,) = runner.get_input_details(), runner.get_output_details()
    assert np.dtype(entry["dtype"]).name == np.dtype(out["dtype"]).name == io_dtype
    wanted, found = (run_file(data, NET.images(1))[0] for data in (native.data, lowered.data))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert undelegated(lowered.data) == []


def test_an_unknown_input_type_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'uint8' is no input type of tflite-float32: one of float32"):
        lowered_case(NET, "tflite-float32", io_dtype="uint8")


def test_probes_are_further_outputs_with_the_same_numbers() -> None:
    prepared, lowered = lowered_case(NET, "tflite-int8", outputs_also=("conv2d_1", "image"))
    assert lowered.outputs == ("hardswish_1", "conv2d_1")
    runner = interpreter(lowered.data)
    (entry,) = runner.get_input_details()
    runner.set_tensor(entry["index"], to_native(NET.images(1), entry))
    runner.invoke()
    final, probe = (to_real(runner.get_tensor(e["index"]), e) for e in runner.get_output_details())
    _, plain = lowered_case(NET, "tflite-int8")
    np.testing.assert_array_equal(final, run_file(plain.data, NET.images(1))[0])
    assert probe.shape == (1, 10, 12, 8)
    assert prepared.value("conv2d_1").shape == (1, 8, 10, 12)


def test_every_operator_knows_its_node() -> None:
    prepared, lowered = lowered_case(NET, "tflite-int8")
    assert [op.source for op in lowered.operators] == ["conv2d.0", "conv2d.1"] + ["hardswish.2"] * 3
    assert [prepared.nodes[op.node_index].op for op in lowered.operators] == [
        op.op for op in lowered.operators
    ]


def test_all_unsupported_nodes_are_named_at_once() -> None:
    def build(s: Sketch):
        x = s.op("pad", s.input, pads=(1, 1, 1, 1), mode="circular")
        return s.op("pad", x, pads=(-1, 2, 0, 0), mode="reflect")

    graph = Case(build).graph()
    target = get_target("tflite-float32")
    assert len(unsupported(graph, target)) == 2
    with pytest.raises(UnsupportedError) as error:
        lower(prepare(graph, target), target)
    assert str(error.value) == (
        "tflite-float32: cannot lower 'pad' at pad.0 "
        "(pad mode 'circular': constant and reflect are lowered); "
        "cannot lower 'pad' at pad.1 (negative padding by reflection: constant padding may be negative)"
    )


def test_an_op_without_a_lowering_is_named() -> None:
    graph = Case(conv(4, 1)).graph()
    q = graph.outputs[0]
    attended = Value("attended", q.shape)
    graph.nodes.append(Node("scaled_dot_product_attention", [q, q, q, None], [attended], {}, "blocks.0.attn"))
    assert unsupported(graph, get_target("tflite-int8")) == [
        "cannot lower 'scaled_dot_product_attention' at blocks.0.attn"
    ]


def test_targets() -> None:
    assert {
        "tflite-float32",
        "tflite-float16",
        "tflite-int8",
        "tflite-int16x8",
        "tflite-dynamic-int8",
    } <= set(TARGETS)
    with pytest.raises(UsageError, match="did you mean tflite-int8"):
        get_target("tflite-int9")
    assert supported(get_target("tflite-int8")) == {name for name, row in OPS.items() if not row.composite}


def test_two_outputs_of_one_tensor_are_two_tensors() -> None:
    def build(s: Sketch) -> list:
        y = s.conv(s.input, 6)
        return [y, s.op("permute", y, dims=(0, 2, 3, 1))]

    _, lowered = lowered_case(Case(build), "tflite-float32")
    outputs = interpreter(lowered.data).get_output_details()
    assert len({entry["index"] for entry in outputs}) == 2
