"""Choosing by constant indices, and repetition.

One dimension's indices become a cut for every run of equal steps, or one `gather` where the runs are many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from edgekit.capture.builder import Builder, Unsupported
from edgekit.graph.ir import Value

_FEW = 4  # cuts that are joined again; more are one gather
_LARGEST = 1 << 18  # elements a list of single elements may pick
_COPIES = 4  # joined; more are a broadcast


def runs(indices: Sequence[int]) -> list[tuple[int, int, int]]:
    """(start, end, step) of every run of indices in equal rising steps."""
    found: list[tuple[int, int, int]] = []
    i = 0
    while i < len(indices):
        step = indices[i + 1] - indices[i] if i + 1 < len(indices) else 1
        step = step if step > 0 else 1
        j = i
        while j + 1 < len(indices) and indices[j + 1] - indices[j] == step:
            j += 1
        found.append((indices[i], indices[j] + 1, step))
        i = j + 1
    return found


def choose(imp: Builder, x: Any, dim: int, indices: Sequence[int]) -> Any:
    """The given indices of one dimension, in their order."""
    if not isinstance(x, Value):
        return x.index_select(dim, torch.tensor(indices))
    indices = [int(i) % x.shape[dim] for i in indices]
    if not indices:
        raise Unsupported("a choice of no element")
    pieces = runs(indices)
    if len(pieces) > _FEW:
        return imp.emit("gather", (x,), dim=dim, indices=tuple(indices))
    whole = (0, x.shape[dim], 1)
    cut = [
        x if piece == whole else imp.emit("slice", (x,), dim=dim, start=piece[0], end=piece[1], step=piece[2])
        for piece in pieces
    ]
    return imp.emit("concat", cut, dim=dim) if len(cut) > 1 else cut[0]


def elements(imp: Builder, x: Value, pick: Callable[[torch.Tensor], torch.Tensor]) -> Value:
    """What `pick` chooses of a tensor of element numbers, chosen of `x`, for any batch."""
    ids = torch.arange(math.prod(x.shape)).reshape(x.shape)
    chosen = pick(ids)
    if x.shape[0] != 1 or chosen.shape[0] != 1 or chosen.numel() > _LARGEST:
        raise Unsupported(f"a choice of {chosen.numel()} single elements (at most {_LARGEST} of one image)")
    flat = choose(imp, imp.reshape(x, (1, math.prod(x.shape))), 1, chosen.reshape(-1).tolist())
    return imp.reshape(flat, chosen.shape)


def repeated(imp: Builder, x: Value, dim: int, count: int) -> Value:
    """`count` copies one after the other."""
    if count == 1:
        return x
    if x.shape[dim] == 1:
        return imp.emit("expand", (x,), shape=tuple(count if d == dim else -1 for d in range(len(x.shape))))
    if count <= _COPIES:
        return imp.emit("concat", [x] * count, dim=dim)
    return broadcast(imp, x, dim, dim, count)


def broadcast(imp: Builder, x: Value, dim: int, at: int, count: int) -> Value:
    """`count` copies through a new dimension of 1 at `at`, which joins `dim` afterwards."""
    wide = imp.reshape(x, (*x.shape[:at], 1, *x.shape[at:]))
    wide = imp.emit("expand", (wide,), shape=tuple(count if d == at else -1 for d in range(len(wide.shape))))
    return imp.reshape(wide, (*x.shape[:dim], x.shape[dim] * count, *x.shape[dim + 1 :]))
