"""Arithmetic of one or two tensors; ONNX broadcasts as torch does."""

from __future__ import annotations

from edgekit.graph.ir import Node
from edgekit.lower.onnx.activation import activated
from edgekit.lower.onnx.context import Context, lowers


def _binary(ctx: Context, node: Node, op_type: str) -> str:
    return activated(ctx, node, ctx.emit(op_type, *ctx.operands(node)))


@lowers(integer=True)
def add(ctx: Context, node: Node) -> str:
    return _binary(ctx, node, "Add")


@lowers()
def sub(ctx: Context, node: Node) -> str:
    return _binary(ctx, node, "Sub")


@lowers(integer=True)
def mul(ctx: Context, node: Node) -> str:
    return _binary(ctx, node, "Mul")


@lowers()
def div(ctx: Context, node: Node) -> str:
    return _binary(ctx, node, "Div")


@lowers()
def maximum(ctx: Context, node: Node) -> str:
    return _binary(ctx, node, "Max")


@lowers()
def minimum(ctx: Context, node: Node) -> str:
    return _binary(ctx, node, "Min")


@lowers()
def abs_(ctx: Context, node: Node) -> str:
    return ctx.emit("Abs", ctx.first(node))


@lowers()
def neg(ctx: Context, node: Node) -> str:
    return ctx.emit("Neg", ctx.first(node))


@lowers()
def exp(ctx: Context, node: Node) -> str:
    return ctx.emit("Exp", ctx.first(node))


@lowers()
def log(ctx: Context, node: Node) -> str:
    return ctx.emit("Log", ctx.first(node))


@lowers()
def sqrt(ctx: Context, node: Node) -> str:
    return ctx.emit("Sqrt", ctx.first(node))


@lowers()
def rsqrt(ctx: Context, node: Node) -> str:
    return ctx.emit("Reciprocal", ctx.emit("Sqrt", ctx.first(node)))


@lowers()
def pow_(ctx: Context, node: Node) -> str:
    return ctx.emit("Pow", ctx.first(node), ctx.scalar(float(node.attrs["exponent"])))


@lowers()
def floor(ctx: Context, node: Node) -> str:
    return ctx.emit("Floor", ctx.first(node))


@lowers()
def ceil(ctx: Context, node: Node) -> str:
    return ctx.emit("Ceil", ctx.first(node))


@lowers()
def round_(ctx: Context, node: Node) -> str:
    return ctx.emit("Round", ctx.first(node))


@lowers()
def sign(ctx: Context, node: Node) -> str:
    return ctx.emit("Sign", ctx.first(node))


@lowers()
def sin(ctx: Context, node: Node) -> str:
    return ctx.emit("Sin", ctx.first(node))


@lowers()
def cos(ctx: Context, node: Node) -> str:
    return ctx.emit("Cos", ctx.first(node))
