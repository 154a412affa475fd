"""Convolutions and matrix products.

A weight with parameters is stored as int8 behind a DequantizeLinear along its output channels. Its bias is
int32 at input scale * weight scale where the runtime adds it to the accumulator, float for TensorRT, which
takes no other.

ONNX Runtime's direct integer convolution (MlasConvSym) wants channels in fours, and an image has three: it
falls back to im2col, which copies three bytes at a time. So an image gets a fourth channel, zero as its
weights are: the stem of a resnet18 takes 1.1 ms less of 10.
"""

from __future__ import annotations

import numpy as np

from edgekit.graph.ir import Node, QuantParams
from edgekit.lower.onnx import constants
from edgekit.lower.onnx.activation import activated
from edgekit.lower.onnx.context import Context, lowers

_CHANNELS = 4  # that one step of the integer kernel multiplies


def _bias(ctx: Context, node: Node) -> str | None:
    """The bias beside a convolution or Gemm, or None."""
    x, weight, value = node.inputs
    assert x is not None and weight is not None
    if value is None:
        return None
    data = constants.as_numpy(value)
    if weight.quant is None or x.quant is None or "float_bias" in ctx.target.forms:
        return ctx.parameter(value.name, data, None)
    integers, quant = constants.bias(data, x.quant.scale[0], weight.quant)
    return ctx.dequantized(ctx.constant(value.name, integers), quant)


def _operands(ctx: Context, node: Node) -> tuple[str, str]:
    """The input and the weight of a convolution, both with a fourth channel where the input is an image."""
    x, weight = node.inputs[:2]
    assert x is not None and weight is not None
    missing = -x.shape[1] % _CHANNELS
    whole = x.quant is None or weight.quant is None or missing == 0
    wanted = "padded_image" in ctx.target.forms and x in ctx.graph.inputs and node.attrs["groups"] == 1
    if whole or not wanted:
        return ctx.read(x), ctx.read(weight)
    assert x.quant is not None
    form = constants.stored_as(x.quant, ctx.target)
    zero = ctx.constant("zero_point", np.array(form.zero_point[0], form.dtype))
    padded = ctx.emit("Pad", ctx.integers[x], ctx.shape((0, 0, 0, 0, 0, missing, 0, 0)), zero)
    data = np.pad(constants.as_numpy(weight), ((0, 0), (0, missing), (0, 0), (0, 0)))
    return ctx.dequantized(padded, x.quant), ctx.parameter(weight.name, data, weight.quant)


@lowers(integer=True)
def conv2d(ctx: Context, node: Node) -> str:
    weight = node.inputs[1]
    assert weight is not None
    top, bottom, left, right = node.attrs["padding"]
    result = ctx.emit(
        "Conv",
        *_operands(ctx, node),
        _bias(ctx, node),
        kernel_shape=weight.shape[2:],
        strides=node.attrs["stride"],
        pads=(top, left, bottom, right),
        dilations=node.attrs["dilation"],
        group=node.attrs["groups"],
    )
    return activated(ctx, node, result)


@lowers()
def conv_transpose2d(ctx: Context, node: Node) -> str:
    x, weight = node.inputs[:2]
    assert x is not None and weight is not None
    result = ctx.emit(
        "ConvTranspose",
        ctx.read(x),
        ctx.read(weight),
        _bias(ctx, node),
        kernel_shape=weight.shape[2:],
        strides=node.attrs["stride"],
        pads=(*node.attrs["padding"], *node.attrs["padding"]),
        output_padding=node.attrs["output_padding"],
        dilations=node.attrs["dilation"],
        group=node.attrs["groups"],
    )
    return activated(ctx, node, result)


@lowers(integer=True)
def linear(ctx: Context, node: Node) -> str:
    """Gemm over rows; MatMul and Add where there are more dimensions, the weight transposed on file."""
    x, weight, bias = node.inputs
    assert x is not None and weight is not None
    if len(x.shape) == 2:
        result = ctx.emit("Gemm", ctx.read(x), ctx.read(weight), _bias(ctx, node), transB=1)
        return activated(ctx, node, result)
    data, quant = constants.as_numpy(weight).T, weight.quant
    if quant is not None:
        quant = QuantParams(quant.scale, quant.zero_point, quant.dtype, 1)
    result = ctx.emit("MatMul", ctx.read(x), ctx.parameter(weight.name, data, quant))
    if bias is not None:
        result = ctx.emit("Add", result, ctx.parameter(bias.name, constants.as_numpy(bias), None))
    return activated(ctx, node, result)


@lowers(integer=True)
def matmul(ctx: Context, node: Node) -> str:
    return ctx.emit("MatMul", *ctx.operands(node))


@lowers()
def scaled_dot_product_attention(ctx: Context, node: Node) -> str:
    """softmax(q k^T * scale + mask) v."""
    q, k, v, mask = node.inputs
    assert q is not None and k is not None and v is not None
    rank = len(k.shape)
    turned = ctx.emit("Transpose", ctx.read(k), perm=(*range(rank - 2), rank - 1, rank - 2))
    scale = node.attrs.get("scale") or float(np.float32(q.shape[-1] ** -0.5))
    scores = ctx.emit("Mul", ctx.emit("MatMul", ctx.read(q), turned), ctx.scalar(scale))
    if mask is not None:
        scores = ctx.emit("Add", scores, ctx.read(mask))
    return ctx.emit("MatMul", ctx.emit("Softmax", scores, axis=-1), ctx.read(v))
