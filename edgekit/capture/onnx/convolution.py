"""Importers of convolutions, matrix products and normalisations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.capture.builder import Unsupported
from edgekit.capture.einsum import einsum
from edgekit.capture.onnx.registry import OnnxNode, constant, importer, positive
from edgekit.graph.ir import Value

if TYPE_CHECKING:
    from edgekit.capture.onnx.builder import Builder

Pads = tuple[int, int, int, int]


def ints(node: OnnxNode, name: str, default: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(i) for i in node.get(name) or default)


def on_row(fn: Callable[..., Any]) -> Callable[..., Any]:
    """An importer of images, for sequences (N, C, L) as well: images of one row."""

    def wrapped(imp: Builder, node: OnnxNode, x: Any, *rest: Any) -> Any:
        if not isinstance(x, Value) or len(x.shape) != 3:
            return fn(imp, node, x, *rest)
        attrs = dict(node.attrs)
        for name, first in (("kernel_shape", 1), ("strides", 1), ("dilations", 1), ("output_padding", 0)):
            if name in attrs:
                attrs[name] = [first, *attrs[name]]
        if "pads" in attrs:
            low, high = attrs["pads"]
            attrs["pads"] = [0, low, 0, high]
        if "output_shape" in attrs:
            attrs["output_shape"] = [1, attrs["output_shape"][-1]]
        row = imp.reshape(x, (*x.shape[:2], 1, x.shape[2]))
        wide = [imp.widened(r) if isinstance(r, np.ndarray) and r.ndim == 3 else r for r in rest]
        found = fn(imp, replace(node, attrs=attrs), row, *wide)
        several = found if isinstance(found, tuple) else (found,)
        lines = tuple(imp.reshape(y, (*y.shape[:2], y.shape[3])) for y in several)
        return lines if isinstance(found, tuple) else lines[0]

    return wrapped


def image(x: Any) -> Value:
    if not isinstance(x, Value) or len(x.shape) != 4:
        raise Unsupported(f"input of {len(x.shape)} dimensions (only images, 4)")
    return x


def window_pads(node: OnnxNode, x: Value, kernel: Sequence[int]) -> Pads:
    """(top, bottom, left, right), with auto_pad worked out."""
    mode = node.get("auto_pad", "NOTSET")
    if mode == "VALID":
        return (0, 0, 0, 0)
    if mode == "NOTSET":
        top, left, bottom, right = ints(node, "pads", (0, 0, 0, 0))
        return (top, bottom, left, right)
    strides, dilations = ints(node, "strides", (1, 1)), ints(node, "dilations", (1, 1))
    found: list[int] = []
    for size, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        low = total // 2 if mode == "SAME_UPPER" else total - total // 2
        found += [low, total - low]
    return (found[0], found[1], found[2], found[3])


@importer("Conv")
@on_row
def conv(imp: Builder, node: OnnxNode, x: Any, weight: Any, bias: Any = None) -> Value:
    x, weight = image(x), constant(weight, "weights")
    return imp.emit(
        "conv2d",
        (x, weight, bias),
        stride=ints(node, "strides", (1, 1)),
        padding=window_pads(node, x, weight.shape[2:]),
        dilation=ints(node, "dilations", (1, 1)),
        groups=int(node.get("group", 1)),
    )


@importer("ConvTranspose")
@on_row
def conv_transpose(imp: Builder, node: OnnxNode, x: Any, weight: Any, bias: Any = None) -> Value:
    """torch crops both ends alike: what the end loses more is sliced off, less is output_padding."""
    x, weight = image(x), constant(weight, "weights")
    stride, dilation = ints(node, "strides", (1, 1)), ints(node, "dilations", (1, 1))
    padding, extra, cuts = [], [], []
    for axis, (low, high) in enumerate(_transposed_pads(node, x, weight, stride, dilation)):
        padding.append(low)
        extra.append(max(low - high, 0))
        cuts.append(max(high - low, 0))
        if extra[-1] >= max(stride[axis], dilation[axis]):
            raise Unsupported(f"a padding of {low} before and {high} after")
    y = imp.emit(
        "conv_transpose2d",
        (x, weight, bias),
        stride=stride,
        padding=tuple(padding),
        output_padding=tuple(extra),
        dilation=dilation,
        groups=int(node.get("group", 1)),
    )
    for axis, cut in enumerate(cuts, 2):
        if cut:
            y = imp.emit("slice", (y,), dim=axis, start=0, end=y.shape[axis] - cut, step=1)
    return y


def _transposed_pads(
    node: OnnxNode, x: Value, weight: np.ndarray, stride: Sequence[int], dilation: Sequence[int]
) -> list[tuple[int, int]]:
    """(low, high) an axis, output_padding counted as less padding at the end."""
    extra = ints(node, "output_padding", (0, 0))
    wanted, mode = node.get("output_shape"), node.get("auto_pad", "NOTSET")
    pads = ints(node, "pads", (0, 0, 0, 0)) if mode == "NOTSET" else (0, 0, 0, 0)
    found = []
    for i in range(2):
        low, high = pads[i], pads[i + 2]
        if wanted or mode.startswith("SAME"):
            size = wanted[-2:][i] if wanted else x.shape[2 + i] * stride[i]
            full = (x.shape[2 + i] - 1) * stride[i] + dilation[i] * (weight.shape[2 + i] - 1) + 1
            total = max(full + extra[i] - int(size), 0)
            low = total // 2 if mode == "SAME_UPPER" else total - total // 2
            high = total - low
        found.append((low, high - extra[i]))
    return found


def _linear(imp: Builder, x: Value, weight: np.ndarray, bias: Any) -> Value:
    """weight (I, O) as ONNX keeps it."""
    return imp.emit("linear", (x, imp.transposed(weight), bias))


@importer("Gemm")
def gemm(imp: Builder, node: OnnxNode, a: Any, b: Any, c: Any = None) -> Value:
    """alpha * a @ b + beta * c."""
    alpha, beta = float(node.get("alpha", 1.0)), float(node.get("beta", 1.0))
    if node.get("transA", 0):
        a = imp.transposed(a) if isinstance(a, np.ndarray) else imp.emit("permute", (a,), dims=(1, 0))
    transposed = bool(node.get("transB", 0))
    if isinstance(c, np.ndarray) and beta != 1:
        c = c * np.float32(beta)
    if isinstance(a, Value) and isinstance(b, np.ndarray):
        weight = b if transposed else imp.transposed(b)
        if alpha != 1:
            weight = weight * np.float32(alpha)
        out = weight.shape[0]
        if isinstance(c, np.ndarray) and c.size in (1, out) and c.shape[-1:] in ((), (1,), (out,)):
            bias = c if c.shape == (out,) else np.ascontiguousarray(np.broadcast_to(c.reshape(-1), (out,)))
            return imp.emit("linear", (a, weight, bias))
        y = imp.emit("linear", (a, weight, None))
    else:
        if transposed:
            b = imp.transposed(b) if isinstance(b, np.ndarray) else imp.emit("permute", (b,), dims=(1, 0))
        y = imp.emit("matmul", (a, b))
        if alpha != 1:
            y = imp.emit("mul", (y, alpha))
    if c is None:
        return y
    if isinstance(c, Value) and beta != 1:
        c = imp.emit("mul", (c, beta))
    return imp.emit("add", (y, c))


@importer("MatMul")
def matmul(imp: Builder, node: OnnxNode, a: Any, b: Any) -> Value:
    if isinstance(a, Value) and isinstance(b, np.ndarray) and b.ndim == 2:
        return _linear(imp, a, b, None)
    return imp.emit("matmul", (a, b))


@importer("Einsum")
def einsum_(imp: Builder, node: OnnxNode, *operands: Any) -> Value:
    return einsum(imp, str(node.attrs["equation"]), [imp.tensor(x) for x in operands])


@importer("BatchNormalization")
def batch_norm(
    imp: Builder, node: OnnxNode, x: Any, weight: Any, bias: Any, mean: Any, var: Any
) -> tuple[Value, ...]:
    if node.get("training_mode", 0) or len([o for o in node.outputs if o]) > 1:
        raise Unsupported("batch norm in training mode")
    statistics = [constant(s, "statistics") for s in (weight, bias, mean, var)]
    return (imp.emit("batch_norm", (x, *statistics), eps=float(node.get("epsilon", 1e-5))),)


@importer("LayerNormalization")
def layer_norm(imp: Builder, node: OnnxNode, x: Any, weight: Any, bias: Any = None) -> tuple[Value, ...]:
    axis = positive(int(node.get("axis", -1)), len(x.shape))
    shape = tuple(x.shape[axis:])
    scale, shift = (
        None
        if p is None
        else p
        if p.shape == shape
        else np.ascontiguousarray(np.broadcast_to(constant(p, "weights"), shape))
        for p in (weight, bias)
    )
    eps = float(node.get("epsilon", 1e-5))
    return (imp.emit("layer_norm", (x, scale, shift), normalized_shape=shape, eps=eps),)


@importer("InstanceNormalization")
def instance_norm(imp: Builder, node: OnnxNode, x: Any, weight: Any, bias: Any) -> Value:
    eps = float(node.get("epsilon", 1e-5))
    return imp.emit("group_norm", (x, weight, bias), groups=x.shape[1], eps=eps)


@importer("RMSNormalization")
def rms_norm(imp: Builder, node: OnnxNode, x: Any, weight: Any) -> Value:
    shape = tuple(x.shape[positive(int(node.get("axis", -1)), len(x.shape)) :])
    wide = np.ascontiguousarray(np.broadcast_to(constant(weight, "weights"), shape))
    eps = float(node.get("epsilon", 1e-5))
    return imp.emit("rms_norm", (x, wide), normalized_shape=shape, eps=eps)


@importer("LpNormalization")
def lp_norm(imp: Builder, node: OnnxNode, x: Any) -> Value:
    if int(node.get("p", 2)) != 2:
        raise Unsupported("LpNormalization of order 1 (2)")
    return imp.emit("l2_normalize", (x,), dim=positive(int(node.get("axis", -1)), len(x.shape)), eps=1e-12)


@importer("MeanVarianceNormalization")
def mean_variance_norm(imp: Builder, node: OnnxNode, x: Any) -> Value:
    """(x - mean) / (deviation + 1e-9)."""
    dims = tuple(sorted(positive(a, len(x.shape)) for a in node.get("axes", (0, 2, 3))))
    apart = imp.emit("sub", (x, imp.emit("mean", (x,), dims=dims, keepdim=True)))
    power = imp.emit("mean", (imp.emit("mul", (apart, apart)),), dims=dims, keepdim=True)
    return imp.emit("div", (apart, imp.emit("add", (imp.emit("sqrt", (power,)), 1e-9))))


@importer("LRN")
def local_response_norm(imp: Builder, node: OnnxNode, x: Any) -> Value:
    """x / (bias + alpha / size * sum of `size` squares) ^ beta: a 1x1 convolution sums over channels."""
    size, channels = int(node.attrs["size"]), x.shape[1]
    alpha, beta, bias = (float(node.get(n, d)) for n, d in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    near = np.subtract.outer(np.arange(channels), np.arange(channels))  # output channel less input channel
    band = ((near <= before) & (-near <= after)).astype(np.float32) * np.float32(alpha / size)
    square = imp.emit("mul", (x, x))
    power = imp.emit(
        "conv2d",
        (square, band.reshape(channels, channels, 1, 1), np.full(channels, bias, np.float32)),
        stride=(1, 1),
        padding=(0, 0, 0, 0),
        dilation=(1, 1),
        groups=1,
    )
    return imp.emit("mul", (x, imp.emit("pow", (power,), exponent=-beta)))


@importer("GroupNormalization")
def group_norm(imp: Builder, node: OnnxNode, x: Any, weight: Any, bias: Any) -> Value:
    """Scale and bias are one a group up to opset 20, one a channel from 21."""
    groups, channels = int(node.attrs["num_groups"]), x.shape[1]
    per_channel = [
        p if p.size == channels else np.repeat(p, channels // groups)
        for p in (constant(weight, "weights"), constant(bias, "weights"))
    ]
    return imp.emit("group_norm", (x, *per_channel), groups=groups, eps=float(node.get("epsilon", 1e-5)))
