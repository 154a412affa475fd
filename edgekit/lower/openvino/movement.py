"""Operators that only move numbers."""

from __future__ import annotations

import numpy as np

from edgekit.graph.ir import Node
from edgekit.lower.openvino.context import Context, Output, lowers
from edgekit.targets import Target


@lowers()
def reshape(ctx: Context, node: Node) -> Output:
    """Nothing where the shape stays."""
    x = ctx.first(node)
    if node.operands[0].shape == node.output.shape:
        return x
    return ctx.emit("reshape", x, ctx.sizes(node.attrs["shape"]), False)


@lowers()
def permute(ctx: Context, node: Node) -> Output:
    rank = len(node.output.shape)
    return ctx.emit("transpose", ctx.first(node), ctx.sizes([d % rank for d in node.attrs["dims"]]))


@lowers()
def concat(ctx: Context, node: Node) -> Output:
    """A constant piece is repeated over an open batch."""
    axis = node.attrs["dim"] % len(node.output.shape)
    pieces = []
    for value in node.inputs:
        assert value is not None
        piece = ctx.read(value)
        if ctx.dynamic and axis != 0 and value not in ctx.batched:
            rest = ctx.sizes(value.shape[1:])
            piece = ctx.emit("broadcast", piece, ctx.emit("concat", [ctx.batch(), rest], 0))
        pieces.append(piece)
    return ctx.emit("concat", pieces, axis)


@lowers()
def split(ctx: Context, node: Node) -> list[Output]:
    axis = node.attrs["dim"] % len(node.operands[0].shape)
    return ctx.emit_many(
        "variadic_split", ctx.first(node), np.array(axis, np.int64), ctx.sizes(node.attrs["sizes"])
    )


@lowers()
def slice_(ctx: Context, node: Node) -> Output:
    attrs = node.attrs
    axis = attrs["dim"] % len(node.output.shape)
    numbers = (attrs["start"], attrs["end"], attrs.get("step", 1), axis)
    return ctx.emit("slice", ctx.first(node), *(ctx.sizes([n]) for n in numbers))


@lowers()
def gather(ctx: Context, node: Node) -> Output:
    axis = np.array(node.attrs["dim"] % len(node.output.shape), np.int64)
    return ctx.emit("gather", ctx.first(node), ctx.sizes(node.attrs["indices"]), axis)


def _known_mode(node: Node, target: Target) -> str | None:
    mode = node.attrs.get("mode", "constant")
    if mode in ("constant", "reflect", "replicate"):
        return None
    return f"mode {mode!r}: constant, reflect or replicate"


@lowers(_known_mode)
def pad(ctx: Context, node: Node) -> Output:
    """torch's pairs run from the last dimension."""
    attrs, rank = node.attrs, len(node.output.shape)
    low, high = [0] * rank, [0] * rank
    for i, (before, after) in enumerate(zip(attrs["pads"][::2], attrs["pads"][1::2], strict=True)):
        low[rank - 1 - i], high[rank - 1 - i] = before, after
    mode = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}[attrs.get("mode", "constant")]
    value = ctx.scalar(attrs.get("value") or 0.0) if mode == "constant" else None
    return ctx.emit("pad", ctx.first(node), ctx.sizes(low), ctx.sizes(high), mode, value)


@lowers()
def expand(ctx: Context, node: Node) -> Output:
    sizes = ctx.sizes([1 if size == -1 else size for size in node.attrs["shape"]])
    return ctx.emit("broadcast", ctx.first(node), sizes, broadcast_spec="BIDIRECTIONAL")


@lowers()
def channel_shuffle(ctx: Context, node: Node) -> Output:
    return ctx.emit("shuffle_channels", ctx.first(node), 1, node.attrs["groups"])


@lowers()
def pixel_shuffle(ctx: Context, node: Node) -> Output:
    return ctx.emit("depth_to_space", ctx.first(node), "depth_first", node.attrs["factor"])


@lowers()
def pixel_unshuffle(ctx: Context, node: Node) -> Output:
    return ctx.emit("space_to_depth", ctx.first(node), "depth_first", node.attrs["factor"])


@lowers()
def roll(ctx: Context, node: Node) -> Output:
    attrs = node.attrs
    return ctx.emit("roll", ctx.first(node), ctx.sizes(attrs["shifts"]), ctx.sizes(attrs["dims"]))
