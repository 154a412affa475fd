"""One importer an ATen op that moves data: views, joins, padding, resizing; see aten.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from edgekit.capture.torch.aten import Unsupported, aten, importer, positive
from edgekit.graph.ir import Value

if TYPE_CHECKING:
    from edgekit.capture.builder import Builder


def _reshape(imp: Builder, x: Value, shape: Sequence[int]) -> Value:
    shape = tuple(int(d) for d in shape)
    return imp.emit("reshape", (x,), shape, shape=(-1, *shape[1:]) if shape else ())


@importer(
    aten.view.default,
    aten.reshape.default,
    aten.reshape_as.default,
    aten.view_as.default,
    aten._unsafe_view.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
)
def reshape(imp: Builder, x, *_args):
    return _reshape(imp, x, imp.meta.shape)


@importer(aten.permute.default)
def permute(imp: Builder, x, dims):
    return imp.emit("permute", (x,), dims=tuple(positive(d, len(dims)) for d in dims))


@importer(aten.transpose.int)
def transpose(imp: Builder, x, a, b):
    dims = list(range(len(x.shape)))
    a, b = positive(a, len(dims)), positive(b, len(dims))
    dims[a], dims[b] = b, a
    return imp.emit("permute", (x,), dims=tuple(dims))


@importer(aten.cat.default)
def cat(imp: Builder, tensors, dim=0):
    rank = len(imp.meta.shape)
    return imp.emit("concat", tensors, dim=positive(dim, rank))


@importer(aten.stack.default)
def stack(imp: Builder, tensors, dim=0):
    rank = len(imp.meta.shape)
    dim = positive(dim, rank)
    pieces = []
    for tensor in tensors:
        shape = list(tensor.shape)
        shape.insert(dim, 1)
        pieces.append(_reshape(imp, imp.value(tensor), shape))
    return imp.emit("concat", pieces, dim=dim)


def _split(imp: Builder, x: Value, sizes: Sequence[int], dim: int) -> list[Value]:
    shapes = [[*x.shape[:dim], s, *x.shape[dim + 1 :]] for s in sizes]
    return imp.emit_many("split", (x,), shapes, sizes=tuple(int(s) for s in sizes), dim=dim)


@importer(aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default)
def split(imp: Builder, x, _sizes, dim=0):
    dim = positive(dim, len(x.shape))
    return _split(imp, x, [v.shape[dim] for v in imp.meta], dim)


@importer(aten.unbind.int)
def unbind(imp: Builder, x, dim=0):
    dim = positive(dim, len(x.shape))
    return [select(imp, x, dim, i) for i in range(x.shape[dim])]


@importer(aten.select.int)
def select(imp: Builder, x, dim, index):
    dim = positive(dim, len(x.shape))
    index %= x.shape[dim]
    shape = [*x.shape[:dim], 1, *x.shape[dim + 1 :]]
    piece = imp.emit("slice", (x,), shape, dim=dim, start=index, end=index + 1, step=1)
    return _reshape(imp, piece, [*x.shape[:dim], *x.shape[dim + 1 :]])


@importer(aten.slice.Tensor)
def slice_(imp: Builder, x, dim=0, start=None, end=None, step=1):
    dim = positive(dim, len(x.shape))
    start, end, step = slice(start, end, step).indices(x.shape[dim])
    if (start, end, step) == (0, x.shape[dim], 1):
        return x
    return imp.emit("slice", (x,), dim=dim, start=start, end=end, step=step)


@importer(aten.expand.default, aten.expand_as.default)
def expand(imp: Builder, x, *_args, **_kw):
    """-1 wherever nothing is repeated, so that the batch stays free."""
    wanted, given = tuple(imp.meta.shape), tuple(x.shape)
    if wanted == given:
        return x
    aligned = (None,) * (len(wanted) - len(given)) + given
    return imp.emit(
        "expand", (x,), shape=tuple(-1 if a == w else int(w) for a, w in zip(aligned, wanted, strict=True))
    )


@importer(aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten._to_copy.default, aten.type_as.default)
def cast(imp: Builder, x, *_args, **_kw):
    wanted = str(imp.meta.dtype).removeprefix("torch.")
    if wanted != x.dtype:
        raise Unsupported(f"a cast from {x.dtype} to {wanted}")
    return x


@importer(aten.pad.default)
def pad(imp: Builder, x, pads, mode="constant", value=None):
    if not any(pads):
        return x
    return imp.emit("pad", (x,), pads=tuple(pads), mode=mode, value=float(value or 0.0))


@importer(aten.constant_pad_nd.default)
def constant_pad(imp: Builder, x, pads, value=0):
    return pad(imp, x, pads, "constant", value)


@importer(aten.roll.default)
def roll(imp: Builder, x, shifts, dims=()):
    rank = len(x.shape)
    return imp.emit("roll", (x,), shifts=tuple(shifts), dims=tuple(positive(d, rank) for d in dims))


@importer(aten.pixel_shuffle.default)
def pixel_shuffle(imp: Builder, x, factor):
    return imp.emit("pixel_shuffle", (x,), factor=factor)


@importer(aten.pixel_unshuffle.default)
def pixel_unshuffle(imp: Builder, x, factor):
    return imp.emit("pixel_unshuffle", (x,), factor=factor)


@importer(aten.channel_shuffle.default)
def channel_shuffle(imp: Builder, x, groups):
    return imp.emit("channel_shuffle", (x,), groups=groups)


def _resized(imp: Builder, x: Value) -> tuple[int, int]:
    """The target size; torch samples by the scale factor it was given, the graph by the ratio of sizes."""
    height, width = (int(d) for d in imp.meta.shape[-2:])
    scales = [a for a in imp.args[1:] if isinstance(a, list | tuple)]
    factors = [a for pair in scales for a in pair if isinstance(a, float)]
    factors += [a for a in imp.args[2:] if isinstance(a, float)]
    if any(f * x.shape[2] != height and f * x.shape[3] != width for f in factors):
        raise Unsupported(f"resizing {tuple(x.shape[2:])} by {factors}, which lands between pixels,")
    return height, width


@importer(aten.upsample_nearest2d.vec, aten.upsample_nearest2d.default)
def resize_nearest(imp: Builder, x, *_args, **_kw):
    return imp.emit("resize_nearest", (x,), size=_resized(imp, x))


@importer(aten.upsample_bilinear2d.vec, aten.upsample_bilinear2d.default)
def resize_bilinear(imp: Builder, x, size, align_corners=False, *_args, **_kw):
    size = imp.meta.shape[-2:] if align_corners else _resized(imp, x)
    return imp.emit("resize_bilinear", (x,), size=tuple(size), align_corners=bool(align_corners))


def _piece(imp: Builder, x: Any, dim: int, start: int, end: int) -> Any:
    if not isinstance(x, Value):
        return x.narrow(dim, start, end - start)
    shape = [*x.shape[:dim], end - start, *x.shape[dim + 1 :]]
    return imp.emit("slice", (x,), shape, dim=dim, start=start, end=end, step=1)


# what overwriting a view becomes once the export is functionalised
@importer(aten.slice_scatter.default)
def slice_scatter(imp: Builder, x, source, dim=0, start=None, end=None, step=1):
    dim = positive(dim, len(x.shape))
    start, end, step = slice(start, end, step).indices(x.shape[dim])
    if step != 1:
        raise Unsupported("overwriting every n-th slice")
    pieces = [_piece(imp, x, dim, 0, start), source, _piece(imp, x, dim, end, x.shape[dim])]
    kept = [piece for piece in pieces if piece.shape[dim]]
    return imp.emit("concat", kept, dim=dim) if len(kept) > 1 else source


@importer(aten.select_scatter.default)
def select_scatter(imp: Builder, x, source, dim, index):
    dim = positive(dim, len(x.shape))
    index %= x.shape[dim]
    shape = [*x.shape[:dim], 1, *x.shape[dim + 1 :]]
    row = source.reshape(shape) if isinstance(source, torch.Tensor) else _reshape(imp, source, shape)
    return slice_scatter(imp, x, row, dim, index, index + 1)


@importer(aten.copy.default)
def copy(imp: Builder, x, source, non_blocking=False):
    return expand(imp, imp.value(source))


@importer(aten.fill.Scalar)
def fill(imp: Builder, x, number):
    return torch.full(tuple(x.shape), float(number))
