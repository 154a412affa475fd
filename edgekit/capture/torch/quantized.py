"""Importers of torch's reference quantization: what PT2E's convert leaves in an exported program.

`quantized_decomposed.quantize_per_tensor` and its way back become annotations, never nodes; constant weights
become real numbers that remember the parameters of their integers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.ao.quantization.fx import _decomposed  # noqa: F401 (registers the operators)

from edgekit.capture.builder import Builder, Unsupported
from edgekit.capture.quantized import Quantized, annotate, parameters
from edgekit.capture.torch.registry import importer
from edgekit.graph.ir import QuantParams, Value

_ops = torch.ops.quantized_decomposed
_PER_TENSOR = [_ops.dequantize_per_tensor.default, _ops.dequantize_per_tensor.tensor]
_PER_CHANNEL = _ops.dequantize_per_channel.default


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _per_tensor(scale: Any, zero_point: Any, dtype: torch.dtype, where: str) -> QuantParams:
    if isinstance(scale, Value) or isinstance(zero_point, Value):
        raise Unsupported(f"{where} with a scale that depends on the picture (a static one)")
    return parameters([float(scale)], [int(zero_point)], _name(dtype), None, where)


@importer(_ops.quantize_per_tensor.default, _ops.quantize_per_tensor.tensor)
def quantize(
    imp: Builder, x: Any, scale: Any, zero_point: Any, low: int, high: int, dtype: torch.dtype
) -> Quantized:
    return annotate(imp.value(x), _per_tensor(scale, zero_point, dtype, "quantize_per_tensor"))


@importer(*_PER_TENSOR)
def dequantize(
    imp: Builder, x: Any, scale: Any, zero_point: Any, low: int, high: int, dtype: torch.dtype, **_: Any
) -> Value:
    if not isinstance(x, Quantized):
        raise Unsupported("dequantize_per_tensor of a tensor that no quantize_per_tensor made")
    if x.value.quant != _per_tensor(scale, zero_point, dtype, "dequantize_per_tensor"):
        raise Unsupported("dequantize_per_tensor by other parameters than its quantize_per_tensor")
    return x.value


def _of_tensor(args: Sequence[Any]) -> QuantParams:
    _, scale, zero_point, _, _, dtype = args[:6]
    return _per_tensor(scale, zero_point, dtype, "dequantize_per_tensor")


def _of_channels(args: Sequence[Any]) -> QuantParams:
    x, scales, zero_points, axis, _, _, dtype = args[:7]
    zeros = [0] * len(scales) if zero_points is None else zero_points.tolist()
    axis = axis % x.ndim if len(scales) > 1 else None
    return parameters(scales.tolist(), zeros, _name(dtype), axis, "dequantize_per_channel")


# operator on constant integers -> the parameters that its arguments are; biases have none of their own
CONSTANTS: dict[Any, Callable[[Sequence[Any]], QuantParams]] = {
    **dict.fromkeys(_PER_TENSOR, _of_tensor),
    _PER_CHANNEL: _of_channels,
}


def reads_integers(target: Any) -> bool:
    """Whether an operator takes what a quantize made."""
    return target in _PER_TENSOR
