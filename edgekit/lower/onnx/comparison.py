"""Comparisons, choice and the places of the largest; booleans and int64 stay between two nodes."""

from __future__ import annotations

from edgekit.graph.ir import Node
from edgekit.lower.onnx.context import Context, lowers

_FLOAT, _BOOL = 1, 9  # TensorProto's types


def _compare(ctx: Context, node: Node, op_type: str) -> str:
    return ctx.emit("Cast", ctx.emit(op_type, *ctx.operands(node)), to=_FLOAT)


@lowers()
def greater(ctx: Context, node: Node) -> str:
    return _compare(ctx, node, "Greater")


@lowers()
def greater_equal(ctx: Context, node: Node) -> str:
    return _compare(ctx, node, "GreaterOrEqual")


@lowers()
def equal(ctx: Context, node: Node) -> str:
    return _compare(ctx, node, "Equal")


@lowers()
def where(ctx: Context, node: Node) -> str:
    condition, a, b = ctx.operands(node)
    return ctx.emit("Where", ctx.emit("Cast", condition, to=_BOOL), a, b)


@lowers()
def argmax(ctx: Context, node: Node) -> str:
    attrs = node.attrs
    found = ctx.emit("ArgMax", ctx.first(node), axis=attrs["dim"], keepdims=int(attrs["keepdim"]))
    return ctx.emit("Cast", found, to=_FLOAT)


def _topk(ctx: Context, node: Node) -> list[str]:
    return ctx.emit_many(
        "TopK", ctx.first(node), ctx.shape([node.attrs["k"]]), outputs=2, axis=node.attrs["dim"]
    )


@lowers()
def topk(ctx: Context, node: Node) -> str:
    return _topk(ctx, node)[0]


@lowers()
def topk_indices(ctx: Context, node: Node) -> str:
    return ctx.emit("Cast", _topk(ctx, node)[1], to=_FLOAT)
