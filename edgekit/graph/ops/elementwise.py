"""Arithmetic, element by element."""

from __future__ import annotations

from functools import partial
from math import inf

import torch

from edgekit.graph.ops.row import FREE, Fixed, Same, Tensor, activate, op

UNIT = Fixed(-1.0, 1.0, int8=(1 / 127, 0), int16=(1 / 32767, 0))  # -1, 0 and 1 are integers of the grid
_pointwise = partial(op, channels="pass", layout="any", dtypes="floats")


@op(channels="join", ranges=FREE, layout="any", dtypes="numbers", homogeneous=True, sums=True)
def add(a: Tensor, b: Tensor, *, activation: str | None = None) -> Tensor:
    return activate(a + b, activation)


@op(channels="join", ranges=FREE, layout="any", dtypes="numbers", homogeneous=True, sums=True)
def sub(a: Tensor, b: Tensor, *, activation: str | None = None) -> Tensor:
    return activate(a - b, activation)


@op(channels="join", ranges=FREE, layout="any", dtypes="numbers", sums=True)
def mul(a: Tensor, b: Tensor, *, activation: str | None = None) -> Tensor:
    return activate(a * b, activation)


@op(channels="join", ranges=FREE, layout="any", dtypes="floats")
def div(a: Tensor, b: Tensor, *, activation: str | None = None) -> Tensor:
    return activate(a / b, activation)


@op(
    channels="join",
    ranges=Same("MAXIMUM compares integers of both inputs"),
    layout="any",
    dtypes="numbers",
    movement="pick",
    homogeneous=True,
)
def maximum(a: Tensor, b: Tensor) -> Tensor:
    return torch.maximum(a, b)


@op(
    channels="join",
    ranges=Same("MINIMUM compares integers of both inputs"),
    layout="any",
    dtypes="numbers",
    movement="pick",
    homogeneous=True,
)
def minimum(a: Tensor, b: Tensor) -> Tensor:
    return torch.minimum(a, b)


@op(channels="pass", ranges=FREE, layout="any", dtypes="numbers", homogeneous=True, turns=0.0)
def abs_(x: Tensor) -> Tensor:
    return torch.abs(x)


@op(channels="pass", ranges=FREE, layout="any", dtypes="numbers", homogeneous=True)
def neg(x: Tensor) -> Tensor:
    return -x


@op(channels="pass", ranges=FREE, layout="any", dtypes="floats", turns=-inf)
def exp(x: Tensor) -> Tensor:
    return torch.exp(x)


@op(channels="pass", ranges=FREE, layout="any", dtypes="floats")
def log(x: Tensor) -> Tensor:
    return torch.log(x)


@op(channels="pass", ranges=FREE, layout="any", dtypes="floats", turns=-inf)
def sqrt(x: Tensor) -> Tensor:
    return torch.sqrt(x)


@op(channels="pass", ranges=FREE, layout="any", dtypes="floats")
def rsqrt(x: Tensor) -> Tensor:
    return torch.rsqrt(x)


@op(channels="pass", ranges=FREE, layout="any", dtypes="floats")
def pow_(x: Tensor, *, exponent: float) -> Tensor:
    return torch.pow(x, exponent)


@_pointwise(ranges=FREE)
def floor(x: Tensor) -> Tensor:
    return torch.floor(x)


@_pointwise(ranges=FREE)
def ceil(x: Tensor) -> Tensor:
    return torch.ceil(x)


@_pointwise(ranges=FREE)
def round_(x: Tensor) -> Tensor:
    """To the nearest whole number, halves to the even one."""
    return torch.round(x)


@_pointwise(ranges=UNIT)
def sign(x: Tensor) -> Tensor:
    return torch.sign(x)


@_pointwise(ranges=UNIT)
def sin(x: Tensor) -> Tensor:
    return torch.sin(x)


@_pointwise(ranges=UNIT)
def cos(x: Tensor) -> Tensor:
    return torch.cos(x)
