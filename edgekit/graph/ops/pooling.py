"""Pooling and reductions."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from edgekit.graph.ops.row import FREE, Same, Tensor, op


@op(
    channels="window",
    ranges=Same("MAX_POOL_2D compares integers and checks equal parameters"),
    layout="image",
    dtypes="numbers",
    movement="pick",
    homogeneous=True,
)
def max_pool2d(
    x: Tensor,
    *,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
    ceil_mode: bool = False,
) -> Tensor:
    return F.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode)


@op(
    channels="window",
    ranges=Same("AVERAGE_POOL_2D has no requantization: it divides by the window size only"),
    layout="image",
    dtypes="floats",
    homogeneous=True,
    sums=True,
)
def avg_pool2d(
    x: Tensor,
    *,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    return F.avg_pool2d(x, kernel, stride, padding, ceil_mode, count_include_pad)


@op(
    channels="window",
    ranges=Same("lowered to AVERAGE_POOL_2D windows"),
    layout="image",
    dtypes="floats",
    homogeneous=True,
    sums=True,
)
def adaptive_avg_pool2d(x: Tensor, *, output_size: tuple[int, int]) -> Tensor:
    return F.adaptive_avg_pool2d(x, output_size)


@op(channels="reduce", ranges=FREE, layout="any", dtypes="floats", homogeneous=True, sums=True)
def mean(x: Tensor, *, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    return torch.mean(x, dims, keepdim)


@op(channels="reduce", ranges=FREE, layout="any", dtypes="numbers", homogeneous=True)
def sum_(x: Tensor, *, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    return torch.sum(x, dims, keepdim)


@op(
    channels="reduce",
    ranges=Same("REDUCE_MAX compares integers"),
    layout="any",
    dtypes="numbers",
    movement="pick",
    homogeneous=True,
)
def amax(x: Tensor, *, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    return torch.amax(x, dims, keepdim)
