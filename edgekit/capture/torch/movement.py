"""Importers of what only moves data: views, joins, cuts, padding, casts, overwritten views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from edgekit.capture.builder import Unsupported
from edgekit.capture.torch.comparison import opposite, truncated
from edgekit.capture.torch.registry import aten, importer, overloads, positive
from edgekit.graph.ir import Value

if TYPE_CHECKING:
    from edgekit.capture.builder import Builder


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
    shape = tuple(int(d) for d in imp.meta.shape)
    return imp.emit("reshape", (x,), shape, shape=(-1, *shape[1:]) if shape else ())


@importer(aten.permute.default)
def permute(imp: Builder, x, dims):
    return imp.emit("permute", (x,), dims=tuple(positive(d, len(dims)) for d in dims))


@importer(*overloads("transpose.int", "swapaxes", "swapdims"))
def transpose(imp: Builder, x, a, b):
    dims = list(range(len(x.shape)))
    a, b = positive(a, len(dims)), positive(b, len(dims))
    dims[a], dims[b] = b, a
    return imp.emit("permute", (x,), dims=tuple(dims))


@importer(*overloads("t", "numpy_T", "mT", "matrix_H"))
def turned(imp: Builder, x):
    """A matrix the other way round; a vector stays."""
    return transpose(imp, x, -2, -1) if len(x.shape) > 1 else x


@importer(*overloads("movedim.int", "movedim.intlist", "moveaxis.int", "moveaxis.intlist"))
def movedim(imp: Builder, x, source, destination):
    numbered = torch.empty(tuple(range(len(x.shape))), device="meta")
    return imp.emit("permute", (x,), dims=tuple(numbered.movedim(source, destination).shape))


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
        pieces.append(imp.reshape(imp.value(tensor), shape))
    return imp.emit("concat", pieces, dim=dim)


def _split(imp: Builder, x: Value, sizes: Sequence[int], dim: int) -> list[Value]:
    shapes = [[*x.shape[:dim], s, *x.shape[dim + 1 :]] for s in sizes]
    return imp.emit_many("split", (x,), shapes, sizes=tuple(int(s) for s in sizes), dim=dim)


@importer(
    *overloads("chunk", "split.Tensor", "split.sizes", "split_with_sizes", "tensor_split.sections"),
    *overloads("unsafe_chunk", "unsafe_split.Tensor", "tensor_split.indices"),
)
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
    return imp.reshape(piece, [*x.shape[:dim], *x.shape[dim + 1 :]])


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


@importer(*overloads("to.dtype", "to.dtype_layout", "to.device", "to.other", "_to_copy", "type_as"))
def cast(imp: Builder, x, *_args, **_kw):
    """Whole numbers and truths are floats in the graph; half precision is not the model's own arithmetic."""
    wanted, given = imp.meta.dtype, imp.args[0].meta["val"].dtype
    if wanted == given or (not given.is_floating_point and wanted != torch.bool):
        return x
    if wanted in (torch.float32, torch.float64):
        return x
    if wanted == torch.bool:
        return opposite(imp, imp.emit("equal", (x, 0.0)))
    if not wanted.is_floating_point:
        return truncated(imp, x)
    name = str(wanted).removeprefix("torch.")
    raise Unsupported(f"a cast from {x.dtype} to {name} (float32)")


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
    row = source.reshape(shape) if isinstance(source, torch.Tensor) else imp.reshape(source, shape)
    return slice_scatter(imp, x, row, dim, index, index + 1)


@importer(aten.copy.default, aten.copy_.default)
def copy(imp: Builder, x, source, non_blocking=False):
    return expand(imp, imp.value(source))


@importer(aten.fill.Scalar)
def fill(imp: Builder, x, number):
    return torch.full(tuple(x.shape), float(number))
