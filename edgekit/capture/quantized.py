"""What a model that was quantized elsewhere says of its tensors: pairs of Q and DQ become annotations.

The int8 form of uint8 numbers with zero point zp is zp - 128: the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from edgekit.capture.builder import Unsupported
from edgekit.graph.ir import QuantParams, Value

# dtype -> the signed type of as many bits, what its zero point loses
SIGNED = {"int8": ("int8", 0), "uint8": ("int8", 128), "int16": ("int16", 0), "uint16": ("int16", 32768)}


@dataclass(frozen=True)
class Quantized:
    """The integers that were made of a Value; only their way back, or what moves data, can read it."""

    value: Value


def parameters(
    scales: Sequence[float], zero_points: Sequence[int], dtype: str, axis: int | None, where: str
) -> QuantParams:
    """Parameters in their signed form. Raises: Unsupported for another type."""
    if dtype not in SIGNED:
        raise Unsupported(f"{where} with {dtype} numbers (int8, uint8, int16 or uint16)")
    signed, offset = SIGNED[dtype]
    return QuantParams(
        tuple(map(float, scales)), tuple(int(zero) - offset for zero in zero_points), signed, axis
    )


def annotate(value: Value, params: QuantParams) -> Quantized:
    """The integers of an activation. Raises: Unsupported for a second grid."""
    if params.axis is not None:
        raise Unsupported("an activation quantized per channel (per tensor)")
    if value.quant not in (None, params):
        raise Unsupported("two quantizations of one tensor")
    value.quant, value.range = params, span(params)
    return Quantized(value)


def span(params: QuantParams) -> tuple[float, float]:
    """The real numbers at both ends of a per-tensor quantization."""
    half = 32768 if params.dtype == "int16" else 128
    scale, zero = params.scale[0], params.zero_point[0]
    return ((-half - zero) * scale, (half - 1 - zero) * scale)


def fake_quantize(value: Value, tensor: torch.Tensor) -> torch.Tensor:
    """What the model's own Q and DQ do to an annotated activation; for `edgekit.graph.run.run`."""
    params = value.quant
    if params is None or value.data is not None:
        return tensor
    half = 32768 if params.dtype == "int16" else 128
    scale, zero = params.scale[0], params.zero_point[0]
    whole = torch.clamp(torch.round(tensor / scale) + zero, -half, half - 1)
    return (whole - zero) * scale
