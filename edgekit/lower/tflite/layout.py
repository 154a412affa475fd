"""Stored layouts: which logical dimension each dimension of a file's tensor holds.

A value of shape (N, C, H, W) stored with permutation (0, 2, 3, 1) lies in the file as (N, H, W, C). A permute
costs nothing: it only renames dimensions. A reshape carries the permutation along when every run of
dimensions it merges or splits lies together and in order. What no rule absorbs becomes a TRANSPOSE, and
each of those stands in the certificate with the module that caused it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Perm = tuple[int, ...]
NHWC: Perm = (0, 2, 3, 1)


@dataclass(frozen=True)
class RemainingTranspose:
    """A TRANSPOSE the layout could not absorb."""

    source: str
    op: str
    value: str
    shape: tuple[int, ...]
    permutation: Perm


def identity(rank: int) -> Perm:
    return tuple(range(rank))


def invert(perm: Perm) -> Perm:
    inverse = [0] * len(perm)
    for position, dim in enumerate(perm):
        inverse[dim] = position
    return tuple(inverse)


def apply(perm: Perm, items: Sequence[int]) -> tuple[int, ...]:
    """The items (a shape, say) in stored order."""
    return tuple(items[dim] for dim in perm)


def between(have: Perm, want: Perm) -> Perm:
    """The TRANSPOSE that turns a tensor stored as `have` into one stored as `want`."""
    position = invert(have)
    return tuple(position[dim] for dim in want)


def moves_nothing(shape: Sequence[int], have: Perm, want: Perm) -> bool:
    """Whether both layouts put the elements in the same order (only dimensions of size 1 change place)."""
    return [d for d in have if shape[d] != 1] == [d for d in want if shape[d] != 1]


def permuted(stored: Perm, dims: Sequence[int]) -> Perm:
    """The layout of `permute(x, dims)` when x, stored as `stored`, is left as it lies."""
    renamed = invert(tuple(dims))
    return tuple(renamed[dim] for dim in stored)


def runs(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]] | None:
    """The smallest runs of dimensions of equal size on both sides of a reshape; sizes of 1 are left out."""
    left = [d for d, size in enumerate(before) if size != 1]
    right = [d for d, size in enumerate(after) if size != 1]
    found = []
    while left and right:
        a, b = [left.pop(0)], [right.pop(0)]
        size_a, size_b = before[a[0]], after[b[0]]
        while size_a != size_b:
            if size_a < size_b and left:
                a.append(left.pop(0))
                size_a *= before[a[-1]]
            elif size_b < size_a and right:
                b.append(right.pop(0))
                size_b *= after[b[-1]]
            else:
                return None
        found.append((a, b))
    return None if left or right else found


def reshaped(before: Sequence[int], after: Sequence[int], stored: Perm) -> Perm | None:
    """The layout of `reshape(x, after)` when the elements of x stay where they lie, or None if none fits."""
    found = runs(before, after)
    if found is None:
        return None
    order = [d for d in stored if before[d] != 1]
    run_of = {a[0]: (a, b) for a, b in found}
    result: list[int] = []
    while order:
        if order[0] not in run_of:
            return None
        a, b = run_of[order[0]]
        if order[: len(a)] != a:
            return None
        order = order[len(a) :]
        result += b
    return _with_ones(result, after)


def _with_ones(order: list[int], shape: Sequence[int]) -> Perm:
    """Place dimensions of size 1 where they disturb least; 4-D values become NHWC whenever that is
    possible.
    """
    ones = [d for d, size in enumerate(shape) if size == 1]
    if len(shape) == 4 and order == [d for d in NHWC if shape[d] != 1]:
        return NHWC
    result = list(order)
    for d in ones:
        later = [i for i, other in enumerate(result) if other > d]
        result.insert(later[0] if later else len(result), d)
    return tuple(result)
