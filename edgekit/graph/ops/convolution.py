"""Convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch.nn.functional as F

from edgekit.graph.ops.row import FREE, Shape, Tensor, activate, op


def _each_output(shapes: Sequence[Shape], out: Shape) -> int:
    """Every output is a sum over the rest of the weight, which is (O, ...)."""
    return prod(out) * prod(shapes[1][1:])


@op(channels="weigh", ranges=FREE, layout="image", dtypes="floats", weight_axis=0, macs=_each_output)
def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
    activation: str | None = None,
) -> Tensor:
    """x (N, C, H, W), weight (O, C/groups, kh, kw), bias (O,); padding is (top, bottom, left, right)."""
    top, bottom, left, right = padding
    if top == bottom and left == right:
        y = F.conv2d(x, weight, bias, stride, (top, left), dilation, groups)
    else:
        y = F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, stride, 0, dilation, groups)
    return activate(y, activation)


@op(
    channels="weigh",
    ranges=FREE,
    layout="image",
    dtypes="floats",
    weight_axis=1,
    macs=lambda shapes, _: prod(shapes[0]) * prod(shapes[1][1:]),
)
def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: tuple[int, int],
    padding: tuple[int, int],
    output_padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    activation: str | None = None,
) -> Tensor:
    """x (N, C, H, W), weight (C, O/groups, kh, kw)."""
    y = F.conv_transpose2d(x, weight, bias, stride, padding, output_padding, groups, dilation)
    return activate(y, activation)


@op(channels="weigh", ranges=FREE, layout="last", dtypes="floats", weight_axis=0, macs=_each_output)
def linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, activation: str | None = None) -> Tensor:
    """x (..., I), weight (O, I), bias (O,)."""
    return activate(F.linear(x, weight, bias), activation)


@op(
    channels="product",
    ranges=FREE,
    layout="last",
    dtypes="floats",
    macs=lambda shapes, out: prod(out) * shapes[0][-1],
)
def matmul(a: Tensor, b: Tensor) -> Tensor:
    """(..., M, K) x (..., K, N)."""
    return a @ b
