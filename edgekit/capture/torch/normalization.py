"""Importers of normalisations, norms and distances."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from edgekit.capture.builder import Unsupported
from edgekit.capture.torch.reduction import largest, smallest, sum_of
from edgekit.capture.torch.registry import aten, dims_of, importer, overloads, positive

if TYPE_CHECKING:
    from edgekit.capture.builder import Builder


@importer(aten.batch_norm.default)
def batch_norm(imp: Builder, x, weight, bias, mean, var, training, momentum, eps, cudnn):
    if (training or mean is None) and not imp.training:
        raise Unsupported("batch norm without running statistics")
    return imp.emit("batch_norm", (x, weight, bias, mean, var), eps=eps, **imp.norm_facts(mean, momentum))


@importer(aten._native_batch_norm_legit_no_training.default)
def native_batch_norm(imp: Builder, x, weight, bias, mean, var, momentum, eps):
    facts = imp.norm_facts(mean, momentum)
    return (imp.emit("batch_norm", (x, weight, bias, mean, var), x.shape, eps=eps, **facts), None, None)


@importer(aten.layer_norm.default)
def layer_norm(imp: Builder, x, shape, weight=None, bias=None, eps=1e-5, cudnn=False):
    return imp.emit("layer_norm", (x, weight, bias), normalized_shape=tuple(shape), eps=eps)


@importer(aten.group_norm.default)
def group_norm(imp: Builder, x, groups, weight=None, bias=None, eps=1e-5, cudnn=False):
    if len(x.shape) == 4:
        return imp.emit("group_norm", (x, weight, bias), groups=groups, eps=eps)
    image = imp.reshape(x, (*x.shape[:2], 1, math.prod(x.shape[2:])))
    return imp.reshape(imp.emit("group_norm", (image, weight, bias), groups=groups, eps=eps), x.shape)


@importer(aten.instance_norm.default)
def instance_norm(imp: Builder, x, weight, bias, mean, var, use_input_stats, momentum, eps, cudnn):
    """Every channel by its own statistics, or by recorded ones."""
    if not use_input_stats:
        facts = imp.norm_facts(mean, momentum)
        facts = facts and {**facts, "statistics": "image"}
        return imp.emit("batch_norm", (x, weight, bias, mean, var), eps=eps, **facts)
    return group_norm(imp, x, x.shape[1], weight, bias, eps)


@importer(*overloads("rms_norm"))
def rms_norm(imp: Builder, x, shape, weight=None, eps=None):
    eps = torch.finfo(torch.float32).eps if eps is None else float(eps)
    return imp.emit("rms_norm", (x, weight), normalized_shape=tuple(shape), eps=eps)


# norms
@importer(aten.linalg_vector_norm.default)
def vector_norm(imp: Builder, x, ord=2, dim=None, keepdim=False, *, dtype=None):
    dims = dims_of(x, dim)
    if ord == 2:
        return imp.emit("sqrt", (sum_of(imp, imp.emit("mul", (x, x)), dims, keepdim),))
    size = imp.emit("abs", (x,))
    if ord == math.inf:
        return largest(imp, size, dims, keepdim)
    if ord == -math.inf:
        return smallest(imp, size, dims, keepdim)
    if ord == 1:
        return sum_of(imp, size, dims, keepdim)
    if ord == 0:
        raise Unsupported("a 0-norm (any other)")
    total = sum_of(imp, imp.emit("pow", (size,), exponent=float(ord)), dims, keepdim)
    return imp.emit("pow", (total,), exponent=1.0 / float(ord))


@importer(aten.norm.ScalarOpt_dim, aten.norm.ScalarOpt_dim_dtype, aten.norm.ScalarOpt_dtype, aten.norm.Scalar)
def norm(imp: Builder, x, p=2, dim=None, keepdim=False, *, dtype=None):
    return vector_norm(imp, x, 2 if p is None else p, dim, keepdim)


@importer(aten.linalg_norm.default)
def linalg_norm(imp: Builder, x, ord=None, dim=None, keepdim=False, *, dtype=None):
    """Of vectors; of matrices only the Frobenius norm, which is theirs too."""
    axes = len(x.shape) if dim is None else len(dim)
    if ord is not None and axes != 1:
        raise Unsupported(f"a matrix norm of order {ord}")
    return vector_norm(imp, x, 2 if ord is None else ord, dim, keepdim)


@importer(aten.frobenius_norm.dim)
def frobenius_norm(imp: Builder, x, dim, keepdim=False):
    return vector_norm(imp, x, 2, dim, keepdim)


@importer(aten.linalg_matrix_norm.str_ord)
def matrix_norm(imp: Builder, x, ord="fro", dim=(-2, -1), keepdim=False, *, dtype=None):
    if ord != "fro":
        raise Unsupported(f"a matrix norm of order {ord}")
    return vector_norm(imp, x, 2, dim, keepdim)


# distances
def _unit(imp: Builder, x: Any, dim: int, eps: float) -> Any:
    if isinstance(x, torch.Tensor):
        return torch.nn.functional.normalize(x, dim=dim, eps=eps)
    return imp.emit("l2_normalize", (x,), dim=dim, eps=eps)


@importer(aten.cosine_similarity.default)
def cosine_similarity(imp: Builder, a, b, dim=1, eps=1e-8):
    rank = max(len(a.shape), len(b.shape))
    from_end = positive(dim, rank) - rank
    product = imp.emit("mul", [_unit(imp, x, positive(from_end, len(x.shape)), eps) for x in (a, b)])
    return sum_of(imp, product, (positive(dim, rank),), False)


@importer(aten.pairwise_distance.default)
def pairwise_distance(imp: Builder, a, b, p=2.0, eps=1e-6, keepdim=False):
    """The norm of a - b + eps along the last dimension."""
    apart = imp.emit("add", (imp.emit("sub", (a, b)), float(eps)))
    return vector_norm(imp, apart, p, [len(apart.shape) - 1], keepdim)
