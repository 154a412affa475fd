"""One importer an ATen op: how it becomes graph ops. Signatures follow ATen's native_functions.yaml."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from edgekit.errors import CaptureError
from edgekit.ir import Value

if TYPE_CHECKING:
    from edgekit.capture import Importer

aten = torch.ops.aten
IMPORTERS: dict[Any, Callable[..., Any]] = {}


def _aten(*overloads: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(fn: Callable[..., Any]) -> Callable[..., Any]:
        for overload in overloads:
            if overload in IMPORTERS:
                raise CaptureError(f"[capture] {overload} is registered twice")
            IMPORTERS[overload] = fn
        return fn

    return register


def _pair(x: int | Sequence[int]) -> tuple[int, int]:
    return (x, x) if isinstance(x, int) else (int(x[0]), int(x[-1]))


def _dim(dim: int, rank: int) -> int:
    return dim % rank


def _fill(imp: Importer, x: Value, what: str) -> CaptureError:
    return CaptureError(f"[capture] {what} at {imp.source or 'top level'} on {list(x.shape)}")


# convolution and matrix products
@_aten(aten.conv2d.default)
def conv2d(imp: Importer, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    top, left = _pair(padding)
    return imp.emit(
        "conv2d",
        (x, weight, bias),
        stride=_pair(stride),
        padding=(top, top, left, left),
        dilation=_pair(dilation),
        groups=groups,
    )


@_aten(aten.conv2d.padding)
def conv2d_padding(imp: Importer, x, weight, bias=None, stride=1, padding="valid", dilation=1, groups=1):
    """padding="same" pads the odd pixel at the end, as torch does."""
    dh, dw = _pair(dilation)
    kh, kw = weight.shape[-2:]
    total = (dh * (kh - 1), dw * (kw - 1)) if padding == "same" else (0, 0)
    pads = (total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2)
    return imp.emit(
        "conv2d", (x, weight, bias), stride=_pair(stride), padding=pads, dilation=(dh, dw), groups=groups
    )


@_aten(aten.conv_transpose2d.input)
def conv_transpose2d(
    imp: Importer, x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
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


@_aten(aten.linear.default)
def linear(imp: Importer, x, weight, bias=None):
    return imp.emit("linear", (x, weight, bias))


@_aten(aten.matmul.default, aten.bmm.default, aten.mm.default)
def matmul(imp: Importer, a, b):
    return imp.emit("matmul", (a, b))


@_aten(aten.scaled_dot_product_attention.default)
def attention(
    imp: Importer, q, k, v, mask=None, dropout=0.0, is_causal=False, *, scale=None, enable_gqa=False
):
    if is_causal or enable_gqa:
        raise _fill(imp, q, "causal or grouped-query attention is not supported")
    return imp.emit("scaled_dot_product_attention", (q, k, v, mask), scale=scale)


# normalisation
@_aten(aten.batch_norm.default)
def batch_norm(imp: Importer, x, weight, bias, mean, var, training, momentum, eps, cudnn):
    if training or mean is None:
        raise _fill(imp, x, "batch norm without running statistics")
    return imp.emit("batch_norm", (x, weight, bias, mean, var), eps=eps)


@_aten(aten._native_batch_norm_legit_no_training.default)
def native_batch_norm(imp: Importer, x, weight, bias, mean, var, momentum, eps):
    return (imp.emit("batch_norm", (x, weight, bias, mean, var), x.shape, eps=eps), None, None)


@_aten(aten.layer_norm.default)
def layer_norm(imp: Importer, x, shape, weight=None, bias=None, eps=1e-5, cudnn=False):
    return imp.emit("layer_norm", (x, weight, bias), normalized_shape=tuple(shape), eps=eps)


@_aten(aten.group_norm.default)
def group_norm(imp: Importer, x, groups, weight=None, bias=None, eps=1e-5, cudnn=False):
    return imp.emit("group_norm", (x, weight, bias), groups=groups, eps=eps)


# activations
def _unary(op: str, *overloads: Any) -> None:
    _aten(*overloads)(lambda imp, x: imp.emit(op, (x,)))


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


@_aten(aten.gelu.default)
def gelu(imp: Importer, x, *, approximate="none"):
    return imp.emit("gelu", (x,), approximate=approximate)


@_aten(aten.elu.default, aten.elu_.default)
def elu(imp: Importer, x, alpha=1.0, scale=1.0, input_scale=1.0):
    if scale != 1 or input_scale != 1:
        raise _fill(imp, x, "SELU/CELU is not supported")
    return imp.emit("elu", (x,), alpha=float(alpha))


@_aten(aten.leaky_relu.default, aten.leaky_relu_.default)
def leaky_relu(imp: Importer, x, negative_slope=0.01):
    return imp.emit("leaky_relu", (x,), negative_slope=float(negative_slope))


@_aten(aten.prelu.default)
def prelu(imp: Importer, x, weight):
    return imp.emit("prelu", (x, weight))


@_aten(
    aten.hardtanh.default,
    aten.hardtanh_.default,
    aten.clamp.default,
    aten.clamp_.default,
    aten.clip.default,
)
def clamp(imp: Importer, x, low=None, high=None):
    if low == 0 and high == 6:
        return imp.emit("relu6", (x,))
    if low == 0 and high is None:
        return imp.emit("relu", (x,))
    return imp.emit("clamp", (x,), low=low, high=high)


@_aten(aten.clamp_min.default, aten.clamp_min_.default)
def clamp_min(imp: Importer, x, low):
    return clamp(imp, x, low, None)


@_aten(aten.softmax.int, aten._softmax.default)
def softmax(imp: Importer, x, dim, dtype=None):
    return imp.emit("softmax", (x,), dim=_dim(dim, len(x.shape)))


# element-wise
def _binary(op: str, *overloads: Any) -> None:
    def importer(imp: Importer, a, b, alpha=1, **_kw):
        if alpha != 1:
            b = b * alpha if not isinstance(b, Value) else imp.emit("mul", (b, float(alpha)), b.shape)
        return imp.emit(op, (a, b))

    _aten(*overloads)(importer)


_binary("add", aten.add.Tensor, aten.add_.Tensor, aten.add.Scalar, aten.add_.Scalar)
_binary("sub", aten.sub.Tensor, aten.sub_.Tensor, aten.sub.Scalar)
_binary("mul", aten.mul.Tensor, aten.mul_.Tensor, aten.mul.Scalar, aten.mul_.Scalar)
_binary("div", aten.div.Tensor, aten.div_.Tensor, aten.div.Scalar)
_binary("maximum", aten.maximum.default)
_binary("minimum", aten.minimum.default)


@_aten(aten.rsub.Scalar, aten.rsub.Tensor)
def rsub(imp: Importer, a, b, alpha=1):
    return imp.emit("sub", (b, a))


@_aten(aten.pow.Tensor_Scalar, aten.pow_.Scalar)
def power(imp: Importer, x, exponent):
    return imp.emit("mul", (x, x)) if exponent == 2 else imp.emit("pow", (x,), exponent=float(exponent))


# pooling and reductions
@_aten(aten.max_pool2d.default)
def max_pool2d(imp: Importer, x, kernel, stride=(), padding=0, dilation=1, ceil_mode=False):
    return imp.emit(
        "max_pool2d",
        (x,),
        kernel=_pair(kernel),
        stride=_pair(stride or kernel),
        padding=_pair(padding),
        dilation=_pair(dilation),
        ceil_mode=ceil_mode,
    )


@_aten(aten.avg_pool2d.default)
def avg_pool2d(
    imp: Importer, x, kernel, stride=(), padding=0, ceil_mode=False, count_include_pad=True, divisor=None
):
    if divisor is not None:
        raise _fill(imp, x, "average pooling with a divisor of its own")
    return imp.emit(
        "avg_pool2d",
        (x,),
        kernel=_pair(kernel),
        stride=_pair(stride or kernel),
        padding=_pair(padding),
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
    )


@_aten(aten.adaptive_avg_pool2d.default)
def adaptive_avg_pool2d(imp: Importer, x, size):
    return imp.emit("adaptive_avg_pool2d", (x,), output_size=_pair(size))


def _dims(x: Value, dims: int | Sequence[int] | None) -> tuple[int, ...]:
    rank = len(x.shape)
    listed = range(rank) if not dims and dims != 0 else [dims] if isinstance(dims, int) else dims
    return tuple(sorted(_dim(d, rank) for d in listed))


@_aten(aten.mean.dim)
def mean(imp: Importer, x, dims, keepdim=False, *, dtype=None):
    return imp.emit("mean", (x,), dims=_dims(x, dims), keepdim=keepdim)


@_aten(aten.sum.dim_IntList)
def sum_(imp: Importer, x, dims, keepdim=False, *, dtype=None):
    return imp.emit("sum", (x,), dims=_dims(x, dims), keepdim=keepdim)


@_aten(aten.amax.default)
def amax(imp: Importer, x, dims=(), keepdim=False):
    return imp.emit("amax", (x,), dims=_dims(x, dims), keepdim=keepdim)


# data movement
def _reshape(imp: Importer, x: Value, shape: Sequence[int]) -> Value:
    shape = tuple(int(d) for d in shape)
    return imp.emit("reshape", (x,), shape, shape=(-1, *shape[1:]) if shape else ())


@_aten(
    aten.view.default,
    aten.reshape.default,
    aten._unsafe_view.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
)
def reshape(imp: Importer, x, *_args):
    return _reshape(imp, x, imp.node.meta["val"].shape)


@_aten(aten.permute.default)
def permute(imp: Importer, x, dims):
    return imp.emit("permute", (x,), dims=tuple(_dim(d, len(dims)) for d in dims))


@_aten(aten.transpose.int)
def transpose(imp: Importer, x, a, b):
    dims = list(range(len(x.shape)))
    a, b = _dim(a, len(dims)), _dim(b, len(dims))
    dims[a], dims[b] = b, a
    return imp.emit("permute", (x,), dims=tuple(dims))


@_aten(aten.cat.default)
def cat(imp: Importer, tensors, dim=0):
    rank = len(imp.node.meta["val"].shape)
    return imp.emit("concat", tensors, dim=_dim(dim, rank))


@_aten(aten.stack.default)
def stack(imp: Importer, tensors, dim=0):
    rank = len(imp.node.meta["val"].shape)
    dim = _dim(dim, rank)
    pieces = []
    for tensor in tensors:
        shape = list(tensor.shape)
        shape.insert(dim, 1)
        pieces.append(_reshape(imp, imp.value(tensor), shape))
    return imp.emit("concat", pieces, dim=dim)


def _split(imp: Importer, x: Value, sizes: Sequence[int], dim: int) -> list[Value]:
    shapes = [[*x.shape[:dim], s, *x.shape[dim + 1 :]] for s in sizes]
    return imp.emit_many("split", (x,), shapes, sizes=tuple(int(s) for s in sizes), dim=dim)


@_aten(aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default)
def split(imp: Importer, x, _sizes, dim=0):
    dim = _dim(dim, len(x.shape))
    return _split(imp, x, [v.shape[dim] for v in imp.node.meta["val"]], dim)


@_aten(aten.unbind.int)
def unbind(imp: Importer, x, dim=0):
    dim = _dim(dim, len(x.shape))
    return [select(imp, x, dim, i) for i in range(x.shape[dim])]


@_aten(aten.select.int)
def select(imp: Importer, x, dim, index):
    dim = _dim(dim, len(x.shape))
    index %= x.shape[dim]
    shape = [*x.shape[:dim], 1, *x.shape[dim + 1 :]]
    piece = imp.emit("slice", (x,), shape, dim=dim, start=index, end=index + 1, step=1)
    return _reshape(imp, piece, [*x.shape[:dim], *x.shape[dim + 1 :]])


@_aten(aten.slice.Tensor)
def slice_(imp: Importer, x, dim=0, start=None, end=None, step=1):
    dim = _dim(dim, len(x.shape))
    start, end, step = slice(start, end, step).indices(x.shape[dim])
    if (start, end, step) == (0, x.shape[dim], 1):
        return x
    return imp.emit("slice", (x,), dim=dim, start=start, end=end, step=step)


@_aten(aten.expand.default)
def expand(imp: Importer, x, shape, *, implicit=False):
    if tuple(imp.node.meta["val"].shape) == tuple(x.shape):
        return x
    return imp.emit("expand", (x,), shape=tuple(int(d) for d in shape))


@_aten(aten.pad.default)
def pad(imp: Importer, x, pads, mode="constant", value=None):
    if not any(pads):
        return x
    return imp.emit("pad", (x,), pads=tuple(pads), mode=mode, value=float(value or 0.0))


@_aten(aten.constant_pad_nd.default)
def constant_pad(imp: Importer, x, pads, value=0):
    return pad(imp, x, pads, "constant", value)


@_aten(aten.roll.default)
def roll(imp: Importer, x, shifts, dims=()):
    rank = len(x.shape)
    return imp.emit("roll", (x,), shifts=tuple(shifts), dims=tuple(_dim(d, rank) for d in dims))


@_aten(aten.pixel_shuffle.default)
def pixel_shuffle(imp: Importer, x, factor):
    return imp.emit("pixel_shuffle", (x,), factor=factor)


@_aten(aten.pixel_unshuffle.default)
def pixel_unshuffle(imp: Importer, x, factor):
    return imp.emit("pixel_unshuffle", (x,), factor=factor)


@_aten(aten.channel_shuffle.default)
def channel_shuffle(imp: Importer, x, groups):
    return imp.emit("channel_shuffle", (x,), groups=groups)


@_aten(aten.upsample_nearest2d.vec, aten.upsample_nearest2d.default)
def resize_nearest(imp: Importer, x, *_args, **_kw):
    return imp.emit("resize_nearest", (x,), size=tuple(imp.node.meta["val"].shape[-2:]))


@_aten(aten.upsample_bilinear2d.vec, aten.upsample_bilinear2d.default)
def resize_bilinear(imp: Importer, x, size, align_corners=False, *_args, **_kw):
    target = tuple(imp.node.meta["val"].shape[-2:])
    return imp.emit("resize_bilinear", (x,), size=target, align_corners=bool(align_corners))


@_aten(aten.linalg_vector_norm.default)
def vector_norm(imp: Importer, x, ord=2, dim=None, keepdim=False, *, dtype=None):
    if ord != 2:
        raise _fill(imp, x, "only the 2-norm is supported")
    squared = imp.emit("mul", (x, x), x.shape)
    total = imp.emit("sum", (squared,), dims=_dims(x, dim), keepdim=keepdim)
    return imp.emit("sqrt", (total,))
