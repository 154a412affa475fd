"""Importers of choosing by constant indices, and of repetition."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from edgekit.capture.builder import Unsupported
from edgekit.capture.choice import broadcast, choose, elements, repeated
from edgekit.capture.torch.registry import aten, importer, overloads, positive
from edgekit.graph.ir import Value

if TYPE_CHECKING:
    from edgekit.capture.builder import Builder


def _constant(index: Any) -> torch.Tensor:
    if isinstance(index, Value):
        raise Unsupported("indices that depend on the input (fixed ones)")
    return torch.as_tensor(index)


@importer(aten.index_select.default)
def index_select(imp: Builder, x, dim, index):
    return choose(imp, x, positive(dim, len(x.shape)), _constant(index).reshape(-1).tolist())


@importer(aten.fliplr.default)
def fliplr(imp: Builder, x):
    return flip(imp, x, (1,))


@importer(aten.flip.default)
def flip(imp: Builder, x, dims):
    for dim in dims:
        dim = positive(dim, len(x.shape))
        x = choose(imp, x, dim, range(x.shape[dim])[::-1])
    return x


@importer(aten.index.Tensor, *overloads("_unsafe_index.Tensor"))
def index(imp: Builder, x, indices):
    """Tensors of indices on dimensions side by side; a mask of booleans is the list of its places."""
    listed: list[torch.Tensor | None] = []
    for given in indices:
        given = None if given is None else _constant(given)
        if given is not None and given.dtype == torch.bool:
            listed += list(given.nonzero(as_tuple=True))
        else:
            listed.append(given)
    used = [i for i, given in enumerate(listed) if given is not None]
    if not used:
        return x
    if used != list(range(used[0], used[-1] + 1)):
        raise Unsupported("indices of dimensions that are not side by side")
    first, last = used[0], used[-1]
    given = torch.broadcast_tensors(*(listed[i] for i in used))
    flat, lengths = torch.zeros_like(given[0]), x.shape[first : last + 1]
    for one, length in zip(given, lengths, strict=True):
        flat = flat * length + one % length
    merged = (
        x if first == last else imp.reshape(x, (*x.shape[:first], math.prod(lengths), *x.shape[last + 1 :]))
    )
    y = choose(imp, merged, first, flat.reshape(-1).tolist())
    return imp.reshape(y, (*x.shape[:first], *flat.shape, *x.shape[last + 1 :]))


@importer(aten.gather.default)
def gather(imp: Builder, x, dim, index, *, sparse_grad=False):
    """An index for every element: one list where it is the same for all the rest, else single elements."""
    index, dim = _constant(index), positive(dim, len(x.shape))
    line = index.movedim(dim, 0).reshape(index.shape[dim], -1)
    others = [n for d, n in enumerate(x.shape) if d != dim]
    if bool((line == line[:, :1]).all()) and others == [n for d, n in enumerate(index.shape) if d != dim]:
        return choose(imp, x, dim, line[:, 0].tolist())
    return elements(imp, x, lambda ids: ids.gather(dim, index))


@importer(aten.unfold.default)
def unfold(imp: Builder, x, dim, size, step):
    """Windows along one dimension, their elements in a new last one."""
    dim = positive(dim, len(x.shape))
    starts = range(0, x.shape[dim] - size + 1, step)
    places = [start + i for start in starts for i in range(size)]
    y = choose(imp, x, dim, places) if places != list(range(x.shape[dim])) else x
    y = imp.reshape(y, (*x.shape[:dim], len(starts), size, *x.shape[dim + 1 :]))
    rank = len(y.shape)
    order = (*(d for d in range(rank) if d != dim + 1), dim + 1)
    return y if order == tuple(range(rank)) else imp.emit("permute", (y,), dims=order)


@importer(aten.diagonal.default)
def diagonal(imp: Builder, x, offset=0, dim1=0, dim2=1):
    return elements(imp, x, lambda ids: ids.diagonal(offset, dim1, dim2))


@importer(*overloads("tril", "tril_"))
def tril(imp: Builder, x, diagonal=0):
    return imp.emit("mul", (x, torch.ones(x.shape[-2:]).tril(diagonal)))


@importer(*overloads("triu", "triu_"))
def triu(imp: Builder, x, diagonal=0):
    return imp.emit("mul", (x, torch.ones(x.shape[-2:]).triu(diagonal)))


# repetition
@importer(*overloads("repeat", "tile"))
def repeat(imp: Builder, x, counts):
    """Counts and dimensions are aligned at the end."""
    counts = [1] * (len(x.shape) - len(counts)) + list(counts)
    x = imp.reshape(x, (1,) * (len(counts) - len(x.shape)) + tuple(x.shape))
    for dim, count in enumerate(counts):
        if count < 1:
            raise Unsupported("a repetition of 0 times")
        x = repeated(imp, x, dim, int(count))
    return x


@importer(aten.repeat_interleave.self_int)
def repeat_interleave(imp: Builder, x, repeats, dim=None, *, output_size=None):
    """Every element `repeats` times in a row."""
    if dim is None:
        x, dim = imp.reshape(x, (math.prod(x.shape),)), 0
    dim = positive(dim, len(x.shape))
    return x if repeats == 1 else broadcast(imp, x, dim, dim + 1, int(repeats))


@importer(*overloads("repeat_interleave.self_Tensor"))
def repeat_interleave_each(imp: Builder, x, repeats, dim=None, *, output_size=None):
    dim = positive(dim, len(x.shape)) if dim is not None else 0
    places = torch.arange(x.shape[dim]).repeat_interleave(_constant(repeats)).tolist()
    return choose(imp, x, dim, places)
