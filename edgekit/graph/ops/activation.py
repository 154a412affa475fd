"""Activations: one number in, one number out."""

from __future__ import annotations

from functools import partial
from math import inf

import torch
import torch.nn.functional as F

from edgekit.graph.ops.row import FREE, Fixed, Tensor, op

_pointwise = partial(op, channels="pass", layout="any", dtypes="floats")


@op(
    channels="pass",
    ranges=FREE,
    layout="any",
    dtypes="numbers",
    homogeneous=True,
    reads=(0.0, inf),
    turns=-inf,
)
def relu(x: Tensor) -> Tensor:
    return F.relu(x)


@_pointwise(ranges=FREE, homogeneous=True, reads=(0.0, 6.0), turns=-inf)
def relu6(x: Tensor) -> Tensor:
    return F.relu6(x)


# zero at and below -3
@_pointwise(ranges=FREE, reads=(-3.0, inf), turns=-1.5)
def hardswish(x: Tensor) -> Tensor:
    """x * relu6(x + 3) / 6."""
    return F.hardswish(x)


# no kernel dictates it: [0, 1] is reached exactly at both ends, so both ends must be integers
@_pointwise(ranges=Fixed(0.0, 1.0, int8=(1 / 255, -128), int16=(1 / 32767, 0)), reads=(-3.0, 3.0), turns=-inf)
def hardsigmoid(x: Tensor) -> Tensor:
    """relu6(x + 3) / 6."""
    return F.hardsigmoid(x)


# LOGISTIC asserts scale 1/256; beyond 8 it is within a third of a step of 0 or 1
@_pointwise(ranges=Fixed(0.0, 1.0, int8=(1 / 256, -128)), reads=(-8.0, 8.0), turns=-inf)
def sigmoid(x: Tensor) -> Tensor:
    return torch.sigmoid(x)


@_pointwise(ranges=FREE, turns=-1.2784645427610738)
def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x)."""
    return F.silu(x)


@_pointwise(ranges=FREE, turns=-0.7517915246935645)
def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    return F.gelu(x, approximate=approximate)


# TANH: scale 1/128, zero point 0; beyond 4 it is within a tenth of a step of -1 or 1
@_pointwise(ranges=Fixed(-1.0, 1.0, int8=(1 / 128, 0)), reads=(-4.0, 4.0), turns=-inf)
def tanh(x: Tensor) -> Tensor:
    return torch.tanh(x)


@_pointwise(ranges=FREE)
def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.elu(x, alpha)


@_pointwise(ranges=FREE, homogeneous=True)
def leaky_relu(x: Tensor, *, negative_slope: float) -> Tensor:
    return F.leaky_relu(x, negative_slope)


@op(channels="scale", ranges=FREE, layout="any", dtypes="floats", parameters=True, homogeneous=True)
def prelu(x: Tensor, weight: Tensor) -> Tensor:
    """weight (C,) or (1,)."""
    return F.prelu(x, weight)


@_pointwise(ranges=FREE, turns=-inf)
def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), without overflow."""
    return F.softplus(x)


@_pointwise(ranges=FREE, turns=-1.1924312145154952)
def mish(x: Tensor) -> Tensor:
    return F.mish(x)


# what it cannot tell apart stands in its attributes: `quantize.rules.reader_clip`
@_pointwise(ranges=FREE, turns=-inf)
def clamp(x: Tensor, *, low: float | None, high: float | None) -> Tensor:
    return torch.clamp(x, low, high)
