"""Importers of poolings over one and two dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgekit.capture.builder import Unsupported
from edgekit.capture.torch.registry import aten, importer, overloads, pair
from edgekit.graph.ir import Value

if TYPE_CHECKING:
    from edgekit.capture.builder import Builder


@importer(aten.max_pool2d.default)
def max_pool2d(imp: Builder, x, kernel, stride=(), padding=0, dilation=1, ceil_mode=False):
    return imp.emit(
        "max_pool2d",
        (x,),
        kernel=pair(kernel),
        stride=pair(stride or kernel),
        padding=pair(padding),
        dilation=pair(dilation),
        ceil_mode=ceil_mode,
    )


@importer(*overloads("max_pool2d_with_indices"))
def max_pool2d_with_indices(imp: Builder, x, kernel, stride=(), padding=0, dilation=1, ceil_mode=False):
    """The indices have no reader the graph could express."""
    return max_pool2d(imp, x, kernel, stride, padding, dilation, ceil_mode), None


@importer(aten.avg_pool2d.default)
def avg_pool2d(
    imp: Builder, x, kernel, stride=(), padding=0, ceil_mode=False, count_include_pad=True, divisor=None
):
    y = imp.emit(
        "avg_pool2d",
        (x,),
        kernel=pair(kernel),
        stride=pair(stride or kernel),
        padding=pair(padding),
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
    )
    if divisor is None:
        return y
    if ceil_mode or (pair(padding) != (0, 0) and not count_include_pad):
        raise Unsupported("average pooling with a divisor of its own and windows of several sizes")
    height, width = pair(kernel)
    return imp.emit("mul", (y, height * width / divisor))


@importer(aten.adaptive_avg_pool2d.default, *overloads("_adaptive_avg_pool2d"))
def adaptive_avg_pool2d(imp: Builder, x, size):
    return imp.emit("adaptive_avg_pool2d", (x,), output_size=pair(size))


@importer(aten.adaptive_max_pool2d.default)
def adaptive_max_pool2d(imp: Builder, x, size):
    """Windows of one size are a pool, others a maximum each; the indices have no reader."""
    wanted, given = pair(size), tuple(x.shape[-2:])
    if wanted == (1, 1):
        dims = (len(x.shape) - 2, len(x.shape) - 1)
        return imp.emit("amax", (x,), dims=dims, keepdim=True), None
    if all(n % k == 0 for n, k in zip(given, wanted, strict=True)):
        window = (given[0] // wanted[0], given[1] // wanted[1])
        return max_pool2d(imp, x, window, window), None
    for axis, cells in zip((-2, -1), wanted, strict=True):
        x = _cells(imp, x, len(x.shape) + axis, cells)
    return x, None


def _cells(imp: Builder, x: Value, dim: int, cells: int) -> Value:
    """The maximum of every cell along one dimension; cell i is from floor(i n / k) to ceil((i + 1) n / k)."""
    length = x.shape[dim]
    if cells == length:
        return x
    found = []
    for i in range(cells):
        start, end = i * length // cells, -(-(i + 1) * length // cells)
        piece = imp.emit("slice", (x,), dim=dim, start=start, end=end, step=1)
        found.append(imp.emit("amax", (piece,), dims=(dim,), keepdim=True))
    return imp.emit("concat", found, dim=dim) if cells > 1 else found[0]


# along one dimension: an image of one row
def _row(imp: Builder, x: Value) -> Value:
    return imp.reshape(x, (*x.shape[:-1], 1, x.shape[-1]))


def _line(imp: Builder, y: Value) -> Value:
    return imp.reshape(y, (*y.shape[:-2], y.shape[-1]))


def _along(x: Any, across: int) -> tuple[int, int]:
    return (across, int(x if isinstance(x, int) else x[0]))


@importer(aten.max_pool1d.default)
def max_pool1d(imp: Builder, x, kernel, stride=(), padding=0, dilation=1, ceil_mode=False):
    sizes = (_along(kernel, 1), _along(stride or kernel, 1), _along(padding, 0), _along(dilation, 1))
    return _line(imp, max_pool2d(imp, _row(imp, x), *sizes, ceil_mode))


@importer(aten.avg_pool1d.default)
def avg_pool1d(imp: Builder, x, kernel, stride=(), padding=0, ceil_mode=False, count_include_pad=True):
    sizes = (_along(kernel, 1), _along(stride or kernel, 1), _along(padding, 0))
    return _line(imp, avg_pool2d(imp, _row(imp, x), *sizes, ceil_mode, count_include_pad))


@importer(aten.adaptive_avg_pool1d.default)
def adaptive_avg_pool1d(imp: Builder, x, size):
    return _line(imp, adaptive_avg_pool2d(imp, _row(imp, x), _along(size, 1)))


@importer(aten.adaptive_max_pool1d.default)
def adaptive_max_pool1d(imp: Builder, x, size):
    return _line(imp, adaptive_max_pool2d(imp, _row(imp, x), _along(size, 1))[0]), None
