"""Ops that only move data: most vanish into the layout, the rest keep the quantization of what they move."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.graph.ir import Node, QuantParams, Value
from edgekit.lower.tflite import layout
from edgekit.lower.tflite.builder import Tensor
from edgekit.lower.tflite.context import NHWC, Context, lowers
from edgekit.lower.tflite.layout import Perm
from edgekit.targets import Target

MOST_JOINED = 5  # pieces of a CONCATENATION that the delegate takes


def moved(ctx: Context, node: Node, i: int = 0, perm: Perm | None = None) -> Tensor:
    """Operand `i` with the quantization of the node's result, so that moving it is all there is to do."""
    value = node.inputs[i]
    assert value is not None
    return ctx.read_as(value, node.output.quant, perm if perm is not None else ctx.perm(value))


@lowers()
def permute(ctx: Context, node: Node) -> None:
    value = node.inputs[0]
    assert value is not None
    ctx.alias(node.output, moved(ctx, node), layout.permuted(ctx.perm(value), node.attrs["dims"]))


@lowers()
def reshape(ctx: Context, node: Node) -> None:
    value = node.inputs[0]
    assert value is not None
    before, after = value.shape, node.output.shape
    perm = ctx.perm(value)
    found = layout.reshaped(before, after, perm)
    if found is None:
        perm = layout.identity(len(before))
        found = layout.reshaped(before, after, perm) or layout.identity(len(after))
    x = moved(ctx, node, 0, perm)
    if layout.apply(found, after) == x.shape:
        ctx.alias(node.output, x, found)
        return
    ctx.reshape(x, ctx.write(node.output, found, integer=True))


@lowers()
def concat(ctx: Context, node: Node) -> None:
    """CONCATENATION; what an earlier one already joined is taken as one piece, and more than five pieces are
    joined five at a time, since only so many are delegated.
    """
    values = [v for v in node.inputs if v is not None]
    perm = ctx.preferred(*values)
    axis = perm.index(node.attrs["dim"] % len(node.output.shape))
    pieces = [ctx.read_as(v, node.output.quant, perm) for v in values]
    whole = (axis, *pieces)
    for count in range(len(pieces) - 1, 1, -1):
        if (axis, *pieces[:count]) in ctx.joined:
            pieces = [ctx.joined[axis, *pieces[:count]], *pieces[count:]]
            break
    if len(pieces) == 1:
        ctx.alias(node.output, pieces[0], perm)
        return
    result = ctx.write(node.output, perm, integer=True)
    ctx.joined[whole] = result
    options = schema.ConcatenationOptionsT(axis=axis)
    while len(pieces) > MOST_JOINED:
        head = pieces[:MOST_JOINED]
        shape = list(head[0].shape)
        shape[axis] = sum(p.shape[axis] for p in head)
        part = ctx.like(result, f"{node.output.name}/part", tuple(shape))
        ctx.emit("CONCATENATION", list(head), [part], options)
        pieces = [part, *pieces[MOST_JOINED:]]
    ctx.emit("CONCATENATION", list(pieces), [result], options)


@lowers()
def split(ctx: Context, node: Node) -> None:
    """SPLIT for up to four equal pieces, a SLICE a piece otherwise, also where pieces differ in type."""
    value = node.inputs[0]
    assert value is not None
    perm = ctx.perm(value)
    axis = perm.index(node.attrs["dim"] % len(value.shape))
    grids = dict.fromkeys(out.quant for out in node.outputs)
    sources = {quant: ctx.read_as(value, quant, perm) for quant in grids}
    sizes = [out.shape[perm[axis]] for out in node.outputs]
    if len(set(sizes)) == 1 and len(sizes) <= 4 and len(sources) == 1:
        (x,) = sources.values()
        results = [ctx.write(out, perm, integer=True) for out in node.outputs]
        options = schema.SplitOptionsT(numSplits=len(sizes))
        ctx.emit("SPLIT", [ctx.constant("axis", np.array(axis, np.int32)), x], results, options)
        return
    start = 0
    for out, size in zip(node.outputs, sizes, strict=True):
        if ctx.use_counts[out] or out in ctx.exposed:
            begin = [0] * len(perm)
            begin[axis] = start
            emit_slice(ctx, sources[out.quant], begin, ctx.write(out, perm, integer=True))
        start += size


def emit_slice(ctx: Context, x: Tensor, begin: list[int], result: Tensor) -> None:
    operands = [
        ctx.constant("begin", np.array(begin, np.int32)),
        ctx.constant("size", np.array(result.shape, np.int32)),
    ]
    ctx.emit("SLICE", [x, *operands], [result], schema.SliceOptionsT())


@lowers()
def slice_(ctx: Context, node: Node) -> None:
    """SLICE, STRIDED_SLICE for a step; a run of slices that nothing else reads is taken as one."""
    if _only_read_by_slice(ctx, node):
        return
    value = node.inputs[0]
    begin: dict[int, int] = {}
    assert value is not None
    current: Node = node
    while True:
        dim = current.attrs["dim"] % len(current.output.shape)
        source = current.inputs[0]
        assert source is not None
        start, size = current.attrs["start"], source.shape[dim]
        start = max(start + size, 0) if start < 0 else min(start, size)
        begin[dim] = begin.get(dim, 0) + start
        value = source
        previous = ctx.producers.get(source)
        if previous is None or previous.op != "slice" or not _only_read_by_slice(ctx, previous):
            break
        current = previous
    perm = ctx.perm(value)
    x = ctx.read_as(value, node.output.quant, perm)
    result = ctx.write(node.output, perm, integer=True)
    starts = [begin.get(d, 0) for d in perm]
    step = node.attrs.get("step", 1)
    if step == 1:
        emit_slice(ctx, x, starts, result)
        return
    axis = perm.index(node.attrs["dim"] % len(node.output.shape))
    emit_strided(ctx, x, axis, starts, step, result)


def emit_strided(ctx: Context, x: Tensor, axis: int, begin: list[int], step: int, result: Tensor) -> None:
    """Every `step`-th entry of one axis: where the size divides, the axis is cut into rows of `step`
    entries and one contiguous SLICE taken, since STRIDED_SLICE is not delegated.
    """
    size, count = x.shape[axis], result.shape[axis]
    offset = begin[axis] % step
    if size % step == 0 and count == size // step and begin[axis] == offset:
        outer = int(np.prod(x.shape[:axis]))
        inner = int(np.prod(x.shape[axis + 1 :]))
        rows = ctx.like(x, f"{result.name}/rows", (outer, count, step * inner))
        taken = ctx.like(x, f"{result.name}/taken", (outer, count, inner))
        ctx.reshape(x, rows)
        emit_slice(ctx, rows, [0, 0, offset * inner], taken)
        ctx.reshape(taken, result)
        return
    strides = [step if i == axis else 1 for i in range(len(begin))]
    ends = [s + (n - 1) * k + 1 for s, n, k in zip(begin, result.shape, strides, strict=True)]
    operands = [
        ctx.constant(name, np.array(data, np.int32))
        for name, data in (("begin", begin), ("end", ends), ("strides", strides))
    ]
    ctx.emit("STRIDED_SLICE", [x, *operands], [result], schema.StridedSliceOptionsT())


def _only_read_by_slice(ctx: Context, node: Node) -> bool:
    """Whether this slice is one step of a longer one that `slice_` emits at its end."""
    if ctx.use_counts[node.output] != 1 or node.attrs.get("step", 1) != 1 or node.output in ctx.graph.outputs:
        return False
    readers = ctx.users.get(node.output, [])
    return (
        len(readers) == 1
        and readers[0].op == "slice"
        and readers[0].attrs.get("step", 1) == 1
        and node.output.quant == readers[0].output.quant
        and node.output not in ctx.exposed
    )


def _pad_fits(node: Node, _target: Target) -> str | None:
    if min(node.attrs["pads"]) < 0 and node.attrs.get("mode", "constant") != "constant":
        return "negative padding by reflection: constant padding may be negative"
    if node.attrs.get("mode", "constant") not in ("constant", "reflect"):
        return f"pad mode {node.attrs['mode']!r}: constant and reflect are lowered"
    return None


@lowers(check=_pad_fits)
def pad(ctx: Context, node: Node) -> None:
    """PAD with zeros, PADV2 with another number, MIRROR_PAD for reflection."""
    value = node.inputs[0]
    assert value is not None
    perm, rank = ctx.perm(value), len(value.shape)
    x = moved(ctx, node)
    by_dim = {
        rank - 1 - i: node.attrs["pads"][2 * i : 2 * i + 2] for i in range(len(node.attrs["pads"]) // 2)
    }
    by_axis = [by_dim.get(d, (0, 0)) for d in perm]
    if min(node.attrs["pads"]) < 0:  # negative padding cuts off
        begin = [max(-low, 0) for low, _ in by_axis]
        cut = [n - b - max(-high, 0) for n, b, (_, high) in zip(x.shape, begin, by_axis, strict=True)]
        inner = ctx.like(x, f"{node.output.name}/cut", tuple(cut))
        emit_slice(ctx, x, begin, inner)
        x = inner
    result = ctx.write(node.output, perm, integer=True)
    number = node.attrs.get("value", 0.0)
    reflects = node.attrs.get("mode", "constant") == "reflect"
    if reflects and 0 < max(sum(pads) for pads in by_axis) < MOST_JOINED and min(node.attrs["pads"]) >= 0:
        _reflect(ctx, x, by_axis, result)
        return
    table = ctx.constant("paddings", np.array(by_axis, np.int32).clip(min=0))
    if reflects:
        options = schema.MirrorPadOptionsT(mode=schema.MirrorPadMode.REFLECT)
        ctx.emit("MIRROR_PAD", [x, table], [result], options)
    elif number == 0.0:
        ctx.emit("PAD", [x, table], [result], schema.PadOptionsT())
    else:
        ctx.emit("PADV2", [x, table, filler(ctx, number, result.quant)], [result], schema.PadV2OptionsT())


def _reflect(ctx: Context, x: Tensor, by_axis: list[tuple[int, int]], result: Tensor) -> None:
    """Reflection by a row or two: slices joined to the picture, which the delegate takes, and no MIRROR_PAD.

    Row i of the border is row i of the picture, counted from its edge, which is not repeated.
    """
    axes = [axis for axis, pads in enumerate(by_axis) if any(pads)]
    for axis in axes:
        before, after = by_axis[axis]
        size = x.shape[axis]
        rows = [*range(before, 0, -1), None, *range(size - 2, size - 2 - after, -1)]
        pieces: list[Tensor | None] = [x if row is None else _row(ctx, x, axis, row) for row in rows]
        shape = tuple(n + (before + after) * (i == axis) for i, n in enumerate(x.shape))
        joined = result if axis == axes[-1] else ctx.like(x, f"{result.name}/rows", shape)
        ctx.emit("CONCATENATION", pieces, [joined], schema.ConcatenationOptionsT(axis=axis))
        x = joined


def _row(ctx: Context, x: Tensor, axis: int, row: int) -> Tensor:
    begin = [row if i == axis else 0 for i in range(len(x.shape))]
    piece = ctx.like(x, f"{x.name}/row", tuple(1 if i == axis else n for i, n in enumerate(x.shape)))
    emit_slice(ctx, x, begin, piece)
    return piece


def filler(ctx: Context, number: float, quant: QuantParams | None) -> Tensor:
    """A scalar constant in the type of a tensor with these parameters."""
    data = np.array([number], np.float32)
    if quant is None:
        return ctx.constant("filler", data)
    low, high = (-128, 127) if quant.dtype == "int8" else (-32768, 32767)
    integer = np.clip(np.rint(data.astype(np.float64) / quant.scale[0]) + quant.zero_point[0], low, high)
    return ctx.constant("filler", integer.astype(quant.dtype), quant)


@lowers()
def expand(ctx: Context, node: Node) -> None:
    """BROADCAST_TO, or nothing when the shape stays."""
    value = node.inputs[0]
    assert value is not None
    x, perm = moved(ctx, node), ctx.perm(value)
    missing = len(node.output.shape) - len(value.shape)
    if missing:
        x = ctx.read_as(value, node.output.quant, layout.identity(len(value.shape)))
        wide = ctx.like(x, f"{value.name}/broadcast", (1,) * missing + value.shape)
        ctx.reshape(x, wide)
        x, perm = wide, layout.identity(len(node.output.shape))
    if x.shape == layout.apply(perm, node.output.shape):
        ctx.alias(node.output, x, perm)
        return
    result = ctx.write(node.output, perm, integer=True)
    shape = ctx.constant("shape", np.array(result.shape, np.int32))
    ctx.emit("BROADCAST_TO", [x, shape], [result], schema.BroadcastToOptionsT())


@lowers()
def gather(ctx: Context, node: Node) -> None:
    """GATHER: the listed entries of one stored dimension."""
    value = node.inputs[0]
    assert value is not None
    x, perm = moved(ctx, node), ctx.perm(value)
    axis = perm.index(node.attrs["dim"] % len(value.shape))
    indices = ctx.constant("indices", np.array(node.attrs["indices"], np.int32))
    ctx.emit(
        "GATHER", [x, indices], [ctx.write(node.output, perm, integer=True)], schema.GatherOptionsT(axis=axis)
    )


@lowers()
def roll(ctx: Context, node: Node) -> None:
    """Each shifted dimension: two SLICEs, swapped by a CONCATENATION."""
    value = node.inputs[0]
    assert value is not None
    x, perm, rank = moved(ctx, node), ctx.perm(value), len(value.shape)
    shifts = [(perm.index(d % rank), s % value.shape[d]) for s, d in zip(*_pairs(node), strict=True)]
    shifts = [(axis, s) for axis, s in shifts if s]
    if not shifts:
        ctx.alias(node.output, x, perm)
        return
    result = ctx.write(node.output, perm, integer=True)
    for i, (axis, shift) in enumerate(shifts):
        cut = x.shape[axis] - shift
        halves = []
        for start, size in ((cut, shift), (0, cut)):
            shape, begin = list(x.shape), [0] * rank
            shape[axis], begin[axis] = size, start
            halves.append(ctx.like(x, f"{node.output.name}/half", tuple(shape)))
            emit_slice(ctx, x, begin, halves[-1])
        joined = result if i == len(shifts) - 1 else ctx.like(x, f"{node.output.name}/rolled")
        ctx.emit("CONCATENATION", list(halves), [joined], schema.ConcatenationOptionsT(axis=axis))
        x = joined


def _pairs(node: Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(node.attrs["shifts"]), tuple(node.attrs["dims"])


@lowers()
def channel_shuffle(ctx: Context, node: Node) -> None:
    """RESHAPE, TRANSPOSE, RESHAPE; `prepare` folds away those between convolutions."""
    value = node.inputs[0]
    assert value is not None
    groups = node.attrs["groups"]
    x = moved(ctx, node, 0, NHWC)
    n, h, w, c = x.shape
    grouped = ctx.like(x, f"{node.output.name}/groups", (n, h, w, groups, c // groups))
    turned = ctx.like(x, f"{node.output.name}/groups", (n, h, w, c // groups, groups))
    ctx.reshape(x, grouped)
    ctx.transpose(grouped, turned, (0, 1, 2, 4, 3), value.name)
    ctx.reshape(turned, ctx.write(node.output, NHWC, integer=True))


def _regroup(ctx: Context, x: Tensor, c: int, factor: int, *, to_torch: bool, cause: Value) -> Tensor:
    """Channels from torch's order (c, fy, fx) to the runtime's (fy, fx, c), or back."""
    n, h, w, _ = x.shape
    f2 = factor * factor
    if c == 1:
        return x
    inner = (f2, c) if to_torch else (c, f2)
    a = ctx.like(x, f"{cause.name}/blocks", (n, h, w, *inner))
    b = ctx.like(x, f"{cause.name}/blocks", (n, h, w, *inner[::-1]))
    result = ctx.like(x, f"{cause.name}/blocks")
    ctx.reshape(x, a)
    ctx.transpose(a, b, (0, 1, 2, 4, 3), cause.name)
    ctx.reshape(b, result)
    return result


@lowers()
def pixel_shuffle(ctx: Context, node: Node) -> None:
    """DEPTH_TO_SPACE, whose channels come in the order (fy, fx, c)."""
    value, factor = node.inputs[0], node.attrs["factor"]
    assert value is not None
    integer = ctx.computes_in(node) != "int16"  # neither operator takes int16
    x = ctx.read_as(value, node.output.quant if integer else None, NHWC)
    x = _regroup(ctx, x, node.output.shape[1], factor, to_torch=False, cause=node.output)
    result = ctx.write(node.output, NHWC, integer=integer)
    ctx.emit("DEPTH_TO_SPACE", [x], [result], schema.DepthToSpaceOptionsT(blockSize=factor))


@lowers()
def pixel_unshuffle(ctx: Context, node: Node) -> None:
    """SPACE_TO_DEPTH, whose channels come in the order (fy, fx, c)."""
    value, factor = node.inputs[0], node.attrs["factor"]
    assert value is not None
    x = ctx.read_as(value, None if ctx.computes_in(node) == "int16" else node.output.quant, NHWC)
    n, c, h, w = node.output.shape
    blocks = ctx.like(x, f"{node.output.name}/blocks", (n, h, w, c))
    ctx.emit("SPACE_TO_DEPTH", [x], [blocks], schema.SpaceToDepthOptionsT(blockSize=factor))
    torch_order = _regroup(ctx, blocks, value.shape[1], factor, to_torch=True, cause=node.output)
    if node.output.quant is not None and torch_order.dtype == "float32":
        torch_order = ctx.quantized(torch_order, node.output.quant)
    ctx.alias(node.output, torch_order, NHWC)
