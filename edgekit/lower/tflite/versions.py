"""The oldest version of each builtin operator that knows the types it is used with.

A file that asks for more than it needs is refused by older runtimes. The numbers follow the runtime's own
table (tensorflow/lite/tools/versioning/op_version.cc).
"""

from __future__ import annotations

from typing import Any

# builtin -> {type of its data input: version}; 1 where nothing is said
_BY_INPUT: dict[str, dict[str, int]] = {
    "ADD": {"int8": 2, "int16": 3},
    "SUB": {"int8": 2, "int16": 5},
    "MUL": {"int8": 2, "int16": 4},
    "MAX_POOL_2D": {"int8": 2, "int16": 3},
    "AVERAGE_POOL_2D": {"int8": 2, "int16": 3},
    "LOGISTIC": {"int8": 2, "int16": 3},
    "TANH": {"int8": 2, "int16": 3},
    "RELU": {"int8": 2, "int16": 3},
    "RELU6": {"int8": 2, "int16": 3},
    "ABS": {"int8": 2, "int16": 3},
    "SOFTMAX": {"int8": 2, "int16": 3},
    "MEAN": {"int8": 2, "int16": 3},
    "REDUCE_MAX": {"int8": 2, "int16": 3},
    "RSQRT": {"int8": 2, "int16": 3},
    "MIRROR_PAD": {"int8": 2, "int16": 3},
    "SUM": {"int8": 2},
    "CONCATENATION": {"int8": 2, "int16": 3},
    "BATCH_MATMUL": {"int8": 2, "int16": 3},
    "DEPTH_TO_SPACE": {"int8": 2},
    "SPACE_TO_DEPTH": {"int8": 2},
    "DEQUANTIZE": {"int8": 2, "int16": 3, "float16": 3},
    "RESIZE_NEAREST_NEIGHBOR": {"int8": 2, "int16": 4},
    "STRIDED_SLICE": {"int8": 2},
    "GELU": {"int8": 2},
    "LEAKY_RELU": {"int16": 2},
    "MAXIMUM": {"int8": 2, "int16": 4},
    "MINIMUM": {"int8": 2, "int16": 4},
    "SQUARED_DIFFERENCE": {"int8": 2},
    "ARG_MAX": {"int8": 2},
    "GATHER": {"int8": 2, "int16": 4},
    "TOPK_V2": {"int8": 2, "int16": 3},
    "BROADCAST_TO": {"float32": 2, "int8": 3, "int16": 3},
}
_BY_RANK = {"TRANSPOSE": (5, 6), "SLICE": (4, 5), "PAD": (4, 4), "PADV2": (4, 4)}
_RANKED: dict[str, dict[str, int]] = {
    "TRANSPOSE": {"int8": 2, "int16": 5},
    "SLICE": {"int8": 2, "int16": 4},
    "PAD": {"int8": 2, "int16": 3},
    "PADV2": {"int8": 2, "int16": 3},
}


def version(name: str, inputs: list[Any], outputs: list[Any], options: Any) -> int:
    """The version for operator `name` on these tensors (None where an optional input is absent)."""
    data = inputs[1] if name == "SPLIT" else inputs[0]
    kind = data.dtype
    hybrid = kind == "float32" and len(inputs) > 1 and inputs[1] is not None and inputs[1].dtype == "int8"
    if name == "CONV_2D":
        if inputs[0].shape[3] != inputs[1].shape[3]:
            return 6
        return 5 if hybrid else {"int8": 3, "int16": 4}.get(kind, 1)
    if name == "DEPTHWISE_CONV_2D":
        dilated = options.dilationHFactor != 1 or options.dilationWFactor != 1
        return 6 if hybrid else {"int8": 3, "int16": 5}.get(kind, 2 if dilated else 1)
    if name == "FULLY_CONNECTED":
        if hybrid:
            return 12
        if kind == "int16":
            return 7
        if len(inputs) == 2:
            return 6
        return 5 if options.keepNumDims else {"int8": 4}.get(kind, 1)
    if name == "TRANSPOSE_CONV":
        if options.fusedActivationFunction:
            return 4
        return 3 if len(inputs) == 4 else {"int8": 2}.get(inputs[1].dtype, 1)
    if name == "SPLIT":
        return {"int8": 2, "int16": 4}.get(kind, 1)
    if name == "QUANTIZE":
        return 2 if outputs[0].dtype == "int16" else 1
    if name == "RESIZE_BILINEAR":
        return 4 if kind == "int16" else 3 if options.halfPixelCenters else {"int8": 2}.get(kind, 1)
    if name == "RESIZE_NEAREST_NEIGHBOR" and (options.halfPixelCenters or options.alignCorners):
        return {"int16": 4}.get(kind, 3)
    if name == "MUL" and kind == "int8" and all(t.quant for t in (*inputs, *outputs)):
        (a, b), out = (t.quant.scale[0] for t in inputs), outputs[0].quant.scale[0]
        return 3 if a * b / out >= 1.0 else 2
    if name in _BY_RANK:
        above, needed = _BY_RANK[name]
        if len(data.shape) > above:
            return needed
        if name == "TRANSPOSE" and len(data.shape) > 4:
            return max(4, _RANKED[name].get(kind, 1))
        return _RANKED[name].get(kind, 1)
    return _BY_INPUT.get(name, {}).get(kind, 1)
