"""Activations. Those the opset has are one operator, so that the runtime can fuse them."""

from __future__ import annotations

import numpy as np

from edgekit.graph.ir import Node
from edgekit.lower.openvino.context import Context, Output, lowers

_LIMIT = float(np.finfo(np.float32).max)


def activated(ctx: Context, y: Output, activation: str | None) -> Output:
    """A fused activation, as the operator behind its producer."""
    if activation is None:
        return y
    return ctx.emit("relu", y) if activation == "relu" else ctx.emit("clamp", y, 0.0, 6.0)


@lowers(fused=True)
def relu(ctx: Context, node: Node) -> Output:
    return ctx.emit("relu", ctx.first(node))


@lowers(fused=True)
def relu6(ctx: Context, node: Node) -> Output:
    return ctx.emit("clamp", ctx.first(node), 0.0, 6.0)


@lowers(fused=True)
def hardswish(ctx: Context, node: Node) -> Output:
    return ctx.emit("hswish", ctx.first(node))


@lowers(fused=True)
def hardsigmoid(ctx: Context, node: Node) -> Output:
    return ctx.emit("hsigmoid", ctx.first(node))


@lowers(fused=True)
def sigmoid(ctx: Context, node: Node) -> Output:
    return ctx.emit("sigmoid", ctx.first(node))


@lowers(fused=True)
def silu(ctx: Context, node: Node) -> Output:
    return ctx.emit("swish", ctx.first(node))


@lowers(fused=True)
def gelu(ctx: Context, node: Node) -> Output:
    mode = "tanh" if node.attrs.get("approximate") == "tanh" else "erf"
    return ctx.emit("gelu", ctx.first(node), mode)


@lowers(fused=True)
def tanh(ctx: Context, node: Node) -> Output:
    return ctx.emit("tanh", ctx.first(node))


@lowers(fused=True)
def elu(ctx: Context, node: Node) -> Output:
    return ctx.emit("elu", ctx.first(node), node.attrs.get("alpha", 1.0))


@lowers(fused=True)
def leaky_relu(ctx: Context, node: Node) -> Output:
    return ctx.emit("prelu", ctx.first(node), ctx.numbers([node.attrs["negative_slope"]]))


@lowers()
def prelu(ctx: Context, node: Node) -> Output:
    """The slope is shaped to run along dimension 1."""
    x, slope = node.operands
    rank = len(x.shape)
    shape = (1, slope.shape[0], *(1,) * (rank - 2)) if slope.shape[0] > 1 and rank > 1 else (1,)
    if slope.is_constant:
        return ctx.emit("prelu", ctx.read(x), ctx.parameter(slope, shape))
    return ctx.emit("prelu", ctx.read(x), ctx.emit("reshape", ctx.read(slope), ctx.sizes(shape), False))


@lowers()
def softplus(ctx: Context, node: Node) -> Output:
    return ctx.emit("softplus", ctx.first(node))


@lowers(fused=True)
def mish(ctx: Context, node: Node) -> Output:
    return ctx.emit("mish", ctx.first(node))


@lowers(fused=True)
def clamp(ctx: Context, node: Node) -> Output:
    low, high = node.attrs["low"], node.attrs["high"]
    if node.output.quant is None and ctx.summed_in_place(node.output):
        return ctx.rounded_within(ctx.first(node), low, high)
    return ctx.emit(
        "clamp", ctx.first(node), -_LIMIT if low is None else low, _LIMIT if high is None else high
    )


@lowers()
def softmax(ctx: Context, node: Node) -> Output:
    return ctx.emit("softmax", ctx.first(node), node.attrs["dim"] % len(node.output.shape))
