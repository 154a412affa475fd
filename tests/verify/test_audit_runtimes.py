"""What ONNX Runtime and OpenVINO make of hand-made files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import TensorProto
from onnx_files import OnnxFile, float_onnx, int8_onnx, openvino_files, serialized

from edgekit.errors import ArtifactError
from edgekit.runtimes.audit import audit, delegation, module_names
from edgekit.targets import get_target
from edgekit.verify.gates import Evidence, judge

MACS = 16 * 6 * 6 * 27 + 5 * 16


@pytest.mark.parametrize(
    "source", [float_onnx, openvino_files, lambda: openvino_files(compress=True)], ids=["onnx", "xml", "f16"]
)
def test_a_float_file(source):
    facts = audit(source())
    assert facts.macs == MACS and facts.int8_ops_share == facts.int8_macs_share == 0.0
    assert set(facts.kinds) <= {"float", "other"} and facts.per_channel_share == 0.0
    assert (facts.inputs[0].name, facts.inputs[0].dtype, facts.inputs[0].shape) == (
        "input",
        "float32",
        (1, 3, 8, 8),
    )
    assert facts.outputs[0].name == "logits" and facts.outputs[0].shape == (1, 5)
    json.dumps(facts.as_dict())


def test_sizes_count_the_bin_and_the_types_of_weights():
    files = openvino_files(compress=True)
    facts = audit(files)
    assert facts.size_bytes == sum(map(len, files.values()))
    assert facts.weight_bytes["float16"] == 2 * (16 * 27 + 16 + 5 * 16)
    assert audit(float_onnx()).weight_bytes["float32"] == 4 * (16 * 27 + 16 + 5 * 16)


@pytest.mark.parametrize("source", [int8_onnx, lambda: openvino_files(True)], ids=["onnx", "xml"])
def test_an_int8_file(source):
    facts = audit(source())
    assert facts.macs == MACS and facts.int8_macs_share == 1.0 and facts.per_channel_share == 1.0
    assert facts.kinds["int8"] >= 3 and facts.kinds["convert"] >= 1
    assert facts.weight_bytes["int8"] >= 16 * 27 + 5 * 16
    found = delegation(source())
    assert found.complete and found.partitions == 1 and found.operators == len(facts.ops)


def test_a_convolution_that_was_not_fused_is_named():
    data = int8_onnx(unfused=True)
    modules = {"features.0": "stem.conv", "features.1": "stem.act", "head": "classifier"}
    found = delegation(data, modules)
    assert [str(op) for op in found.undelegated_ops] == ["Conv at stem.conv"] and found.partitions == 1
    facts = audit(data, modules)
    assert facts.int8_macs_share == pytest.approx(80 / MACS)
    assert "Conv at stem.conv" in facts.float_ops
    assert {row.module for row in facts.ops if row.op in ("HardSigmoid", "Mul", "HardSwish")} == {"stem.act"}
    target = get_target("onnx-int8")
    limits = target.promises.overridden({"max_partitions": 1})
    gates = {
        gate.name: gate for gate in judge(Evidence(target=target, audit=facts, delegation=found), limits)
    }
    assert not gates["delegation"].ok and "Conv at stem.conv" in gates["delegation"].detail
    assert "in float where the file asks for int8" in gates["delegation"].detail
    assert gates["partitions"].detail == "1 session parts, 1 allowed"
    assert not gates["int8"].ok and gates["partitions"].ok and "layout" not in gates
    whole = Evidence(target=target, audit=audit(int8_onnx()), delegation=delegation(int8_onnx()))
    assert all(gate.ok for gate in judge(whole, limits))


def test_an_openvino_convolution_without_a_quantized_input_is_not_asked_for():
    assert delegation(openvino_files()).undelegated_ops == ()


def test_executed_layout_changes_are_listed():
    assert audit(float_onnx()).histogram["ReorderOutput"] >= 1 and audit(float_onnx()).transposes
    file = OnnxFile()
    file.node("Transpose", ["input"], "turned", perm=[0, 2, 3, 1])
    file.node("Relu", ["turned"], "logits")
    data = file.bytes([("logits", TensorProto.FLOAT, (1, 8, 8, 3))])
    assert audit(data, {"turned": "blocks.0.permute"}).transposes == ("blocks.0.permute",)


def test_padded_blocks_do_not_count_as_work():
    """5 output channels are 16 to a blocked kernel."""
    file = OnnxFile()
    w = file.constant("w", np.ones((5, 3, 3, 3), np.float32))
    file.node("Conv", ["input", w], "inner")
    v = file.constant("v", np.ones((7, 5, 1, 1), np.float32))
    file.node("Conv", ["inner", v], "logits")
    assert audit(file.bytes([("logits", TensorProto.FLOAT, (1, 7, 6, 6))])).macs == 36 * (5 * 27 + 7 * 5)


def test_openvino_weights_kept_in_int8_under_a_float_input_are_dynamic():
    import openvino as ov
    from openvino import opset13 as ops

    x = ops.parameter([1, 64], ov.Type.f32, name="input")
    codes = ops.constant(np.random.default_rng(0).integers(-127, 128, (64, 64)).astype(np.int8))
    scale = ops.constant(np.full((64, 1), 0.01, np.float32))
    weight = ops.multiply(ops.convert(codes, ov.Type.f32), scale)
    model = ov.Model([ops.matmul(x, weight, False, True)], [x], "main")
    facts = audit(serialized(model))
    assert facts.macs == 64 * 64 and facts.int8_macs_share == 0.0


def test_names_of_operators_and_tensors_lead_to_modules():
    class Op:
        name, source, graph_op, outputs = "conv0", "features.0", "conv2d", ("t",)

    assert module_names([Op()]) == {"conv0": "features.0", "t": "features.0"}


def test_a_damaged_file_is_an_artifact_error():
    for files in ({"model.onnx": float_onnx()[:300]}, {"model.xml": b"<net", "model.bin": b""}):
        for ask in (audit, delegation):
            with pytest.raises(ArtifactError):
                ask(files)
