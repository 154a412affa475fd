"""Constants on their way into the file: integers from scales, biases from the scales around them.

weight:     integer = clamp(round(data / scale), -127, 127), per output channel.
bias:       integer = round(data / (input scale * weight scale)), zero point 0, int32.
activation: int8 with zero point z is stored as uint8 with z + 128 where the runtime wants it unsigned: the
            same real numbers.
"""

from __future__ import annotations

import numpy as np

from edgekit.errors import UsageError
from edgekit.graph.ir import QuantParams, Value
from edgekit.targets import Target

SMALL = 64  # elements up to which equal constants of a file are stored once
_LIMITS = {"int8": (-128, 127), "uint8": (0, 255), "int32": (-(2**31), 2**31 - 1)}


def as_numpy(value: Value) -> np.ndarray:
    assert value.data is not None, value
    data = value.data.detach().cpu().numpy()
    return data.astype(np.float32) if data.dtype == np.float64 else data


def stored_as(quant: QuantParams, target: Target) -> QuantParams:
    """The file's parameters of an activation: unsigned for a target whose signed kernels are slow."""
    if quant.dtype != "int8" or "unsigned" not in target.forms:
        return quant
    return QuantParams(quant.scale, tuple(z + 128 for z in quant.zero_point), "uint8")


def quantize(data: np.ndarray, quant: QuantParams) -> np.ndarray:
    """The integers of `data`; symmetric per-channel int8 keeps to [-127, 127]."""
    shape = [1] * data.ndim
    if quant.axis is not None:
        shape[quant.axis] = -1
    scale = np.asarray(quant.scale, np.float32).reshape(shape)
    low, high = _LIMITS[quant.dtype]
    if quant.axis is not None and quant.dtype == "int8":
        low = -127
    codes = np.rint(data / scale) + np.asarray(quant.zero_point, np.float32).reshape(shape)
    return np.clip(codes, low, high).astype(quant.dtype)


def bias(data: np.ndarray, input_scale: float, weight: QuantParams) -> tuple[np.ndarray, QuantParams]:
    """The integer bias of a convolution or matrix product with its parameters."""
    scale = np.float64(np.float32(input_scale)) * np.asarray(weight.scale, np.float32).astype(np.float64)
    integers = np.clip(np.rint(data.astype(np.float64) / scale), *_LIMITS["int32"]).astype(np.int32)
    stored = tuple(float(s) for s in scale.astype(np.float32))
    return integers, QuantParams(stored, (0,) * len(stored), "int32", 0)


def input_grid(value: Value) -> QuantParams:
    """The calibrated grid of an input that the file computes with in float."""
    if value.range is None:
        raise UsageError(f"[target] input {value.name} has no calibrated range for uint8: io_dtype float32")
    low, high = min(value.range[0], 0.0), max(value.range[1], 0.0)
    scale = float(np.float32((high - low) / 255.0))
    return QuantParams((scale,), (max(-128, min(127, round(-128 - low / scale))),))
