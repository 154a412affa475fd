"""Which element of the original every element of a cut value is.

An array of places has as many dimensions as its value: size 1 where the value's tag does not vary, else the
cut size. Its entries are flat positions in the tag. Following them through movement, joins and products
shows, element by element, that the cut graph computes what the original computes there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

Places = np.ndarray
Shape = Sequence[int]


class Conflict(Exception):
    """Two operands whose elements are not the same ones, or a line that is no longer straight."""


def coordinates(places: Places, shape: Shape) -> list[np.ndarray]:
    return list(np.unravel_index(places, tuple(shape)))


def positions(found: Sequence[np.ndarray], shape: Shape) -> Places:
    return np.ravel_multi_index(tuple(np.broadcast_arrays(*found)), tuple(shape))


def dropped(places: Places, shape: Shape, dims: Iterable[int]) -> Places:
    """Places in the tag without `dims`; the others must not depend on them."""
    dims = [dim for dim in dims if shape[dim] > 1]
    if not dims:
        return places
    found, left = coordinates(places, shape), list(shape)
    for dim in dims:
        found[dim], left[dim] = np.zeros_like(places), 1
    flat = positions(found, left)
    for dim in dims:
        first = flat.take([0], dim)
        if (flat != first).any():
            raise Conflict("its lines have lost different places")
        flat = first
    return flat


def settled(places: Places, shape: Shape, dims: Iterable[int]) -> Places:
    """Without `dims`, along which everything must still be there and in order."""
    for dim in dims:
        if shape[dim] > 1:
            whole = np.arange(shape[dim]).reshape([-1 if d == dim else 1 for d in range(len(shape))])
            along = coordinates(places, shape)[dim]
            if places.shape[dim] != shape[dim] or (along != whole).any():
                raise Conflict("something is missing along a dimension that must stay whole")
    return dropped(places, shape, dims)


def spread(places: Places, shape: Shape, wide: Shape) -> Places:
    """Places in a tag that is written out along more dimensions, all of which are whole."""
    found = coordinates(places, shape)
    for dim, size in enumerate(wide):
        if shape[dim] == 1 and size > 1:
            found[dim] = np.arange(size).reshape([-1 if d == dim else 1 for d in range(len(wide))])
    return positions(found, wide)


def agree(a: Places, a_shape: Shape, b: Places, b_shape: Shape) -> None:
    """Operands whose tags broadcast against each other hold the same places."""
    wide = np.broadcast_shapes(tuple(a_shape), tuple(b_shape))
    first, second = spread(a, a_shape, wide), spread(b, b_shape, wide)
    if first.shape != second.shape or (first != second).any():
        raise Conflict("its operands have lost different places")


def kept_sizes(kept: np.ndarray) -> list[int]:
    """The shape that is left of a tag: all lines along its last varying dimension equally long."""
    dims = [dim for dim, size in enumerate(kept.shape) if size > 1]
    sizes = [1] * kept.ndim
    if not dims:
        return sizes
    last = dims[-1]
    counts = kept.sum(last, keepdims=True)
    alive = counts > 0
    for dim in dims[:-1]:
        sizes[dim] = int(alive.any(tuple(d for d in range(kept.ndim) if d != dim)).sum())
    lengths = np.unique(counts[alive])
    if len(lengths) > 1:
        raise Conflict("its lines would have different lengths")
    if int(alive.sum()) != int(np.prod(sizes)):
        raise Conflict("what is left is no rectangle")
    sizes[last] = int(lengths[0]) if len(lengths) else 0
    return sizes


def along_axis(index: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return index.reshape([-1 if dim == axis else 1 for dim in range(rank)])


def blocks_left(read: np.ndarray, width: int, *, whole: bool = False) -> list[int]:
    """The groups of `width` channels that are left, in order; each must lie together and be equally long."""
    owners = (read // width).tolist()
    order = list(dict.fromkeys(owners))
    size = len(owners) // len(order)
    if owners != [group for group in order for _ in range(size)]:
        raise Conflict("its groups would have different sizes, or channels of another group")
    if whole and (size != width or (read.reshape(-1, width) % width != np.arange(width)).any()):
        raise Conflict("part of a group would go")
    return order


def without(shape: tuple[int, ...], *dims: int) -> tuple[int, ...]:
    return tuple(1 if dim in dims else size for dim, size in enumerate(shape))


def swapped(places: Places, shape: tuple[int, ...]) -> tuple[Places, tuple[int, ...]]:
    """Places in a tag whose last two dimensions change places."""
    found = [c.swapaxes(-1, -2) for c in coordinates(places, shape)]
    found[-1], found[-2] = found[-2], found[-1]
    left = (*shape[:-2], shape[-1], shape[-2])
    return positions(found, left), left
