"""Pooling and reductions.

Global average pooling is MEAN, which is delegated and may change the scale. Any other average over whole
windows is a depthwise convolution with weights 1/k^2, since integer AVERAGE_POOL_2D is not delegated; an
average that leaves the border out of its count, or whose windows differ in size, goes through float. A
maximum over zero padding is only a maximum where no value is negative.
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.graph.ir import Node, QuantParams
from edgekit.graph.ops import ACTIVATIONS, MOVES, OPS, Fixed
from edgekit.lower.tflite import constants
from edgekit.lower.tflite.builder import Tensor
from edgekit.lower.tflite.context import NHWC, Context, lowers
from edgekit.lower.tflite.convolution import (
    SAME,
    VALID,
    Pads,
    needed_padding,
    pad_spatial,
    same_padding,
)
from edgekit.lower.tflite.movement import emit_slice, emit_strided, filler, moved


def _window(node: Node) -> tuple[tuple[int, int], tuple[int, int], Pads, bool]:
    """(kernel as far as it reaches, stride, padding that is read, whether SAME is exactly that padding)."""
    stride, padding = node.attrs["stride"], node.attrs["padding"]
    dilation = node.attrs.get("dilation", (1, 1))
    kernel = tuple((k - 1) * d + 1 for k, d in zip(node.attrs["kernel"], dilation, strict=True))
    value = node.inputs[0]
    assert value is not None
    size, out = value.shape[2:], node.output.shape[2:]
    ends = [needed_padding(size[i], padding[i], out[i], kernel[i], stride[i]) for i in (0, 1)]
    pads = (padding[0], ends[0], padding[1], ends[1])
    same = (*same_padding(size[0], kernel[0], stride[0]), *same_padding(size[1], kernel[1], stride[1]))
    fits = all(-(-size[i] // stride[i]) == out[i] for i in (0, 1))
    return kernel, tuple(stride), pads, same == pads and fits


def _pool_options(kernel: tuple[int, int], stride: tuple[int, int], padding: int) -> schema.Pool2DOptionsT:
    return schema.Pool2DOptionsT(
        padding=padding,
        strideH=stride[0],
        strideW=stride[1],
        filterHeight=kernel[0],
        filterWidth=kernel[1],
    )


def never_negative(ctx: Context, node: Node) -> bool:
    """Whether the pooled value is known to be at least zero."""
    value = node.inputs[0]
    assert value is not None
    if value.quant is not None:
        return value.quant.zero_point[0] == {"int8": -128, "uint8": 0}.get(value.quant.dtype)
    producer = ctx.producers.get(value)
    while producer is not None and producer.op in MOVES - {"pad"} and len(producer.operands) == 1:
        producer = ctx.producers.get(producer.operands[0])
    if producer is None:
        return False
    ranges = OPS[producer.op].ranges
    ends_at_zero = isinstance(ranges, Fixed) and ranges.low >= 0.0
    return ends_at_zero or bool({producer.op, producer.attrs.get("activation")} & set(ACTIVATIONS))


@lowers()
def max_pool2d(ctx: Context, node: Node) -> None:
    """MAX_POOL_2D; a dilated one as MAXIMUM over shifted rows, then columns."""
    if tuple(node.attrs.get("dilation", (1, 1))) != (1, 1):
        _dilated_max_pool(ctx, node)
        return
    x = moved(ctx, node, 0, NHWC)
    kernel, stride, pads, same = _window(node)
    padding = SAME if same else VALID
    if any(pads) and not same:
        if never_negative(ctx, node):
            x = pad_spatial(ctx, x, pads, node.output.name)
        else:
            x = _pad_low(ctx, x, pads, node.output.name)
    result = ctx.write(node.output, NHWC, integer=True)
    ctx.emit("MAX_POOL_2D", [x], [result], _pool_options(kernel, stride, padding))


def _dilated_max_pool(ctx: Context, node: Node) -> None:
    """In float, where MAXIMUM is delegated; numbers on a grid stay on it."""
    value, stem = node.inputs[0], node.output.name
    assert value is not None
    _, stride, pads, _ = _window(node)
    x = ctx.read(value, NHWC, as_float=True)
    if any(pads):
        x = _pad_low(ctx, x, pads, stem)
    result = ctx.write(node.output, NHWC, integer=False)
    for axis in (1, 2):
        taps, gap, step = node.attrs["kernel"][axis - 1], node.attrs["dilation"][axis - 1], stride[axis - 1]
        count = result.shape[axis]
        shape = tuple((count - 1) * step + 1 if i == axis else n for i, n in enumerate(x.shape))
        shifted = [ctx.like(x, f"{stem}/shifted", shape) for _ in range(taps)]
        for i, piece in enumerate(shifted):
            emit_slice(ctx, x, [i * gap if at == axis else 0 for at in range(4)], piece)
        best = shifted[0]
        for piece in shifted[1:]:
            larger = ctx.like(x, f"{stem}/larger", shape)
            ctx.emit("MAXIMUM", [best, piece], [larger], schema.MaximumMinimumOptionsT())
            best = larger
        x = best
        if step > 1:
            x = ctx.like(x, f"{stem}/taken", tuple(count if i == axis else n for i, n in enumerate(shape)))
            emit_strided(ctx, best, axis, [0, 0, 0, 0], step, x)
    ctx.reshape(x, result)


def _pad_low(ctx: Context, x: Tensor, pads: Pads, stem: str) -> Tensor:
    """`x` with the lowest number of its type around it."""
    top, bottom, left, right = pads
    n, h, w, c = x.shape
    result = ctx.like(x, f"{stem}/pad", (n, h + top + bottom, w + left + right, c))
    table = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
    lowest = filler(ctx, float(np.finfo(np.float32).min), x.quant)
    ctx.emit("PADV2", [x, ctx.constant("paddings", table), lowest], [result], schema.PadV2OptionsT())
    return result


def _border_counts(node: Node, kernel: tuple[int, int], stride: tuple[int, int], pads: Pads) -> np.ndarray:
    """How many elements torch divides each window's sum by, (oh, ow)."""
    value = node.inputs[0]
    assert value is not None
    counts = []
    for i in (0, 1):
        size, out, before = value.shape[2 + i], node.output.shape[2 + i], node.attrs["padding"][i]
        low, high = (-before, size + before) if node.attrs.get("count_include_pad", True) else (0, size)
        starts = np.arange(out) * stride[i] - before
        counts.append(np.minimum(starts + kernel[i], high) - np.maximum(starts, low))
    return counts[0][:, None] * counts[1][None, :]


@lowers()
def avg_pool2d(ctx: Context, node: Node) -> None:
    value = node.inputs[0]
    assert value is not None
    kernel, stride, pads, same = _window(node)
    counts = _border_counts(node, kernel, stride, pads)
    even = bool((counts == kernel[0] * kernel[1]).all())
    integer = ctx.integer(node) and even and ctx.computes_in(node) == "int8"
    x = ctx.read(value, NHWC, as_float=not integer)
    result = ctx.write(node.output, NHWC, integer=integer)
    if not even and same and not node.attrs.get("count_include_pad", True):
        ctx.emit("AVERAGE_POOL_2D", [x], [result], _pool_options(kernel, stride, SAME))
        return
    x = pad_spatial(ctx, x, pads, node.output.name)
    if integer:
        _box_filter(ctx, x, kernel, stride, node, result)
        return
    if even:
        ctx.emit("AVERAGE_POOL_2D", [x], [result], _pool_options(kernel, stride, VALID))
        return
    average = ctx.like(result, f"{node.output.name}/average")
    ctx.emit("AVERAGE_POOL_2D", [x], [average], _pool_options(kernel, stride, VALID))
    correction = (kernel[0] * kernel[1] / counts).astype(np.float32)[None, :, :, None]
    ctx.emit("MUL", [average, ctx.constant("border", correction)], [result], schema.MulOptionsT())


def _box_filter(
    ctx: Context,
    x: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    node: Node,
    result: Tensor,
) -> None:
    channels = x.shape[3]
    assert x.quant is not None
    quant = QuantParams(
        (float(np.float32(1.0 / (kernel[0] * kernel[1]))),) * channels, (0,) * channels, "int8", 3
    )
    ones = ctx.constant(f"{node.output.name}/ones", np.ones((1, *kernel, channels), np.int8), quant)
    integers, bias_quant = constants.bias(None, channels, x.quant.scale[0], quant, "int8")
    zeros = ctx.constant(f"{node.output.name}/zeros", integers, bias_quant)
    options = schema.DepthwiseConv2DOptionsT(
        padding=VALID, strideH=stride[0], strideW=stride[1], depthMultiplier=1
    )
    ctx.emit("DEPTHWISE_CONV_2D", [x, ones, zeros], [result], options)


def _shares(size: int, out: int) -> np.ndarray:
    """How much each of `size` entries counts in each of `out` averages, (out, size); torch's windows."""
    start = np.arange(out) * size // out
    end = -(-(np.arange(out) + 1) * size // out)
    at = np.arange(size)
    inside = (at >= start[:, None]) & (at < end[:, None])
    return inside / (end - start)[:, None]


@lowers()
def adaptive_avg_pool2d(ctx: Context, node: Node) -> None:
    """Windows of equal size: an ordinary average pool. Others: a product with a matrix, in float."""
    value = node.inputs[0]
    assert value is not None
    size, out = value.shape[2:], tuple(node.attrs["output_size"])
    if any(n % o for n, o in zip(size, out, strict=True)):
        n, c = value.shape[:2]
        shares = np.kron(_shares(size[0], out[0]), _shares(size[1], out[1])).astype(np.float32)
        x = ctx.read(value, NHWC, as_float=True)
        pixels = ctx.like(x, f"{node.output.name}/pixels", (n, size[0] * size[1], c))
        averages = ctx.like(x, f"{node.output.name}/averages", (n, out[0] * out[1], c))
        ctx.reshape(x, pixels)
        options = schema.BatchMatMulOptionsT()
        ctx.emit("BATCH_MATMUL", [ctx.constant("shares", shares[None]), pixels], [averages], options)
        ctx.reshape(averages, ctx.write(node.output, NHWC, integer=False))
        return
    window = tuple(n // o for n, o in zip(value.shape[2:], node.attrs["output_size"], strict=True))
    attrs = {"kernel": window, "stride": window, "padding": (0, 0), "count_include_pad": True}
    avg_pool2d(ctx, Node("avg_pool2d", node.inputs, node.outputs, attrs, node.source))


def _reduce(ctx: Context, node: Node, builtin: str, *, integer: bool) -> None:
    value = node.inputs[0]
    assert value is not None
    rank = len(value.shape)
    perm = ctx.perm(value)
    dims = {d % rank for d in node.attrs["dims"]}
    x = ctx.read(value, perm, as_float=not integer)
    axes = ctx.constant("axes", np.array(sorted(perm.index(d) for d in dims), np.int32))
    if node.attrs["keepdim"]:
        out_perm = perm
    else:
        left = [d for d in range(rank) if d not in dims]
        out_perm = tuple(left.index(d) for d in perm if d in left)
    result = ctx.write(node.output, out_perm, integer=integer)
    ctx.emit(builtin, [x, axes], [result], schema.ReducerOptionsT(keepDims=node.attrs["keepdim"]))


@lowers()
def mean(ctx: Context, node: Node) -> None:
    """MEAN."""
    _reduce(ctx, node, "MEAN", integer=ctx.integer(node))


@lowers()
def sum_(ctx: Context, node: Node) -> None:
    """SUM; in float, since its integer form was found off the delegate for most axes."""
    _reduce(ctx, node, "SUM", integer=False)


@lowers()
def amax(ctx: Context, node: Node) -> None:
    value = node.inputs[0]
    assert value is not None
    _reduce(ctx, node, "REDUCE_MAX", integer=value.quant == node.output.quant)
