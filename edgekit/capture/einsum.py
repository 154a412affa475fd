"""Einstein sums of the graph's values: permutations, one product or linear layer for two terms, sums."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from edgekit.capture.builder import Builder, Unsupported
from edgekit.graph.ir import Value


def shaped(imp: Builder, x: Any, shape: Sequence[int]) -> Any:
    """A Value or tensor in another shape."""
    if tuple(x.shape) == tuple(shape):
        return x
    return imp.reshape(x, shape) if isinstance(x, Value) else x.reshape(tuple(shape))


def einsum(imp: Builder, equation: str, operands: Sequence[Any]) -> Any:
    """The product of `operands`, Values and tensors, as the equation says; two of them at a time."""
    letters, result = _terms(equation, [len(x.shape) for x in operands])
    found, have = operands[0], letters[0]
    for i, (other, theirs) in enumerate(zip(operands[1:], letters[1:], strict=True), 1):
        needed = set(result).union(*letters[i + 1 :])
        found, have = _contract(imp, (found, have), (other, theirs), needed)
    gone = tuple(i for i, letter in enumerate(have) if letter not in result)
    if gone:
        found = imp.emit("sum", (found,), dims=gone, keepdim=False)
        have = "".join(letter for letter in have if letter in result)
    return _ordered(imp, found, have, result)


def _terms(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """The letters of every operand and of the result, an ellipsis spelled out in capitals that are free."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    free = [chr(c) for c in range(0x391, 0x391 + 24)]
    spelled = []
    for term, rank in zip(terms, ranks, strict=True):
        hidden = rank - len(term.replace("...", ""))
        spelled.append(term.replace("...", "".join(free[len(free) - hidden :])))
    widest = max(
        (r - len(t.replace("...", "")) for t, r in zip(terms, ranks, strict=True) if "..." in t), default=0
    )
    ellipsis = "".join(free[len(free) - widest :])
    if arrow:
        result = right.replace("...", ellipsis)
    else:
        plain = "".join(terms).replace("...", "")
        result = ellipsis + "".join(sorted(c for c in set(plain) if plain.count(c) == 1))
    if any(len(set(term)) < len(term) for term in spelled):
        raise Unsupported(f"einsum({equation!r}), which takes a diagonal,")
    return spelled, result


Term = tuple[Any, str]  # a Value or tensor and the letters of its dimensions


def _contract(imp: Builder, left: Term, right: Term, needed: set[str]) -> tuple[Any, str]:
    """The product of two terms, summed over the letters that nobody needs any more."""
    (a, la), (b, lb) = left, right
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        kept = "".join(dict.fromkeys(c for c in la + lb if c in needed))
        return torch.einsum(f"{la},{lb}->{kept}", a, b), kept
    if isinstance(a, torch.Tensor):
        (a, la), (b, lb) = (b, lb), (a, la)
    a, la = _summed(imp, a, la, needed | set(lb))
    b, lb = _summed(imp, b, lb, needed | set(la))
    batch = "".join(c for c in la if c in lb and c in needed)
    inner = "".join(c for c in la if c in lb and c not in needed)
    rows, columns = ("".join(c for c in own if c not in other) for own, other in ((la, lb), (lb, la)))
    sizes = dict(zip(la + lb, (*a.shape, *b.shape), strict=True))
    order = batch + rows + columns
    if not inner:
        a, b = (_aligned(imp, x, own, order) for x, own in ((a, la), (b, lb)))
        return imp.emit("mul", (a, b)), order
    if isinstance(b, torch.Tensor) and not batch:
        depth = math.prod(sizes[c] for c in inner)
        weight = b.permute([lb.index(c) for c in columns + inner]).reshape(-1, depth)
        a = _ordered(imp, a, la, rows + inner)
        a = shaped(imp, a, (*(sizes[c] for c in rows), depth))
        y = imp.emit("linear", (a, imp.derived(b, weight.contiguous()), None))
        return shaped(imp, y, [sizes[c] for c in rows + columns]), rows + columns
    lead = [sizes[c] for c in batch]
    m, k, n = (math.prod(sizes[c] for c in group) for group in (rows, inner, columns))
    a = shaped(imp, _ordered(imp, a, la, batch + rows + inner), (*lead, m, k))
    b = shaped(imp, _ordered(imp, b, lb, batch + inner + columns), (*lead, k, n))
    y = imp.emit("matmul", (a, b))
    return shaped(imp, y, [sizes[c] for c in order]), order


def _summed(imp: Builder, x: Any, letters: str, needed: set[str]) -> tuple[Any, str]:
    gone = tuple(i for i, c in enumerate(letters) if c not in needed)
    if not gone:
        return x, letters
    kept = "".join(c for c in letters if c in needed)
    if isinstance(x, torch.Tensor):
        return x.sum(gone), kept
    return imp.emit("sum", (x,), dims=gone, keepdim=False), kept


def _ordered(imp: Builder, x: Any, have: str, want: str) -> Any:
    dims = tuple(have.index(c) for c in want)
    if dims == tuple(range(len(dims))):
        return x
    return x.permute(dims) if isinstance(x, torch.Tensor) else imp.emit("permute", (x,), dims=dims)


def _aligned(imp: Builder, x: Any, have: str, order: str) -> Any:
    """`x` with a dimension of 1 for every letter it has not."""
    x = _ordered(imp, x, have, "".join(c for c in order if c in have))
    sizes = iter(x.shape)
    return shaped(imp, x, tuple(next(sizes) if c in have else 1 for c in order))
