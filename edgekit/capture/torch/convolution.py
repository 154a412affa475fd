"""Importers of convolutions and of what a convolution with fixed weights computes: im2col and col2im."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from edgekit.capture.builder import Unsupported
from edgekit.capture.torch.registry import aten, importer, overloads, pair
from edgekit.graph.ir import Value

if TYPE_CHECKING:
    from edgekit.capture.builder import Builder


@importer(aten.conv2d.default)
def conv2d(imp: Builder, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    top, left = pair(padding)
    return imp.emit(
        "conv2d",
        (x, weight, bias),
        stride=pair(stride),
        padding=(top, top, left, left),
        dilation=pair(dilation),
        groups=groups,
    )


def _same(kernel: Sequence[int], dilation: Sequence[int], padding: str) -> tuple[int, int, int, int]:
    """padding="same" pads the odd pixel at the end, as torch does."""
    total = [d * (k - 1) if padding == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
    return (total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2)


@importer(aten.conv2d.padding)
def conv2d_padding(imp: Builder, x, weight, bias=None, stride=1, padding="valid", dilation=1, groups=1):
    pads = _same(weight.shape[-2:], pair(dilation), padding)
    return imp.emit(
        "conv2d", (x, weight, bias), stride=pair(stride), padding=pads, dilation=pair(dilation), groups=groups
    )


@importer(aten.conv_transpose2d.input)
def conv_transpose2d(
    imp: Builder, x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
):
    return imp.emit(
        "conv_transpose2d",
        (x, weight, bias),
        stride=pair(stride),
        padding=pair(padding),
        output_padding=pair(output_padding),
        dilation=pair(dilation),
        groups=groups,
    )


# along one dimension: an image of one row
def _row(imp: Builder, x: Value) -> Value:
    """(N, C, L) -> (N, C, 1, L)."""
    return imp.reshape(x, (*x.shape[:-1], 1, x.shape[-1]))


def _line(imp: Builder, y: Value) -> Value:
    """(N, C, 1, L) -> (N, C, L)."""
    return imp.reshape(y, (*y.shape[:-2], y.shape[-1]))


def _flat(imp: Builder, weight: Any) -> Any:
    """A weight (O, C, k) as (O, C, 1, k)."""
    if not isinstance(weight, torch.Tensor):
        return imp.reshape(weight, (*weight.shape[:2], 1, weight.shape[2]))
    return imp.derived(weight, weight.unsqueeze(2))


def _beside(padding: Any) -> tuple[int, int]:
    return (0, int(padding if isinstance(padding, int) else padding[0]))


def _along(step: Any) -> tuple[int, int]:
    return (1, int(step if isinstance(step, int) else step[0]))


@importer(aten.conv1d.default, aten.conv1d.padding)
def conv1d(imp: Builder, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    flat = _flat(imp, weight)
    if isinstance(padding, str):
        pads = _same(flat.shape[-2:], _along(dilation), padding)
    else:
        pads = (0, 0, _beside(padding)[1], _beside(padding)[1])
    y = imp.emit(
        "conv2d",
        (_row(imp, x), flat, bias),
        stride=_along(stride),
        padding=pads,
        dilation=_along(dilation),
        groups=groups,
    )
    return _line(imp, y)


@importer(aten.conv_transpose1d.default)
def conv_transpose1d(
    imp: Builder, x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
):
    y = imp.emit(
        "conv_transpose2d",
        (_row(imp, x), _flat(imp, weight), bias),
        stride=_along(stride),
        padding=_beside(padding),
        output_padding=_beside(output_padding),
        dilation=_along(dilation),
        groups=groups,
    )
    return _line(imp, y)


# one weight of 1 for every place of a window
def _places(channels: int, kernel: tuple[int, int]) -> torch.Tensor:
    """(channels * kh * kw, 1, kh, kw): output c * kh * kw + i is channel c at place i of the window."""
    taps = kernel[0] * kernel[1]
    return torch.eye(taps).reshape(taps, 1, *kernel).repeat(channels, 1, 1, 1)


@importer(aten.im2col.default)
def im2col(imp: Builder, x, kernel, dilation, padding, stride):
    """Every window as a column: (N, C, H, W) -> (N, C * kh * kw, windows)."""
    channels, (top, left) = x.shape[1], pair(padding)
    y = imp.emit(
        "conv2d",
        (x, _places(channels, pair(kernel)), None),
        stride=pair(stride),
        padding=(top, top, left, left),
        dilation=pair(dilation),
        groups=channels,
    )
    return imp.reshape(y, (*y.shape[:2], y.shape[2] * y.shape[3]))


@importer(aten.col2im.default)
def col2im(imp: Builder, x, size, kernel, dilation, padding, stride):
    """The sum of overlapping windows, back to an image: (N, C * kh * kw, windows) -> (N, C, H, W)."""
    kernel, dilation, padding, stride = pair(kernel), pair(dilation), pair(padding), pair(stride)
    channels = x.shape[1] // (kernel[0] * kernel[1])
    cells, extra = [], []
    for length, k, d, p, s in zip(size, kernel, dilation, padding, stride, strict=True):
        cells.append((length + 2 * p - d * (k - 1) - 1) // s + 1)
        extra.append(length - ((cells[-1] - 1) * s - 2 * p + d * (k - 1) + 1))
    return imp.emit(
        "conv_transpose2d",
        (imp.reshape(x, (*x.shape[:2], *cells)), _places(channels, kernel), None),
        stride=stride,
        padding=padding,
        output_padding=tuple(extra),
        dilation=dilation,
        groups=channels,
    )


@importer(*overloads("conv3d", "conv3d.padding"))
def conv3d(imp: Builder, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """With a kernel of 1 along the last dimension: that one joins its neighbour, whose steps widen by it."""
    flat = isinstance(weight, torch.Tensor) and weight.shape[-1] == 1 and not isinstance(padding, str)
    strides, pads, steps = (_triple(n) for n in (stride, padding if flat else 0, dilation))
    if not flat or strides != (1, 1, 1) or pads[2]:
        raise Unsupported("a convolution over three dimensions (one or two)")
    n, c, depth, height, width = x.shape
    y = imp.emit(
        "conv2d",
        (imp.reshape(x, (n, c, depth, height * width)), imp.derived(weight, weight.squeeze(-1)), bias),
        stride=(1, 1),
        padding=(pads[0], pads[0], pads[1] * width, pads[1] * width),
        dilation=(steps[0], steps[1] * width),
        groups=groups,
    )
    return imp.reshape(y, (*y.shape[:3], y.shape[3] // width, width))


def _triple(x: Any) -> tuple[int, int, int]:
    return (x, x, x) if isinstance(x, int) else (x[0], x[len(x) // 2], x[-1])
