"""Hand-made .onnx and .xml files for tests of the readers and proofs, independent of our lowering."""

from __future__ import annotations

import functools
import io

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IMAGES = np.random.default_rng(0).uniform(-2, 2, (5, 3, 8, 8)).astype(np.float32)


class OnnxFile:
    """Collects nodes and initializers; `bytes()` packs them."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name, array) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op, inputs, output, **attrs) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"{output}/{op}", **attrs))
        return output

    def grid(self, stem, scale, zero_point, dtype=np.uint8) -> list[str]:
        return [
            self.constant(f"{stem}/scale", np.float32(scale)),
            self.constant(f"{stem}/zero_point", np.asarray(zero_point, dtype)),
        ]

    def quantized(self, name, scale, zero_point) -> str:
        """name -> QuantizeLinear -> DequantizeLinear -> name/real."""
        grid = self.grid(name, scale, zero_point)
        integers = self.node("QuantizeLinear", [name, *grid], f"{name}/integers")
        return self.node("DequantizeLinear", [integers, *grid], f"{name}/real")

    def weight(self, name, codes, scale) -> str:
        """int8 per channel along axis 0 behind DequantizeLinear."""
        stored = self.constant(f"{name}/integers", codes.astype(np.int8))
        scales = self.constant(f"{name}/scale", np.asarray(scale, np.float32))
        zeros = self.constant(f"{name}/zero_point", np.zeros(len(codes), np.int8))
        return self.node("DequantizeLinear", [stored, scales, zeros], f"{name}/real", axis=0)

    def bias(self, name, codes, scale) -> str:
        stored = self.constant(f"{name}/integers", codes.astype(np.int32))
        scales = self.constant(f"{name}/scale", np.asarray(scale, np.float32))
        zeros = self.constant(f"{name}/zero_point", np.zeros(len(codes), np.int32))
        return self.node("DequantizeLinear", [stored, scales, zeros], f"{name}/real", axis=0)

    def bytes(self, outputs, inputs=(("input", TensorProto.FLOAT, (1, 3, 8, 8)),)) -> bytes:
        graph = helper.make_graph(
            self.nodes,
            "main",
            [helper.make_tensor_value_info(*item) for item in inputs],
            [helper.make_tensor_value_info(*item) for item in outputs],
            self.constants,
        )
        opset = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def float_onnx(seed: int = 0) -> bytes:
    """1x3x8x8 -> conv 3x3 (3 -> 16) -> relu -> global average -> 1x1 conv (16 -> 5) -> (1, 5) logits."""
    rng = np.random.default_rng(seed)
    file = OnnxFile()
    w = file.constant("features.0/weight", rng.normal(size=(16, 3, 3, 3)).astype(np.float32))
    b = file.constant("features.0/bias", rng.normal(size=16).astype(np.float32))
    file.node("Conv", ["input", w, b], "features.0")
    file.node("Relu", ["features.0"], "features.1")
    file.node("GlobalAveragePool", ["features.1"], "pool")
    hw = file.constant("head/weight", rng.normal(size=(5, 16, 1, 1)).astype(np.float32))
    file.node("Conv", ["pool", hw], "head")
    file.node("Flatten", ["head"], "logits")
    return file.bytes([("logits", TensorProto.FLOAT, (1, 5))])


def int8_onnx(*, unfused: bool = False, seed: int = 0) -> bytes:
    """The same net with QDQ by ONNX Runtime's rules.

    unfused: the first convolution lacks a QuantizeLinear on its output, so that it runs in float.
    """
    rng = np.random.default_rng(seed)
    file = OnnxFile()
    x = file.quantized("input", 4 / 255, 127)
    scales = np.float32([0.01, 0.02, 0.005, 0.01] * 4)
    w = file.weight("features.0/weight", rng.integers(-127, 128, (16, 3, 3, 3)), scales)
    b = file.bias("features.0/bias", rng.integers(-500, 500, 16), scales * np.float32(4 / 255))
    file.node("Conv", [x, w, b], "features.0")
    if unfused:
        pooled = file.node("HardSwish", ["features.0"], "features.1")
    else:
        file.node("Relu", ["features.0"], "features.1")
        pooled = file.quantized("features.1", 0.05, 0)
    file.node("GlobalAveragePool", [pooled], "pool")
    inner = file.quantized("pool", 0.02, 10)
    hw = file.weight("head/weight", rng.integers(-127, 128, (5, 16, 1, 1)), np.full(5, 0.01))
    file.node("Conv", [inner, hw], "head")
    real = file.quantized("head", 0.04, 120)
    file.node("Flatten", [real], "logits")
    return file.bytes([("logits", TensorProto.FLOAT, (1, 5))])


@functools.cache
def openvino_files(quantized: bool = False, compress: bool = False) -> dict[str, bytes]:
    """The same net as {"model.xml": ..., "model.bin": ...}; quantized by FakeQuantize on the conv inputs."""
    import openvino as ov

    if not quantized:
        model = ov.convert_model(io.BytesIO(float_onnx()))
    else:
        model = ov.convert_model(io.BytesIO(int8_onnx()))
    return serialized(model, compress)


def serialized(model, compress: bool = False) -> dict[str, bytes]:
    import tempfile
    from pathlib import Path

    import openvino as ov

    with tempfile.TemporaryDirectory() as folder:
        ov.save_model(model, Path(folder, "model.xml"), compress_to_fp16=compress)
        return {name: Path(folder, name).read_bytes() for name in ("model.xml", "model.bin")}
