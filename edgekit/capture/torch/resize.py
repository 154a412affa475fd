"""Importers of resizing. Sizes are fixed, so that what the runtimes do not sample alike is two products.

Bicubic and antialiased resizing, and sampling by a scale factor that is not the ratio of the sizes, are
linear and separable: a matrix along the width and one along the height, read off torch's own operator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from edgekit.capture.builder import Unsupported
from edgekit.capture.choice import choose
from edgekit.capture.torch.registry import importer, overloads
from edgekit.graph.ir import Value

if TYPE_CHECKING:
    from edgekit.capture.builder import Builder


def _size(imp: Builder) -> tuple[int, int]:
    height, width = (int(d) for d in imp.meta.shape[-2:])
    return height, width


def _factors(imp: Builder) -> tuple[float | None, float | None]:
    """The scale factors given for height and width: as one list (vec) or as two numbers at the end."""
    for given in imp.args[2:]:
        if isinstance(given, list | tuple) and any(isinstance(f, float) for f in given):
            return given[0], given[-1]
    numbers = [a for a in imp.args[2:] if isinstance(a, float)]
    return (numbers[0], numbers[-1]) if numbers else (None, None)


def _by_ratio(imp: Builder, x: Value) -> bool:
    """Is the ratio of the sizes the scale factor that torch samples by?"""
    pairs = zip(_factors(imp), x.shape[2:], _size(imp), strict=True)
    return all(f is None or f * n == out for f, n, out in pairs)


def _grid(imp: Builder, x: Value, sample: Any) -> list[torch.Tensor]:
    """(out, in) along height and width: what `sample` (image, size, factors) makes of every single pixel."""
    found = []
    for n, out, factor in zip(x.shape[2:], _size(imp), _factors(imp), strict=True):
        rows = torch.eye(n).reshape(1, n, 1, n)
        found.append(sample(rows, [1, out], (None, factor))[0, :, 0].t().contiguous())
    return found


def _products(imp: Builder, x: Value, sample: Any) -> Value:
    """W first, while the image is small if it grows."""
    down, across = _grid(imp, x, sample)
    x = imp.emit("linear", (x, across, None))
    x = imp.emit("linear", (imp.emit("permute", (x,), dims=(0, 1, 3, 2)), down, None))
    return imp.emit("permute", (x,), dims=(0, 1, 3, 2))


@importer(*overloads("upsample_nearest2d.vec", "upsample_nearest2d"))
def resize_nearest(imp: Builder, x, *_args, **_kw):
    if _by_ratio(imp, x):
        return imp.emit("resize_nearest", (x,), size=_size(imp))
    return _chosen(imp, x, torch.ops.aten.upsample_nearest2d.default)


@importer(*overloads("_upsample_nearest_exact2d.vec", "_upsample_nearest_exact2d"))
def resize_nearest_exact(imp: Builder, x, *_args, **_kw):
    return _chosen(imp, x, torch.ops.aten._upsample_nearest_exact2d.default)


def _chosen(imp: Builder, x: Value, sample: Any) -> Value:
    grid = _grid(imp, x, lambda rows, size, factors: sample(rows, size, *factors))
    for dim, matrix in enumerate(grid, 2):
        x = choose(imp, x, dim, matrix.argmax(1).tolist())
    return x


@importer(*overloads("upsample_bilinear2d.vec", "upsample_bilinear2d"))
def resize_bilinear(imp: Builder, x, _given, align_corners=False, *_args, **_kw):
    if align_corners or _by_ratio(imp, x):
        return imp.emit("resize_bilinear", (x,), size=_size(imp), align_corners=bool(align_corners))
    return _sampled(imp, x, torch.ops.aten.upsample_bilinear2d.default, align_corners)


def _sampled(imp: Builder, x: Value, sample: Any, align_corners: bool) -> Value:
    return _products(imp, x, lambda rows, size, factors: sample(rows, size, bool(align_corners), *factors))


def _by_products(name: str) -> None:
    sample = getattr(torch.ops.aten, name).default

    def fn(imp: Builder, x, _given, align_corners=False, *_args, **_kw):
        return _sampled(imp, x, sample, align_corners)

    importer(*overloads(f"{name}.vec", name))(fn)


for _name in ("upsample_bicubic2d", "_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa"):
    _by_products(_name)


# along one dimension: an image of one row
@importer(*overloads("upsample_nearest1d.vec", "upsample_nearest1d"))
def resize_line_nearest(imp: Builder, x, *_args, **_kw):
    rows, size, factor = _line(imp, x)
    picked = torch.ops.aten.upsample_nearest1d.default(rows, size, factor)[0].argmax(0)
    return choose(imp, x, len(x.shape) - 1, picked.tolist())


@importer(*overloads("upsample_linear1d.vec", "upsample_linear1d"))
def resize_line(imp: Builder, x, _given, align_corners=False, *_args, **_kw):
    rows, size, factor = _line(imp, x)
    matrix = torch.ops.aten.upsample_linear1d.default(rows, size, bool(align_corners), factor)[0]
    return imp.emit("linear", (x, matrix.t().contiguous(), None))


def _line(imp: Builder, x: Value) -> tuple[torch.Tensor, list[int], float | None]:
    """Every single pixel of the last dimension as a row, the size asked for, and its factor."""
    n = x.shape[-1]
    return torch.eye(n).reshape(1, n, n), [int(imp.meta.shape[-1])], _factors(imp)[-1]


@importer(*overloads("grid_sampler_2d", "grid_sampler"))
def grid_sample(imp: Builder, *_args):
    raise Unsupported("grid_sample (resizing to a fixed size)")
