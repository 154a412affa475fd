"""Arithmetic element by element; operands broadcast as in PyTorch."""

from __future__ import annotations

from edgekit.graph.ir import Node
from edgekit.lower.openvino.activation import activated
from edgekit.lower.openvino.context import Context, Output, lowers


def _binary(ctx: Context, node: Node, op: str) -> Output:
    a, b = ctx.operands(node) if len(node.operands) == 2 else ctx.operands(node) * 2
    return activated(ctx, ctx.emit(op, a, b), node.attrs.get("activation"))


@lowers()
def add(ctx: Context, node: Node) -> Output:
    return _binary(ctx, node, "add")


@lowers()
def sub(ctx: Context, node: Node) -> Output:
    return _binary(ctx, node, "subtract")


@lowers()
def mul(ctx: Context, node: Node) -> Output:
    return _binary(ctx, node, "multiply")


@lowers()
def div(ctx: Context, node: Node) -> Output:
    return _binary(ctx, node, "divide")


@lowers()
def maximum(ctx: Context, node: Node) -> Output:
    return _binary(ctx, node, "maximum")


@lowers()
def minimum(ctx: Context, node: Node) -> Output:
    return _binary(ctx, node, "minimum")


@lowers()
def abs_(ctx: Context, node: Node) -> Output:
    return ctx.emit("abs", ctx.first(node))


@lowers()
def neg(ctx: Context, node: Node) -> Output:
    return ctx.emit("negative", ctx.first(node))


@lowers()
def exp(ctx: Context, node: Node) -> Output:
    return ctx.emit("exp", ctx.first(node))


@lowers()
def log(ctx: Context, node: Node) -> Output:
    return ctx.emit("log", ctx.first(node))


@lowers()
def sqrt(ctx: Context, node: Node) -> Output:
    return ctx.emit("sqrt", ctx.first(node))


@lowers()
def rsqrt(ctx: Context, node: Node) -> Output:
    return ctx.emit("divide", ctx.scalar(1.0), ctx.emit("sqrt", ctx.first(node)))


@lowers()
def pow_(ctx: Context, node: Node) -> Output:
    return ctx.emit("power", ctx.first(node), ctx.scalar(node.attrs["exponent"]))


@lowers()
def floor(ctx: Context, node: Node) -> Output:
    return ctx.emit("floor", ctx.first(node))


@lowers()
def ceil(ctx: Context, node: Node) -> Output:
    return ctx.emit("ceiling", ctx.first(node))


@lowers()
def sign(ctx: Context, node: Node) -> Output:
    return ctx.emit("sign", ctx.first(node))


@lowers()
def sin(ctx: Context, node: Node) -> Output:
    return ctx.emit("sin", ctx.first(node))


@lowers()
def cos(ctx: Context, node: Node) -> Output:
    return ctx.emit("cos", ctx.first(node))


@lowers()
def round_(ctx: Context, node: Node) -> Output:
    return ctx.emit("round", ctx.first(node), "half_to_even")
