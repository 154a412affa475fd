"""Data movement. Shapes carry the batch as torch's do: -1 in front, or 0, which keeps a dimension."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.graph.ir import Node
from edgekit.lower.onnx.context import Context, lowers
from edgekit.targets import Target

_END = 2**63 - 1


@lowers(integer=True)
def reshape(ctx: Context, node: Node) -> str:
    return ctx.emit("Reshape", ctx.first(node), ctx.shape(node.attrs["shape"]))


@lowers(integer=True)
def permute(ctx: Context, node: Node) -> str:
    rank = len(node.output.shape)
    return ctx.emit("Transpose", ctx.first(node), perm=[d % rank for d in node.attrs["dims"]])


@lowers(integer=True)
def concat(ctx: Context, node: Node) -> str:
    """A piece that does not depend on the input is repeated over an open batch."""
    pieces = []
    for value in node.operands:
        piece = ctx.read(value)
        if ctx.dynamic and value not in ctx.batched and node.attrs["dim"] != 0:
            sizes = ctx.emit("Concat", ctx.batch(), ctx.shape(value.shape[1:]), axis=0)
            piece = ctx.emit("Expand", piece, sizes)
        pieces.append(piece)
    return ctx.emit("Concat", *pieces, axis=node.attrs["dim"])


@lowers(integer=True)
def split(ctx: Context, node: Node) -> list[str]:
    sizes = node.attrs["sizes"]
    return ctx.emit_many(
        "Split", ctx.first(node), ctx.shape(sizes), outputs=len(sizes), axis=node.attrs["dim"]
    )


def sliced(
    ctx: Context, x: str, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int], step: int = 1
) -> str:
    parts = [ctx.shape(starts), ctx.shape(ends), ctx.shape(axes)]
    return ctx.emit("Slice", x, *parts, ctx.shape([step] * len(axes)) if step != 1 else None)


@lowers(integer=True)
def slice_(ctx: Context, node: Node) -> str:
    attrs = node.attrs
    end = min(attrs["end"], _END)
    return sliced(ctx, ctx.first(node), [attrs["start"]], [end], [attrs["dim"]], attrs.get("step", 1))


@lowers()
def gather(ctx: Context, node: Node) -> str:
    return ctx.emit("Gather", ctx.first(node), ctx.shape(node.attrs["indices"]), axis=node.attrs["dim"])


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


def _pad_mode(node: Node, _target: Target) -> str | None:
    mode = node.attrs.get("mode", "constant")
    if mode not in _PAD_MODES:
        return f"padding mode {mode!r}: {', '.join(_PAD_MODES)} are lowered"
    return None


@lowers(check=_pad_mode)
def pad(ctx: Context, node: Node) -> str:
    """Pad; what a negative number takes away is a Slice in front."""
    pads, rank = node.attrs["pads"], len(node.output.shape)
    low, high = [0] * rank, [0] * rank
    for i in range(len(pads) // 2):
        low[rank - 1 - i], high[rank - 1 - i] = pads[2 * i], pads[2 * i + 1]
    x = ctx.first(node)
    cut = [d for d in range(rank) if low[d] < 0 or high[d] < 0]
    if cut:
        starts = [max(-low[d], 0) for d in cut]
        ends = [high[d] if high[d] < 0 else _END for d in cut]
        x = sliced(ctx, x, starts, ends, cut)
    table = ctx.shape([max(n, 0) for n in (*low, *high)])
    mode = _PAD_MODES[node.attrs.get("mode", "constant")]
    fill = ctx.scalar(float(node.attrs.get("value", 0.0))) if mode == "constant" else None
    return ctx.emit("Pad", x, table, fill, mode=mode)


@lowers()
def expand(ctx: Context, node: Node) -> str:
    """Expand; a dimension that stays is 1, which the larger side decides."""
    sizes = [1 if n == -1 else n for n in node.attrs["shape"]]
    if all(n == -1 for n in node.attrs["shape"]):
        return ctx.first(node)
    return ctx.emit("Expand", ctx.first(node), ctx.shape(sizes))


def _regrouped(
    ctx: Context, node: Node, wide: Sequence[int], perm: Sequence[int], sizes: Sequence[int]
) -> str:
    """Reshape, Transpose, Reshape: dimensions behind the batch split up, exchanged and joined again."""
    parts = ctx.emit("Reshape", ctx.first(node), ctx.shape((0, *wide)))
    turned = ctx.emit("Transpose", parts, perm=perm)
    return ctx.emit("Reshape", turned, ctx.shape((0, *sizes)))


@lowers()
def channel_shuffle(ctx: Context, node: Node) -> str:
    _, c, h, w = node.output.shape
    groups = node.attrs["groups"]
    return _regrouped(ctx, node, (groups, c // groups, h, w), (0, 2, 1, 3, 4), (c, h, w))


@lowers()
def pixel_shuffle(ctx: Context, node: Node) -> str:
    return ctx.emit("DepthToSpace", ctx.first(node), blocksize=node.attrs["factor"], mode="CRD")


@lowers()
def pixel_unshuffle(ctx: Context, node: Node) -> str:
    """ONNX's SpaceToDepth puts the pixel's place before the channel, torch behind it."""
    _, c, h, w = node.output.shape
    f = node.attrs["factor"]
    return _regrouped(ctx, node, (c // (f * f), h, f, w, f), (0, 1, 3, 5, 2, 4), (c, h, w))


@lowers()
def roll(ctx: Context, node: Node) -> str:
    """Two slices in exchanged order, one dimension after the other."""
    x = ctx.first(node)
    for shift, dim in zip(node.attrs["shifts"], node.attrs["dims"], strict=True):
        size = node.output.shape[dim]
        cut = -shift % size
        if cut:
            tail = sliced(ctx, x, [cut], [_END], [dim])
            x = ctx.emit("Concat", tail, sliced(ctx, x, [0], [cut], [dim]), axis=dim)
    return x
