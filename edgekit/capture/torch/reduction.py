"""Importers of reductions: sums, means, spreads, extremes and where they are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from edgekit.capture.builder import Unsupported
from edgekit.capture.torch.registry import aten, dims_of, importer, overloads, positive
from edgekit.graph.ir import Value

if TYPE_CHECKING:
    from edgekit.capture.builder import Builder


def sum_of(imp: Builder, x: Any, dims: tuple[int, ...], keepdim: bool) -> Value:
    return imp.emit("sum", (x,), dims=dims, keepdim=keepdim)


def mean_of(imp: Builder, x: Any, dims: tuple[int, ...], keepdim: bool) -> Value:
    return imp.emit("mean", (x,), dims=dims, keepdim=keepdim)


@importer(aten.mean.dim, aten.mean.default)
def mean(imp: Builder, x, dims=None, keepdim=False, *, dtype=None):
    return mean_of(imp, x, dims_of(x, dims), keepdim)


@importer(aten.sum.dim_IntList, aten.sum.default)
def sum_(imp: Builder, x, dims=None, keepdim=False, *, dtype=None):
    return sum_of(imp, x, dims_of(x, dims), keepdim)


def _variance(imp: Builder, x: Any, dims: tuple[int, ...], correction: float, keepdim: bool) -> Value:
    """mean((x - mean)^2) * n / (n - correction)."""
    count = math.prod(x.shape[d] for d in dims)
    if count <= correction:
        raise Unsupported(f"a variance of {count} numbers with a correction of {correction}")
    apart = imp.emit("sub", (x, mean_of(imp, x, dims, True)))
    y = mean_of(imp, imp.emit("mul", (apart, apart)), dims, keepdim)
    return y if not correction else imp.emit("mul", (y, count / (count - correction)))


def _correction(unbiased: Any, correction: Any) -> float:
    if correction is not None:
        return float(correction)
    return 1.0 if unbiased is None or unbiased else 0.0


def _arguments(dim: Any, unbiased: Any, keepdim: bool, correction: Any) -> tuple[Any, float, bool]:
    """(x, unbiased) of the default overloads has the flag where the others have dimensions."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    return dim, _correction(unbiased, correction), keepdim


@importer(*overloads("var", "var.dim", "var.correction"))
def var(imp: Builder, x, dim=None, unbiased=None, keepdim=False, *, correction=None):
    dim, less, keepdim = _arguments(dim, unbiased, keepdim, correction)
    return _variance(imp, x, dims_of(x, dim), less, keepdim)


@importer(*overloads("std", "std.dim", "std.correction"))
def std(imp: Builder, x, dim=None, unbiased=None, keepdim=False, *, correction=None):
    return imp.emit("sqrt", (var(imp, x, dim, unbiased, keepdim, correction=correction),))


@importer(*overloads("var_mean", "var_mean.dim", "var_mean.correction"))
def var_mean(imp: Builder, x, dim=None, unbiased=None, keepdim=False, *, correction=None):
    spread = var(imp, x, dim, unbiased, keepdim, correction=correction)
    return spread, mean_of(imp, x, dims_of(x, None if isinstance(dim, bool) else dim), keepdim)


@importer(*overloads("std_mean", "std_mean.dim", "std_mean.correction"))
def std_mean(imp: Builder, x, dim=None, unbiased=None, keepdim=False, *, correction=None):
    spread, middle = var_mean(imp, x, dim, unbiased, keepdim, correction=correction)
    return imp.emit("sqrt", (spread,)), middle


# extremes
def largest(imp: Builder, x: Any, dims: tuple[int, ...], keepdim: bool) -> Value:
    return imp.emit("amax", (x,), dims=dims, keepdim=keepdim)


def smallest(imp: Builder, x: Any, dims: tuple[int, ...], keepdim: bool) -> Value:
    return imp.emit("neg", (largest(imp, imp.emit("neg", (x,)), dims, keepdim),))


@importer(aten.amax.default, aten.max.default)
def amax(imp: Builder, x, dims=(), keepdim=False):
    return largest(imp, x, dims_of(x, dims), keepdim)


@importer(aten.amin.default, aten.min.default)
def amin(imp: Builder, x, dims=(), keepdim=False):
    return smallest(imp, x, dims_of(x, dims), keepdim)


@importer(aten.aminmax.default)
def aminmax(imp: Builder, x, *, dim=None, keepdim=False):
    return amin(imp, x, dim, keepdim), amax(imp, x, dim, keepdim)


def _place(imp: Builder, x: Any, dim: int | None, keepdim: bool) -> Value:
    """The index of the largest number, as a float; of everything when `dim` is None."""
    if dim is not None:
        return imp.emit("argmax", (x,), dim=positive(dim, len(x.shape)), keepdim=keepdim)
    flat = imp.emit("argmax", (imp.reshape(x, (math.prod(x.shape),)),), dim=0, keepdim=False)
    return imp.reshape(flat, (1,) * len(x.shape)) if keepdim else flat


@importer(aten.argmax.default)
def argmax(imp: Builder, x, dim=None, keepdim=False):
    return _place(imp, x, dim, keepdim)


@importer(aten.argmin.default)
def argmin(imp: Builder, x, dim=None, keepdim=False):
    return _place(imp, imp.emit("neg", (x,)), dim, keepdim)


@importer(aten.max.dim)
def max_of(imp: Builder, x, dim, keepdim=False):
    return largest(imp, x, dims_of(x, dim), keepdim), _place(imp, x, dim, keepdim)


@importer(aten.min.dim)
def min_of(imp: Builder, x, dim, keepdim=False):
    turned = imp.emit("neg", (x,))
    values = imp.emit("neg", (largest(imp, turned, dims_of(x, dim), keepdim),))
    return values, _place(imp, turned, dim, keepdim)


@importer(aten.topk.default)
def topk(imp: Builder, x, k, dim=-1, largest=True, sorted=True):
    """The k largest in falling order and their indices, as floats."""
    dim = positive(dim, len(x.shape))
    given = x if largest else imp.emit("neg", (x,))
    values, indices = (imp.emit(op, (given,), k=int(k), dim=dim) for op in ("topk", "topk_indices"))
    return (values if largest else imp.emit("neg", (values,))), indices


@importer(*overloads("sort", "sort.stable"))
def sort(imp: Builder, x, dim=-1, descending=False, *, stable=None):
    if isinstance(dim, bool):
        dim, descending = -1, dim
    return topk(imp, x, x.shape[positive(dim, len(x.shape))], dim, descending)


@importer(aten.argsort.default)
def argsort(imp: Builder, x, dim=-1, descending=False):
    return sort(imp, x, dim, descending)[1]


@importer(*overloads("any", "any.dim", "any.dims"))
def any_(imp: Builder, x, dim=None, keepdim=False):
    """Of numbers that are 0 or 1."""
    return largest(imp, x, dims_of(x, dim), keepdim)


@importer(*overloads("all", "all.dim", "all.dims"))
def all_(imp: Builder, x, dim=None, keepdim=False):
    return smallest(imp, x, dims_of(x, dim), keepdim)


@importer(aten.cumsum.default)
def cumsum(imp: Builder, x, dim, *, dtype=None):
    """A product with a triangle of ones along the last dimension."""
    rank = len(x.shape)
    dim = positive(dim, rank)
    order = (*(d for d in range(rank) if d != dim), dim)
    triangle = torch.ones(x.shape[dim], x.shape[dim]).tril()
    if order == tuple(range(rank)):
        return imp.emit("linear", (x, triangle, None))
    y = imp.emit("linear", (imp.emit("permute", (x,), dims=order), triangle, None))
    return imp.emit("permute", (y,), dims=tuple(order.index(d) for d in range(rank)))
