"""Comparisons, choice and the places of the largest; booleans and integers stay between two operators."""

from __future__ import annotations

import numpy as np

from edgekit.graph.ir import Node
from edgekit.lower.openvino.context import Context, Output, lowers


def _compare(ctx: Context, node: Node, op: str) -> Output:
    a, b = ctx.operands(node) if len(node.operands) == 2 else ctx.operands(node) * 2
    return ctx.emit("convert", ctx.emit(op, a, b), "f32")


@lowers()
def greater(ctx: Context, node: Node) -> Output:
    return _compare(ctx, node, "greater")


@lowers()
def greater_equal(ctx: Context, node: Node) -> Output:
    return _compare(ctx, node, "greater_equal")


@lowers()
def equal(ctx: Context, node: Node) -> Output:
    return _compare(ctx, node, "equal")


@lowers()
def where(ctx: Context, node: Node) -> Output:
    condition, a, b = (ctx.read(value) for value in node.inputs if value is not None)
    chosen = ctx.emit("not_equal", condition, ctx.scalar(0.0))
    return ctx.emit("select", chosen, a, b)


def _topk(ctx: Context, node: Node, count: int) -> list[Output]:
    """Sorted by value; of equals the first stands first."""
    axis = node.attrs["dim"] % len(node.operands[0].shape)
    k = ctx.constant(f"{node.output.name}/k", np.array(count, np.int64))
    return ctx.emit_many("topk", ctx.first(node), k, axis, "max", "value", "i32", stable=True)


@lowers()
def argmax(ctx: Context, node: Node) -> Output:
    """The index of a TopK of one: the opset has no ArgMax."""
    found = ctx.emit("convert", _topk(ctx, node, 1)[1], "f32")
    if node.attrs["keepdim"]:
        return found
    return ctx.emit("squeeze", found, ctx.sizes([node.attrs["dim"] % len(node.operands[0].shape)]))


@lowers()
def topk(ctx: Context, node: Node) -> Output:
    return _topk(ctx, node, node.attrs["k"])[0]


@lowers()
def topk_indices(ctx: Context, node: Node) -> Output:
    return ctx.emit("convert", _topk(ctx, node, node.attrs["k"])[1], "f32")
