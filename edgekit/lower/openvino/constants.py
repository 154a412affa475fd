"""Constants on their way into the .bin: float32, float16 behind Convert, int8 behind Convert and Multiply.

weight: integer = clamp(round(data / scale), -127, 127), per output channel. Biases stay float: the runtime
adds them to the rescaled accumulator.
"""

from __future__ import annotations

import numpy as np

from edgekit.graph.ir import QuantParams, Value

SMALL = 16  # elements; below, a Convert of its own costs more than float16 saves
_HALF_MAX = float(np.finfo(np.float16).max)


def as_numpy(value: Value) -> np.ndarray:
    assert value.data is not None, value
    data = value.data.detach().cpu().numpy()
    return data.astype(np.float32) if data.dtype == np.float64 else data


def scales(quant: QuantParams, rank: int) -> np.ndarray:
    """The scales as float32, shaped to broadcast over `rank` dimensions."""
    shape = [1] * rank
    if quant.axis is not None:
        shape[quant.axis] = len(quant.scale)
    return np.array(quant.scale, np.float32).reshape(shape)


def quantize(data: np.ndarray, quant: QuantParams) -> np.ndarray:
    """The int8 of a symmetric weight, in [-127, 127]."""
    return np.clip(np.rint(data / scales(quant, data.ndim)), -127, 127).astype(np.int8)


def fits_half(data: np.ndarray) -> bool:
    """Whether float16 can stand for a float constant: large enough to pay, and nothing overflows."""
    if data.dtype != np.float32 or data.size < SMALL:
        return False
    return bool(np.abs(data).max(initial=0.0) <= _HALF_MAX)


def bounds(quant: QuantParams) -> tuple[float, float]:
    """The real numbers of the smallest and the largest int8: what FakeQuantize calls low and high."""
    scale, zero_point = np.float32(quant.scale[0]), quant.zero_point[0]
    return float(scale * np.float32(-128 - zero_point)), float(scale * np.float32(127 - zero_point))
