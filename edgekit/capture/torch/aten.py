"""One importer an ATen op that computes: how it becomes graph ops. Signatures follow native_functions.yaml.

Ops that only move data are in movement.py; both register in IMPORTERS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from edgekit.errors import CaptureError
from edgekit.graph.ir import Value

if TYPE_CHECKING:
    from edgekit.capture.builder import Builder

aten = torch.ops.aten
IMPORTERS: dict[Any, Callable[..., Any]] = {}


def importer(*overloads: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(fn: Callable[..., Any]) -> Callable[..., Any]:
        for overload in overloads:
            if overload in IMPORTERS:
                raise CaptureError(f"[capture] {overload} is registered twice")
            IMPORTERS[overload] = fn
        return fn

    return register


def _pair(x: int | Sequence[int]) -> tuple[int, int]:
    return (x, x) if isinstance(x, int) else (int(x[0]), int(x[-1]))


def positive(dim: int, rank: int) -> int:
    return dim % rank


class Unsupported(Exception):
    """An op whose arguments the graph cannot express; the importer collects them all."""


# convolution and matrix products
@importer(aten.conv2d.default)
def conv2d(imp: Builder, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    top, left = _pair(padding)
    return imp.emit(
        "conv2d",
        (x, weight, bias),
        stride=_pair(stride),
        padding=(top, top, left, left),
        dilation=_pair(dilation),
        groups=groups,
    )


@importer(aten.conv2d.padding)
def conv2d_padding(imp: Builder, x, weight, bias=None, stride=1, padding="valid", dilation=1, groups=1):
    """padding="same" pads the odd pixel at the end, as torch does."""
    dh, dw = _pair(dilation)
    kh, kw = weight.shape[-2:]
    total = (dh * (kh - 1), dw * (kw - 1)) if padding == "same" else (0, 0)
    pads = (total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2)
    return imp.emit(
        "conv2d", (x, weight, bias), stride=_pair(stride), padding=pads, dilation=(dh, dw), groups=groups
    )


@importer(aten.conv_transpose2d.input)
def conv_transpose2d(
    imp: Builder, x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
):
    return imp.emit(
        "conv_transpose2d",
        (x, weight, bias),
        stride=_pair(stride),
        padding=_pair(padding),
        output_padding=_pair(output_padding),
        dilation=_pair(dilation),
        groups=groups,
    )


@importer(aten.linear.default)
def linear(imp: Builder, x, weight, bias=None):
    return imp.emit("linear", (x, weight, bias))


@importer(aten.matmul.default, aten.bmm.default, aten.mm.default)
def matmul(imp: Builder, a, b):
    return imp.emit("matmul", (a, b))


@importer(aten.scaled_dot_product_attention.default)
def attention(
    imp: Builder, q, k, v, mask=None, dropout=0.0, is_causal=False, *, scale=None, enable_gqa=False
):
    if is_causal or enable_gqa:
        raise Unsupported("causal or grouped-query attention")
    return imp.emit("scaled_dot_product_attention", (q, k, v, mask), scale=scale)


# normalisation
@importer(aten.batch_norm.default)
def batch_norm(imp: Builder, x, weight, bias, mean, var, training, momentum, eps, cudnn):
    if training or mean is None:
        raise Unsupported("batch norm without running statistics")
    return imp.emit("batch_norm", (x, weight, bias, mean, var), eps=eps)


@importer(aten._native_batch_norm_legit_no_training.default)
def native_batch_norm(imp: Builder, x, weight, bias, mean, var, momentum, eps):
    return (imp.emit("batch_norm", (x, weight, bias, mean, var), x.shape, eps=eps), None, None)


@importer(aten.layer_norm.default)
def layer_norm(imp: Builder, x, shape, weight=None, bias=None, eps=1e-5, cudnn=False):
    return imp.emit("layer_norm", (x, weight, bias), normalized_shape=tuple(shape), eps=eps)


@importer(aten.group_norm.default)
def group_norm(imp: Builder, x, groups, weight=None, bias=None, eps=1e-5, cudnn=False):
    return imp.emit("group_norm", (x, weight, bias), groups=groups, eps=eps)


# activations
def _unary(op: str, *overloads: Any) -> None:
    importer(*overloads)(lambda imp, x: imp.emit(op, (x,)))


_unary("relu", aten.relu.default, aten.relu_.default)
_unary("relu6", aten.relu6.default, aten.relu6_.default)
_unary("hardswish", aten.hardswish.default, aten.hardswish_.default)
_unary("hardsigmoid", aten.hardsigmoid.default, aten.hardsigmoid_.default)
_unary("sigmoid", aten.sigmoid.default, aten.sigmoid_.default)
_unary("silu", aten.silu.default, aten.silu_.default)
_unary("tanh", aten.tanh.default, aten.tanh_.default)
_unary("mish", aten.mish.default, aten.mish_.default)
_unary("abs", aten.abs.default, aten.abs_.default)
_unary("neg", aten.neg.default, aten.neg_.default)
_unary("exp", aten.exp.default, aten.exp_.default)
_unary("log", aten.log.default)
_unary("sqrt", aten.sqrt.default, aten.sqrt_.default)
_unary("rsqrt", aten.rsqrt.default)


@importer(aten.reciprocal.default)
def reciprocal(imp: Builder, x):
    return imp.emit("div", (1.0, x))


@importer(aten.gelu.default)
def gelu(imp: Builder, x, *, approximate="none"):
    return imp.emit("gelu", (x,), approximate=approximate)


@importer(aten.elu.default, aten.elu_.default)
def elu(imp: Builder, x, alpha=1.0, scale=1.0, input_scale=1.0):
    if scale != 1 or input_scale != 1:
        raise Unsupported("SELU or CELU")
    return imp.emit("elu", (x,), alpha=float(alpha))


@importer(aten.leaky_relu.default, aten.leaky_relu_.default)
def leaky_relu(imp: Builder, x, negative_slope=0.01):
    return imp.emit("leaky_relu", (x,), negative_slope=float(negative_slope))


@importer(aten.prelu.default)
def prelu(imp: Builder, x, weight):
    return imp.emit("prelu", (x, weight))


@importer(aten.clamp.default, aten.clamp_.default, aten.clip.default)
def clamp(imp: Builder, x, low=None, high=None):
    if low == 0 and high == 6:
        return imp.emit("relu6", (x,))
    if low == 0 and high is None:
        return imp.emit("relu", (x,))
    return imp.emit("clamp", (x,), low=low, high=high)


@importer(aten.hardtanh.default, aten.hardtanh_.default)
def hardtanh(imp: Builder, x, low=-1.0, high=1.0):
    return clamp(imp, x, low, high)


@importer(aten.clamp_max.default, aten.clamp_max_.default)
def clamp_max(imp: Builder, x, high):
    return clamp(imp, x, None, high)


@importer(aten.clamp_min.default, aten.clamp_min_.default)
def clamp_min(imp: Builder, x, low):
    return clamp(imp, x, low, None)


@importer(aten.softmax.int, aten._softmax.default)
def softmax(imp: Builder, x, dim, dtype=None):
    return imp.emit("softmax", (x,), dim=positive(dim, len(x.shape)))


# element-wise
def _binary_op(imp: Builder, op: str, a: Any, b: Any, alpha: float) -> Value:
    if alpha != 1:
        b = b * alpha if not isinstance(b, Value) else imp.emit("mul", (b, float(alpha)), b.shape)
    return imp.emit(op, (a, b))


def _binary(op: str, *overloads: Any) -> None:
    importer(*overloads)(lambda imp, a, b, alpha=1: _binary_op(imp, op, a, b, alpha))


_binary("add", aten.add.Tensor, aten.add_.Tensor, aten.add.Scalar, aten.add_.Scalar)
_binary("sub", aten.sub.Tensor, aten.sub_.Tensor, aten.sub.Scalar, aten.sub_.Scalar)
_binary("mul", aten.mul.Tensor, aten.mul_.Tensor, aten.mul.Scalar, aten.mul_.Scalar)
_binary("div", aten.div.Tensor, aten.div_.Tensor, aten.div.Scalar, aten.div_.Scalar)
_binary("maximum", aten.maximum.default)
_binary("minimum", aten.minimum.default)


@importer(aten.rsub.Scalar, aten.rsub.Tensor)
def rsub(imp: Builder, a, b, alpha=1):
    """b - alpha * a."""
    return _binary_op(imp, "sub", b, a, alpha)


@importer(aten.pow.Tensor_Scalar, aten.pow_.Scalar)
def power(imp: Builder, x, exponent):
    return imp.emit("mul", (x, x)) if exponent == 2 else imp.emit("pow", (x,), exponent=float(exponent))


# pooling and reductions
@importer(aten.max_pool2d.default)
def max_pool2d(imp: Builder, x, kernel, stride=(), padding=0, dilation=1, ceil_mode=False):
    return imp.emit(
        "max_pool2d",
        (x,),
        kernel=_pair(kernel),
        stride=_pair(stride or kernel),
        padding=_pair(padding),
        dilation=_pair(dilation),
        ceil_mode=ceil_mode,
    )


@importer(aten.avg_pool2d.default)
def avg_pool2d(
    imp: Builder, x, kernel, stride=(), padding=0, ceil_mode=False, count_include_pad=True, divisor=None
):
    if divisor is not None:
        raise Unsupported("average pooling with a divisor of its own")
    return imp.emit(
        "avg_pool2d",
        (x,),
        kernel=_pair(kernel),
        stride=_pair(stride or kernel),
        padding=_pair(padding),
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
    )


@importer(aten.adaptive_avg_pool2d.default)
def adaptive_avg_pool2d(imp: Builder, x, size):
    return imp.emit("adaptive_avg_pool2d", (x,), output_size=_pair(size))


def _dims(x: Value, dims: int | Sequence[int] | None) -> tuple[int, ...]:
    rank = len(x.shape)
    listed = range(rank) if not dims and dims != 0 else [dims] if isinstance(dims, int) else dims
    return tuple(sorted(positive(d, rank) for d in listed))


@importer(aten.adaptive_max_pool2d.default)
def adaptive_max_pool2d(imp: Builder, x, size):
    """To 1x1 only; the indices have no reader the graph could express."""
    if _pair(size) != (1, 1):
        raise Unsupported("adaptive max pooling to more than 1x1")
    shape = (*x.shape[:-2], 1, 1)
    dims = (len(shape) - 2, len(shape) - 1)
    return imp.emit("amax", (x,), shape, dims=dims, keepdim=True), None


@importer(aten.mean.dim)
def mean(imp: Builder, x, dims, keepdim=False, *, dtype=None):
    return imp.emit("mean", (x,), dims=_dims(x, dims), keepdim=keepdim)


@importer(aten.sum.dim_IntList)
def sum_(imp: Builder, x, dims, keepdim=False, *, dtype=None):
    return imp.emit("sum", (x,), dims=_dims(x, dims), keepdim=keepdim)


@importer(aten.amax.default)
def amax(imp: Builder, x, dims=(), keepdim=False):
    return imp.emit("amax", (x,), dims=_dims(x, dims), keepdim=keepdim)


@importer(aten.linalg_vector_norm.default)
def vector_norm(imp: Builder, x, ord=2, dim=None, keepdim=False, *, dtype=None):
    if ord != 2:
        raise Unsupported(f"a {ord}-norm (only the 2-norm)")
    squared = imp.emit("mul", (x, x), x.shape)
    total = imp.emit("sum", (squared,), dims=_dims(x, dim), keepdim=keepdim)
    return imp.emit("sqrt", (total,))
