"""Importers of matrix products, einsum and attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from edgekit.capture.builder import Unsupported
from edgekit.capture.einsum import einsum, shaped
from edgekit.capture.torch.elementwise import scaled
from edgekit.capture.torch.registry import aten, importer

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
        "matmul",
        (shaped(imp, a, (1, *a.shape)) if row else a, shaped(imp, b, (*b.shape, 1)) if column else b),
    )
    shape = list(y.shape)
    if column:
        del shape[-1]
    if row:
        del shape[-1 if column else -2]
    return imp.reshape(y, shape)


importer(aten.mv.default, aten.dot.default)(matmul)


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
    return imp.emit("mul", (shaped(imp, a, (*a.shape, 1)), shaped(imp, b, (1, *b.shape))))


@importer(aten.einsum.default)
def einsum_(imp: Builder, equation, operands, path=None):
    return einsum(imp, equation, operands)


# attention
@importer(aten.scaled_dot_product_attention.default)
def attention(
    imp: Builder, q, k, v, mask=None, dropout=0.0, is_causal=False, *, scale=None, enable_gqa=False
):
    """Grouped queries: the heads that share a key are rows of one product."""
    random = {"dropout": float(dropout)} if imp.training and dropout > 0 else {}
    if is_causal:
        mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
    heads, keys = (x.shape[-3] if len(x.shape) > 2 else 1 for x in (q, k))
    group = heads // keys
    if group == 1 and tuple(k.shape[:-2]) == tuple(q.shape[:-2]) == tuple(v.shape[:-2]):
        return imp.emit("scaled_dot_product_attention", (q, k, v, mask), scale=scale, **random)
    if len(q.shape) < 3 or any(x.shape[:-3] != q.shape[:-3] or x.shape[-3] != keys for x in (k, v)):
        raise Unsupported("attention whose queries, keys and values have different batches")
    rows = q.shape[-2]
    if mask is not None:
        mask = _of_group(imp, mask, heads, keys, group, rows)
    folded = imp.reshape(imp.value(q), (*q.shape[:-3], keys, group * rows, q.shape[-1]))
    y = imp.emit("scaled_dot_product_attention", (folded, k, v, mask), scale=scale, **random)
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
