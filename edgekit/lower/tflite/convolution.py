"""Convolutions: weights turned to the file's order, padding chosen per layer, the image stem folded.

Padding. The runtime knows VALID and SAME; SAME pads so that out = ceil(in / stride), the odd pixel below
and to the right. Torch's padding that equals it becomes SAME, no padding VALID, anything else an explicit
PAD, one per convolution, which the delegate fuses. Rows and columns that no window reads are not padded at
all.

Stem. A strided convolution over few channels is slow: s neighbouring pixels become one pixel of s*C channels
(a RESHAPE), the horizontal stride becomes 1, and taps that fall outside the kernel are zero. The result is
the same to the bit.
"""

from __future__ import annotations

import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.graph.boundaries import is_dynamic
from edgekit.graph.ir import Node, QuantParams, Value
from edgekit.lower.tflite import constants
from edgekit.lower.tflite.builder import Tensor
from edgekit.lower.tflite.context import NHWC, Context, lowers
from edgekit.lower.tflite.oldest_runtime import PER_CHANNEL_FULLY_CONNECTED, release
from edgekit.targets import Target

SAME, VALID = schema.Padding.SAME, schema.Padding.VALID
STEM_CHANNELS = 4  # folding pays while the input has at most this many channels
Pads = tuple[int, int, int, int]  # top, bottom, left, right


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """What SAME adds before and after one dimension."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def needed_padding(size: int, before: int, out: int, kernel: int, stride: int, dilation: int = 1) -> int:
    """How much of the padding after one dimension some window reads."""
    return max((out - 1) * stride + (kernel - 1) * dilation + 1 - size - before, 0)


def choose_padding(
    size: tuple[int, ...],
    out: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: Pads,
) -> tuple[int, Pads]:
    """(SAME or VALID, explicit padding to put in front)."""
    top, _, left, _ = padding
    needed = (
        top,
        needed_padding(size[0], top, out[0], kernel[0], stride[0], dilation[0]),
        left,
        needed_padding(size[1], left, out[1], kernel[1], stride[1], dilation[1]),
    )
    if needed == (0, 0, 0, 0):
        return VALID, needed
    same = (
        *same_padding(size[0], kernel[0], stride[0], dilation[0]),
        *same_padding(size[1], kernel[1], stride[1], dilation[1]),
    )
    fits = all(-(-size[i] // stride[i]) == out[i] for i in (0, 1))
    if same == needed and fits:
        return SAME, (0, 0, 0, 0)
    return VALID, needed


def pad_spatial(ctx: Context, x: Tensor, pads: Pads, stem: str) -> Tensor:
    """`x` (N, H, W, C) with zeros around it."""
    if not any(pads):
        return x
    top, bottom, left, right = pads
    n, h, w, c = x.shape
    result = ctx.like(x, f"{stem}/pad", (n, h + top + bottom, w + left + right, c))
    table = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
    ctx.emit("PAD", [x, ctx.constant("paddings", table)], [result], schema.PadOptionsT())
    return result


def fold_stem(
    ctx: Context, x: Tensor, weight: np.ndarray, node: Node, out_width: int
) -> tuple[Tensor, np.ndarray, tuple[int, int], Pads] | None:
    """(input, weight, stride, padding) with `stride` pixels of a row folded into channels, or None.

    weight (O, kh, kw, C). Tap t of output column j reads column j*s - left + t, which lies in folded column
    j - ceil(left/s) + (t + offset) // s with offset = ceil(left/s)*s - left.
    """
    (stride_h, s), (top, bottom, left, _) = node.attrs["stride"], node.attrs["padding"]
    n, h, w, c = x.shape
    if c > STEM_CHANNELS or s < 2 or w % s or node.attrs["dilation"][1] != 1 or node.attrs["groups"] != 1:
        return None
    before = -(-left // s)
    offset = before * s - left
    o, kh, kw, _ = weight.shape
    taps = -(-(kw + offset) // s)
    after = out_width - 1 + taps - before - w // s
    wasted = taps * s != kw
    if after < 0 or (wasted and weight.dtype == np.float32):
        return None
    folded = np.zeros((o, kh, taps * s, c), weight.dtype)
    folded[:, :, offset : offset + kw] = weight
    folded = folded.reshape(o, kh, taps, s * c)
    view = ctx.like(x, f"{x.name}/folded", (n, h, w // s, s * c))
    ctx.reshape(x, view)
    return view, folded, (stride_h, 1), (top, bottom, before, after)


def parameters(
    ctx: Context, node: Node, x: Value, axis_first: tuple[int, ...], out_axis: int, *, integer: bool
) -> tuple[np.ndarray, QuantParams | None, Tensor | None]:
    """(weight in the file's order, its parameters, bias tensor) of a convolution or linear node.

    axis_first: the transposition of the weight; out_axis: where output channels stand afterwards.
    """
    weight, bias_value = node.inputs[1], node.inputs[2]
    assert weight is not None
    data = constants.as_numpy(weight).transpose(axis_first)
    bias = None if bias_value is None else constants.as_numpy(bias_value)
    channels = node.output.shape[1] if node.op == "conv2d" else weight.shape[0]
    stem = bias_value.name if bias_value is not None else f"{weight.name}/bias"
    if not integer:
        if ctx.target.weights == "int8" and weight.quant is not None and _dynamic(ctx, node):
            quant = _on_axis(weight.quant, out_axis)
            return constants.quantize(data, quant), quant, _float_bias(ctx, stem, bias, channels)
        if weight.quant is not None:
            data = _rounded(data, _on_axis(weight.quant, out_axis), out_axis)
        return data, None, _float_bias(ctx, stem, bias, channels)
    assert weight.quant is not None and x.quant is not None
    quant = _on_axis(weight.quant, out_axis)
    integers, bias_quant = constants.bias(bias, channels, x.quant.scale[0], quant, x.quant.dtype)
    return constants.quantize(data, quant), quant, ctx.constant(stem, integers, bias_quant)


def _dynamic(ctx: Context, node: Node) -> bool:
    """Whether int8 weights meet floats that the kernel rounds itself."""
    return ctx.target.activations == "float32" or is_dynamic(node)


def _rounded(data: np.ndarray, quant: QuantParams, axis: int) -> np.ndarray:
    """The integers' values, so that a float neighbour sees the same weights."""
    shape = [-1 if d == axis else 1 for d in range(data.ndim)]
    return constants.quantize(data, quant) * np.asarray(quant.scale, np.float32).reshape(shape)


def _on_axis(quant: QuantParams, axis: int) -> QuantParams:
    return QuantParams(quant.scale, quant.zero_point, quant.dtype, axis if len(quant.scale) > 1 else None)


def _float_bias(ctx: Context, stem: str, bias: np.ndarray | None, channels: int) -> Tensor:
    if bias is None:
        return ctx.constant(stem, np.zeros(channels, np.float32))
    return ctx.weight(stem, bias)


def weight_tensor(ctx: Context, name: str, data: np.ndarray, quant: QuantParams | None) -> Tensor:
    return ctx.weight(name, data) if quant is None else ctx.constant(name, data, quant)


def _depthwise(node: Node) -> bool:
    weight = node.inputs[1]
    assert weight is not None and node.inputs[0] is not None
    return (
        node.attrs["groups"] == node.inputs[0].shape[1] and weight.shape[1] == 1 and node.attrs["groups"] > 1
    )


@lowers()
def conv2d(ctx: Context, node: Node) -> None:
    """CONV_2D (grouped too) or DEPTHWISE_CONV_2D."""
    x_value, weight = node.inputs[0], node.inputs[1]
    assert x_value is not None and weight is not None
    integer = ctx.integer(node, x_value, weight)
    x = ctx.read(x_value, NHWC, as_float=not integer)
    depthwise = _depthwise(node)
    order, out_axis = ((1, 2, 3, 0), 3) if depthwise else ((0, 2, 3, 1), 0)
    data, quant, bias = parameters(ctx, node, x_value, order, out_axis, integer=integer)
    stride, dilation, padding = node.attrs["stride"], node.attrs["dilation"], node.attrs["padding"]
    out_size = node.output.shape[2:]
    if depthwise and quant is not None and not integer:  # the hybrid depthwise kernel is not delegated
        assert weight.data is not None
        data, quant = constants.as_numpy(weight).transpose(order), None
    folded = None if depthwise else fold_stem(ctx, x, data, node, out_size[1])
    if folded:
        x, data, stride, padding = folded
    kernel = data.shape[1:3]
    kind, pads = choose_padding(x.shape[1:3], out_size, kernel, stride, dilation, padding)
    x = pad_spatial(ctx, x, pads, node.output.name)
    result = ctx.write(node.output, NHWC, integer=integer)
    filters = weight_tensor(ctx, weight.name, data, quant)
    shared = {
        "padding": kind,
        "strideH": stride[0],
        "strideW": stride[1],
        "dilationHFactor": dilation[0],
        "dilationWFactor": dilation[1],
        "fusedActivationFunction": constants.fused(node.attrs.get("activation")),
    }
    if depthwise:
        multiplier = node.output.shape[1] // x_value.shape[1]
        options = schema.DepthwiseConv2DOptionsT(depthMultiplier=multiplier, **shared)
        ctx.emit("DEPTHWISE_CONV_2D", [x, filters, bias], [result], options)
    else:
        ctx.emit("CONV_2D", [x, filters, bias], [result], schema.Conv2DOptionsT(**shared))


@lowers()
def linear(ctx: Context, node: Node) -> None:
    """FULLY_CONNECTED over the last dimension."""
    x_value, weight = node.inputs[0], node.inputs[1]
    assert x_value is not None and weight is not None
    integer = ctx.integer(node, x_value, weight)
    rank = len(x_value.shape)
    perm = ctx.perm(x_value)
    if perm[-1] != rank - 1:
        perm = tuple(range(rank))
    x = ctx.read(x_value, perm, as_float=not integer)
    data, quant, bias = parameters(ctx, node, x_value, (0, 1), 0, integer=integer)
    result = ctx.write(node.output, perm, integer=integer)
    if integer and quant is not None and len(quant.scale) > 1 and _without_channels(ctx.target):
        _as_convolution(
            ctx, node, x, weight_tensor(ctx, weight.name, data[:, None, None], quant), bias, result
        )
        return
    options = schema.FullyConnectedOptionsT(
        fusedActivationFunction=constants.fused(node.attrs.get("activation")), keepNumDims=rank > 2
    )
    ctx.emit("FULLY_CONNECTED", [x, weight_tensor(ctx, weight.name, data, quant), bias], [result], options)


def _without_channels(target: Target) -> bool:
    """Whether the file is for runtimes whose FULLY_CONNECTED reads the first of per-channel scales only."""
    return bool(target.min_runtime) and release(target.min_runtime) < release(PER_CHANNEL_FULLY_CONNECTED)


def _as_convolution(
    ctx: Context, node: Node, x: Tensor, filters: Tensor, bias: Tensor | None, result: Tensor
) -> None:
    """A linear layer as a 1x1 convolution over its rows."""
    rows = math.prod(x.shape[:-1])
    image = ctx.like(x, f"{node.output.name}/rows", (1, 1, rows, x.shape[-1]))
    ctx.reshape(x, image)
    summed = ctx.like(result, f"{node.output.name}/summed", (1, 1, rows, result.shape[-1]))
    options = schema.Conv2DOptionsT(
        padding=VALID,
        strideH=1,
        strideW=1,
        fusedActivationFunction=constants.fused(node.attrs.get("activation")),
    )
    ctx.emit("CONV_2D", [image, filters, bias], [summed], options)
    ctx.reshape(summed, result)


def _plain_kernel(node: Node, data: np.ndarray) -> np.ndarray:
    """Weights (C, O / groups, kh, kw) as (O, kh', kw', C) of one group without dilation, the rest zero.

    Groups stand on the diagonal, a dilated kernel has zeros between its taps, and output padding beyond the
    padding is rows and columns of zeros behind it.
    """
    groups, (dh, dw) = node.attrs["groups"], node.attrs["dilation"]
    more = [max(e - p, 0) for e, p in zip(node.attrs["output_padding"], node.attrs["padding"], strict=True)]
    c, o, kh, kw = data.shape
    plain = np.zeros((o * groups, (kh - 1) * dh + 1 + more[0], (kw - 1) * dw + 1 + more[1], c), data.dtype)
    taps = (slice(0, (kh - 1) * dh + 1, dh), slice(0, (kw - 1) * dw + 1, dw))
    size = c // groups
    for group in range(groups):
        mine = slice(group * size, (group + 1) * size)
        plain[group * o : (group + 1) * o, *taps, mine] = data[mine].transpose(1, 2, 3, 0)
    return plain


@lowers()
def conv_transpose2d(ctx: Context, node: Node) -> None:
    """TRANSPOSE_CONV without padding, then a SLICE that takes torch's padding off.

    The operator knows neither groups nor dilation, see `_plain_kernel`: the same numbers for more products.
    """
    x_value, weight = node.inputs[0], node.inputs[1]
    assert x_value is not None and weight is not None
    integer = ctx.integer(node, x_value, weight)
    x = ctx.read(x_value, NHWC, as_float=not integer)
    bias_value = node.inputs[2]
    bias_data = None if bias_value is None else constants.as_numpy(bias_value)
    data = _plain_kernel(node, constants.as_numpy(weight))
    o, kh, kw, _ = data.shape
    stem = bias_value.name if bias_value is not None else f"{weight.name}/bias"
    if integer:
        assert weight.quant is not None and x_value.quant is not None
        quant = _on_axis(weight.quant, 0)
        filters = ctx.constant(weight.name, constants.quantize(data, quant), quant)
        integers, bias_quant = constants.bias(
            bias_data, o, x_value.quant.scale[0], quant, x_value.quant.dtype
        )
        bias = ctx.constant(stem, integers, bias_quant)
    else:
        if weight.quant is not None and ctx.target.quantized:
            data = _rounded(data, _on_axis(weight.quant, 0), 0)
        filters, bias = ctx.weight(weight.name, data), _float_bias(ctx, stem, bias_data, o)
    (sh, sw), (ph, pw) = node.attrs["stride"], node.attrs["padding"]
    n, h, w, _ = x.shape
    full = ((h - 1) * sh + kh, (w - 1) * sw + kw)
    oh, ow = node.output.shape[2:]
    result = ctx.write(node.output, NHWC, integer=integer)
    whole = full == (oh, ow) and not (ph or pw)
    computed = result if whole else ctx.like(result, f"{node.output.name}/full", (n, *full, o))
    shape = ctx.constant("shape", np.array(computed.shape, np.int32))
    options = schema.TransposeConvOptionsT(
        padding=VALID,
        strideH=sh,
        strideW=sw,
        fusedActivationFunction=constants.fused(node.attrs.get("activation")),
    )
    ctx.emit("TRANSPOSE_CONV", [shape, filters, x, bias], [computed], options)
    if not whole:
        begin = ctx.constant("begin", np.array([0, ph, pw, 0], np.int32))
        size = ctx.constant("size", np.array([n, oh, ow, o], np.int32))
        ctx.emit("SLICE", [computed, begin, size], [result], schema.SliceOptionsT())
