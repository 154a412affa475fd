"""Importers of matrix products, einsum and attention."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from edgekit.capture.torch.elementwise import scaled
from edgekit.capture.torch.registry import Unsupported, aten, importer
from edgekit.graph.ir import Value

if TYPE_CHECKING:
    from edgekit.capture.builder import Builder


@importer(aten.linear.default)
def linear(imp: Builder, x, weight, bias=None):
    if not isinstance(weight, torch.Tensor):
        y = imp.emit("matmul", (x, imp.emit("permute", (weight,), dims=(1, 0))))
        return y if bias is None else imp.emit("add", (y, bias))
    return imp.emit("linear", (x, weight, bias))


@importer(aten.matmul.default, aten.bmm.default, aten.mm.default)
def matmul(imp: Builder, a, b):
    """A product with a vector is one with a matrix of one row or column."""
    if len(a.shape) > 1 and len(b.shape) > 1:
        return imp.emit("matmul", (a, b))
    row, column = len(a.shape) == 1, len(b.shape) == 1
    y = imp.emit(
        "matmul", (_as(imp, a, (1, *a.shape)) if row else a, _as(imp, b, (*b.shape, 1)) if column else b)
    )
    shape = list(y.shape)
    if column:
        del shape[-1]
    if row:
        del shape[-1 if column else -2]
    return imp.reshape(y, shape)


importer(aten.mv.default, aten.dot.default)(matmul)


def _as(imp: Builder, x: Any, shape: tuple[int, ...]) -> Any:
    return imp.reshape(x, shape) if isinstance(x, Value) else x.reshape(shape)


@importer(aten.addmm.default, aten.baddbmm.default, aten.addmv.default, aten.addbmm.default)
def addmm(imp: Builder, bias, a, b, *, beta=1, alpha=1):
    """beta * bias + alpha * (a @ b)."""
    plain = alpha == beta == 1 and len(a.shape) == len(b.shape) == 2
    if plain and isinstance(b, torch.Tensor) and isinstance(bias, torch.Tensor) and bias.ndim == 1:
        return imp.emit("linear", (a, imp.derived(b, b.t().contiguous()), bias))
    product = scaled(imp, matmul(imp, a, b), alpha)
    return imp.emit("add", (product, scaled(imp, bias, beta)))


@importer(aten.outer.default)
def outer(imp: Builder, a, b):
    return imp.emit("mul", (_as(imp, a, (*a.shape, 1)), _as(imp, b, (1, *b.shape))))


# einsum: two operands at a time
@importer(aten.einsum.default)
def einsum(imp: Builder, equation, operands, path=None):
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
        a = imp.reshape(a, (*(sizes[c] for c in rows), depth))
        y = imp.emit("linear", (a, imp.derived(b, weight.contiguous()), None))
        return imp.reshape(y, [sizes[c] for c in rows + columns]), rows + columns
    lead = [sizes[c] for c in batch]
    m, k, n = (math.prod(sizes[c] for c in group) for group in (rows, inner, columns))
    a = _as(imp, _ordered(imp, a, la, batch + rows + inner), (*lead, m, k))
    b = _as(imp, _ordered(imp, b, lb, batch + inner + columns), (*lead, k, n))
    y = imp.emit("matmul", (a, b))
    return imp.reshape(y, [sizes[c] for c in order]), order


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
    return _as(imp, x, tuple(next(sizes) if c in have else 1 for c in order))


# attention
@importer(aten.scaled_dot_product_attention.default)
def attention(
    imp: Builder, q, k, v, mask=None, dropout=0.0, is_causal=False, *, scale=None, enable_gqa=False
):
    """Grouped queries: the heads that share a key are rows of one product."""
    if is_causal:
        mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
    heads, keys = (x.shape[-3] if len(x.shape) > 2 else 1 for x in (q, k))
    group = heads // keys
    if group == 1 and tuple(k.shape[:-2]) == tuple(q.shape[:-2]) == tuple(v.shape[:-2]):
        return imp.emit("scaled_dot_product_attention", (q, k, v, mask), scale=scale)
    if len(q.shape) < 3 or any(x.shape[:-3] != q.shape[:-3] or x.shape[-3] != keys for x in (k, v)):
        raise Unsupported("attention whose queries, keys and values have different batches")
    rows = q.shape[-2]
    if mask is not None:
        mask = _of_group(imp, mask, heads, keys, group, rows)
    folded = imp.reshape(imp.value(q), (*q.shape[:-3], keys, group * rows, q.shape[-1]))
    y = imp.emit("scaled_dot_product_attention", (folded, k, v, mask), scale=scale)
    return imp.reshape(y, (*q.shape[:-1], v.shape[-1]))


def _of_group(imp: Builder, mask: Any, heads: int, keys: int, group: int, rows: int) -> Any:
    """A mask (..., heads or 1, rows or 1, columns) for `group * rows` rows a key's head."""
    shape = (1,) * (3 - len(mask.shape)) + tuple(mask.shape)
    full = (*shape[:-3], heads, rows, shape[-1])
    if isinstance(mask, torch.Tensor):
        mask = mask.reshape(shape).expand(full)
        return mask.reshape(*shape[:-3], keys, group * rows, shape[-1])
    wide = imp.reshape(mask, shape)
    if shape != full:
        wide = imp.emit(
            "expand", (wide,), shape=tuple(-1 if a == b else b for a, b in zip(shape, full, strict=True))
        )
    return imp.reshape(wide, (*shape[:-3], keys, group * rows, shape[-1]))
