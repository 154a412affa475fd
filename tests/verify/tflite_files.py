"""Hand-made .tflite files: a tiny writer for tests of the readers and proofs, independent of our lowering."""

from __future__ import annotations

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "int8": schema.TensorType.INT8,
    "int32": schema.TensorType.INT32,
}


class File:
    """Collects tensors and operators of one subgraph; `bytes()` packs them."""

    def __init__(self) -> None:
        self.tensors: list[schema.TensorT] = []
        self.buffers = [schema.BufferT()]
        self.operators: list[schema.OperatorT] = []
        self.codes: list[int] = []

    def tensor(self, name, shape, dtype="int8", scale=None, zero_point=0, data=None, axis=0) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), _TYPES[dtype], 0
        if scale is not None:
            quant = schema.QuantizationParametersT()
            quant.scale = np.atleast_1d(np.float32(scale))
            quant.zeroPoint = np.full(quant.scale.shape, zero_point, np.int64)
            quant.quantizedDimension = axis
            tensor.quantization = quant
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data, dtype).tobytes(), np.uint8)
            tensor.buffer = len(self.buffers)
            self.buffers.append(buffer)
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def op(self, name, inputs, outputs, options=None) -> None:
        code = getattr(schema.BuiltinOperator, name)
        if code not in self.codes:
            self.codes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = self.codes.index(code)
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        if options is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
            operator.builtinOptions = options
        self.operators.append(operator)

    def bytes(self, inputs, outputs) -> bytes:
        graph = schema.SubGraphT()
        graph.name, graph.tensors, graph.operators = "main", self.tensors, self.operators
        graph.inputs, graph.outputs = list(inputs), list(outputs)
        model = schema.ModelT()
        model.version, model.description, model.subgraphs, model.buffers = 3, "test", [graph], self.buffers
        model.operatorCodes = []
        for code in self.codes:
            entry = schema.OperatorCodeT()
            entry.builtinCode, entry.deprecatedBuiltinCode = code, min(code, 127)
            entry.version = 3 if code in (3, 4, 9) else 1
            if code in (schema.BuiltinOperator.MUL, schema.BuiltinOperator.ADD):
                entry.version = 2
            if code in (schema.BuiltinOperator.DEQUANTIZE, schema.BuiltinOperator.MEAN):
                entry.version = 2
            model.operatorCodes.append(entry)
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def conv_options(stride=1, padding="VALID", activation="NONE"):
    options = schema.Conv2DOptionsT()
    options.strideH = options.strideW = stride
    options.dilationHFactor = options.dilationWFactor = 1
    options.padding = getattr(schema.Padding, padding)
    options.fusedActivationFunction = getattr(schema.ActivationFunctionType, activation)
    return options


def small_net(activation: str = "table") -> bytes:
    """1x8x8x3 int8 -> conv 3x3 (3 -> 4) -> h-swish -> mean -> fully connected (4 -> 5) -> int8 logits.

    activation: "table" (DEQUANTIZE, HARD_SWISH, QUANTIZE) or "builtin" (int8 HARD_SWISH, not delegated).
    """
    rng = np.random.default_rng(0)
    file = File()
    x = file.tensor("input", (1, 8, 8, 3), scale=0.02, zero_point=3)
    w = file.tensor(
        "features.0/weight",
        (4, 3, 3, 3),
        scale=[0.01, 0.02, 0.005, 0.01],
        data=rng.integers(-127, 128, (4, 3, 3, 3)),
    )
    b_scale = np.float32(0.02) * np.float32([0.01, 0.02, 0.005, 0.01])
    b = file.tensor("features.0/bias", (4,), "int32", b_scale, data=rng.integers(-500, 500, 4))
    pre = file.tensor("features.0", (1, 6, 6, 4), scale=0.05, zero_point=-5)
    post = file.tensor("features.1", (1, 6, 6, 4), scale=0.03, zero_point=-115)
    axes = file.tensor("axes", (2,), "int32", data=[1, 2])
    pooled = file.tensor("pool", (1, 4), scale=0.02, zero_point=-100)
    fw = file.tensor(
        "head/weight", (5, 4), scale=[0.01, 0.02, 0.01, 0.03, 0.01], data=rng.integers(-127, 128, (5, 4))
    )
    fb_scale = np.float32(0.02) * np.float32([0.01, 0.02, 0.01, 0.03, 0.01])
    fb = file.tensor("head/bias", (5,), "int32", fb_scale, data=rng.integers(-500, 500, 5))
    logits = file.tensor("head", (1, 5), scale=0.04, zero_point=7)
    file.op("CONV_2D", [x, w, b], [pre], conv_options())
    if activation == "table":
        real = file.tensor("features.1/float_in", (1, 6, 6, 4), "float32")
        swished = file.tensor("features.1/float_out", (1, 6, 6, 4), "float32")
        file.op("DEQUANTIZE", [pre], [real], schema.DequantizeOptionsT())
        file.op("HARD_SWISH", [real], [swished], schema.HardSwishOptionsT())
        file.op("QUANTIZE", [swished], [post], schema.QuantizeOptionsT())
    else:
        file.op("HARD_SWISH", [pre], [post], schema.HardSwishOptionsT())
    reduce = schema.ReducerOptionsT()
    reduce.keepDims = False
    file.op("MEAN", [post, axes], [pooled], reduce)
    dense = schema.FullyConnectedOptionsT()
    file.op("FULLY_CONNECTED", [pooled, fw, fb], [logits], dense)
    return file.bytes([x], [logits])
