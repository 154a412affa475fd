"""How tags go through views: reshapes keep the order of elements, so only what varies is written out."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from edgekit.graph.channels.atoms import Tag

Shape = tuple[int, ...]
Block = tuple[slice, slice]


def blocks(before: Shape, after: Shape) -> list[Block]:
    """The finest runs of dimensions of two shapes of the same elements that hold the same elements."""
    found: list[Block] = []
    i = j = 0
    while i < len(before) or j < len(after):
        first, second = i, j
        a = before[i] if i < len(before) else 1
        b = after[j] if j < len(after) else 1
        i, j = min(i + 1, len(before)), min(j + 1, len(after))
        while a != b:
            if a < b:
                a, i = a * before[i], i + 1
            else:
                b, j = b * after[j], j + 1
        found.append((slice(first, i), slice(second, j)))
    return found


def written_out(tag: Tag, before: Shape, after: Shape) -> tuple[Shape, Shape]:
    """The shapes that a tag must be expanded to before a reshape, and that it has behind it."""
    full, result = [1] * len(before), [1] * len(after)
    for old, new in blocks(before, after):
        if prod(tag.shape[old]) > 1:
            full[old], result[new] = before[old], after[new]
    return tuple(full), tuple(result)


def reshaped(tag: Tag, before: Shape, after: Shape) -> Tag:
    """The tag behind a reshape of its value."""
    full, result = written_out(tag, before, after)
    return without_constant(np.broadcast_to(tag, full).reshape(result))


def without_constant(tag: Tag) -> Tag:
    """The same tag with size 1 wherever nothing varies."""
    for dim, size in enumerate(tag.shape):
        if size > 1:
            first = tag.take([0], dim)
            if (tag == first).all():
                tag = first
    return tag


def aligned(tag: Tag, rank: int) -> Tag:
    """With leading dimensions as broadcasting adds them."""
    return tag.reshape((1,) * (rank - tag.ndim) + tag.shape)


def padded(shape: Sequence[int], rank: int) -> Shape:
    return (1,) * (rank - len(shape)) + tuple(shape)
