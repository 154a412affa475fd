"""Constants on their way into the file: integers from scales, biases from the scales around them.

weight: integer = clamp(round(data / scale), -127, 127), per output channel.
bias:   integer = round(data / (input scale * weight scale)), zero point 0, int32 (int64 beside int16).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.graph.ir import QuantParams, Value

_LIMITS = {"int8": (-128, 127), "int16": (-32768, 32767), "uint8": (0, 255), "int32": (-(2**31), 2**31 - 1)}


def as_numpy(value: Value) -> np.ndarray:
    assert value.data is not None, value
    data = value.data.detach().cpu().numpy()
    return data.astype(np.float32) if data.dtype == np.float64 else data


def _along(items: Any, axis: int | None, rank: int) -> np.ndarray:
    array = np.asarray(items, np.float64)
    if axis is None or array.size == 1:
        return array.reshape(-1)[:1]
    return array.reshape([-1 if d == axis else 1 for d in range(rank)])


def quantize(data: np.ndarray, quant: QuantParams) -> np.ndarray:
    """The integers of `data`; symmetric per-channel int8 keeps to [-127, 127]."""
    scale = _along(quant.scale, quant.axis, data.ndim).astype(np.float32)
    zero = _along(quant.zero_point, quant.axis, data.ndim)
    low, high = _LIMITS[quant.dtype]
    if quant.axis is not None and quant.dtype == "int8":
        low = -127
    if data.size > 1 and not any(data.strides):  # one number, seen many times: rounded once a channel
        one = data[(slice(0, 1),) * data.ndim]
        codes = np.clip(np.rint(one / scale) + zero, low, high).astype(quant.dtype)
        return np.broadcast_to(codes, data.shape)
    return np.clip(np.rint(data / scale) + zero, low, high).astype(quant.dtype)


def symmetric(data: np.ndarray, axis: int | None, dtype: str = "int8") -> QuantParams:
    """Parameters that just hold `data`, zero point 0."""
    limit = 127 if dtype == "int8" else 32767
    if axis is None:
        peak = np.abs(data).max(initial=0.0).reshape(1)
    else:
        peak = np.abs(data).max(axis=tuple(d for d in range(data.ndim) if d != axis), initial=0.0)
    scale = tuple(float(s) for s in np.where(peak > 0, peak / limit, 1.0 / limit).astype(np.float32))
    return QuantParams(scale, (0,) * len(scale), dtype, axis)


def bias(
    data: np.ndarray | None, channels: int, input_scale: float, weight: QuantParams, activations: str
) -> tuple[np.ndarray, QuantParams]:
    """The integer bias of a convolution or matrix product with its parameters; zeros when there is none."""
    scale = np.float64(np.float32(input_scale)) * np.asarray(weight.scale, np.float32).astype(np.float64)
    wide = activations == "int16"
    values = np.zeros(channels) if data is None else data.astype(np.float64)
    limit = 2**62 if wide else 2**31 - 1
    integers = np.clip(np.rint(values / scale), -limit, limit).astype(np.int64 if wide else np.int32)
    stored = tuple(float(s) for s in scale.astype(np.float32))
    axis = 0 if len(stored) > 1 else None
    return integers, QuantParams(stored, (0,) * len(stored), "int64" if wide else "int32", axis)


def reshape_options(shape: tuple[int, ...]) -> Any:
    return schema.ReshapeOptionsT(newShape=np.array(shape, np.int32))


def fused(activation: str | None) -> int:
    """The code of an activation that the runtime applies inside the producer."""
    kinds = schema.ActivationFunctionType
    return {None: kinds.NONE, "relu": kinds.RELU, "relu6": kinds.RELU6}[activation]
