"""Activations: one node where opset 17 has the function, the formula written out where it does not."""

from __future__ import annotations

import math

import numpy as np

from edgekit.graph.ir import Node, QuantParams
from edgekit.lower.onnx import constants
from edgekit.lower.onnx.context import INTEGER, Context, lowers


def activated(ctx: Context, node: Node, tensor: str) -> str:
    """The activation fused into a node; ONNX has no Relu6, Clip is exact."""
    kind = node.attrs.get("activation")
    quant = node.output.quant
    if kind == "relu6" and quant is not None and 127 - quant.zero_point[0] <= round(6.0 / quant.scale[0]):
        kind = (
            "relu"  # the grid ends at 6: ONNX Runtime drops a Relu here, a Clip only if 6 is met to the bit
        )
    if kind is not None and quant is not None and quant.zero_point[0] > -128 and _in_integers(ctx, node):
        return _clipped_integers(ctx, node, tensor, quant, six=kind == "relu6")
    if kind == "relu6":
        return ctx.emit("Clip", tensor, ctx.scalar(0.0), ctx.scalar(6.0))
    return ctx.emit("Relu", tensor) if kind == "relu" else tensor


def _in_integers(ctx: Context, node: Node) -> bool:
    """Whether an integer kernel computes the node, were it not for its activation."""
    whole = all(value.quant is not None for value in node.operands[:2])
    return whole and node.op in INTEGER and INTEGER[node.op](node) and ctx.target.runtime == "onnxruntime"


def _clipped_integers(ctx: Context, node: Node, tensor: str, quant: QuantParams, *, six: bool) -> str:
    """Relu on a grid that goes below zero, as that of a concat may: a Clip of the integers.

    ONNX Runtime drops a Relu only where the grid ends at zero; with any other it computes the layer in float.
    """
    form = constants.stored_as(quant, ctx.target)
    limits, zero = np.iinfo(form.dtype), form.zero_point[0]
    high = min(limits.max, zero + round(6.0 / quant.scale[0])) if six else limits.max
    bounds = [ctx.constant("bound", np.array(bound, form.dtype)) for bound in (zero, high)]
    stored = ctx.quantized(tensor, quant, f"{node.output.name}/unclipped")
    return ctx.already_integer(ctx.emit("Clip", stored, *bounds))


@lowers()
def relu(ctx: Context, node: Node) -> str:
    return ctx.emit("Relu", ctx.first(node))


@lowers()
def relu6(ctx: Context, node: Node) -> str:
    return ctx.emit("Clip", ctx.first(node), ctx.scalar(0.0), ctx.scalar(6.0))


@lowers(integer=True)
def hardswish(ctx: Context, node: Node) -> str:
    return ctx.emit("HardSwish", ctx.first(node))


@lowers(integer=True)
def hardsigmoid(ctx: Context, node: Node) -> str:
    """HardSigmoid; between integers x/6 + 1/2 on a grid that ends at 0 and 1, which is an integer Add."""
    x, out = node.operands[0], node.output
    if x.quant is None or out.quant is None or not _clips_alike(x.quant, out.quant):
        return ctx.emit("HardSigmoid", ctx.first(node), alpha=1.0 / 6.0, beta=0.5)
    sixth = QuantParams((float(np.float32(x.quant.scale[0] / 6.0)),), x.quant.zero_point, x.quant.dtype)
    half = ctx.parameter("half", np.array(0.5, np.float32), QuantParams((0.5,), (0,)))
    return ctx.emit("Add", ctx.dequantized(ctx.integers[x], sixth), half)


def _clips_alike(x: QuantParams, out: QuantParams) -> bool:
    """Whether rounding x/6 + 1/2 to the grid of the result clips exactly what hardsigmoid clips."""
    lines = (np.arange(-128, 128) - x.zero_point[0]) * (x.scale[0] / 6.0) + 0.5
    with_clip, without = (constants.quantize(y, out) for y in (np.clip(lines, 0.0, 1.0), lines))
    return bool((with_clip == without).all())


@lowers(integer=True)
def sigmoid(ctx: Context, node: Node) -> str:
    return ctx.emit("Sigmoid", ctx.first(node))


@lowers(integer=True)
def silu(ctx: Context, node: Node) -> str:
    x = ctx.first(node)
    return ctx.emit("Mul", x, ctx.emit("Sigmoid", x))


@lowers()
def gelu(ctx: Context, node: Node) -> str:
    """x/2 * (1 + erf(x / sqrt 2)), or with tanh(sqrt(2/pi) (x + 0.044715 x^3)) in its place."""
    x = ctx.first(node)
    if node.attrs.get("approximate", "none") == "tanh":
        cubed = ctx.emit("Mul", ctx.emit("Mul", x, x), x)
        inner = ctx.emit("Add", x, ctx.emit("Mul", cubed, ctx.scalar(0.044715)))
        curve = ctx.emit("Tanh", ctx.emit("Mul", inner, ctx.scalar(math.sqrt(2.0 / math.pi))))
    else:
        curve = ctx.emit("Erf", ctx.emit("Div", x, ctx.scalar(math.sqrt(2.0))))
    product = ctx.emit("Mul", x, ctx.emit("Add", curve, ctx.scalar(1.0)))
    return ctx.emit("Mul", product, ctx.scalar(0.5))


@lowers()
def tanh(ctx: Context, node: Node) -> str:
    return ctx.emit("Tanh", ctx.first(node))


@lowers()
def elu(ctx: Context, node: Node) -> str:
    return ctx.emit("Elu", ctx.first(node), alpha=float(node.attrs.get("alpha", 1.0)))


@lowers(integer=True)
def leaky_relu(ctx: Context, node: Node) -> str:
    return ctx.emit("LeakyRelu", ctx.first(node), alpha=float(node.attrs["negative_slope"]))


@lowers()
def prelu(ctx: Context, node: Node) -> str:
    """The slope stands on the channel dimension; ONNX broadcasts from the right."""
    x, weight = node.inputs
    assert x is not None and weight is not None
    slope = constants.as_numpy(weight).reshape(-1, *[1] * (len(x.shape) - 2))
    return ctx.emit("PRelu", ctx.read(x), ctx.constant(weight.name, slope))


@lowers()
def softplus(ctx: Context, node: Node) -> str:
    return ctx.emit("Softplus", ctx.first(node))


@lowers()
def mish(ctx: Context, node: Node) -> str:
    """x * tanh(softplus(x))."""
    x = ctx.first(node)
    return ctx.emit("Mul", x, ctx.emit("Tanh", ctx.emit("Softplus", x)))


@lowers()
def clamp(ctx: Context, node: Node) -> str:
    bounds = [None if b is None else ctx.scalar(b) for b in (node.attrs["low"], node.attrs["high"])]
    return ctx.emit("Clip", ctx.first(node), *bounds)


@lowers(integer=True)
def softmax(ctx: Context, node: Node) -> str:
    return ctx.emit("Softmax", ctx.first(node), axis=node.attrs["dim"])
