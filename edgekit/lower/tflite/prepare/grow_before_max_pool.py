"""Max-pool over an even size with padding on both sides: let the convolution before it emit one more row.

MAX_POOL_2D knows no such padding. With H + 1 rows its SAME pads one row above and one below, and no window
that is kept reads the additional row: window j of k = 3, s = 2, p = 1 ends at row 2j + 1 <= H - 1. What the
additional row gives is cut off again.
"""

from __future__ import annotations

from edgekit.graph.ir import Graph, Node, Value
from edgekit.lower.tflite.convolution import same_padding
from edgekit.targets import Target


def grow_before_max_pool(graph: Graph, target: Target) -> int:
    """Rewrite conv2d -> max_pool2d pairs whose padding SAME misses by one row or column; returns how many."""
    producers, use_counts = graph.producers(), graph.use_counts()
    count = 0
    for node in list(graph.nodes):
        if node.op != "max_pool2d" or node.attrs.get("ceil_mode") or not any(node.attrs["padding"]):
            continue
        x = node.inputs[0]
        assert x is not None
        conv = producers.get(x)
        if conv is None or conv.op != "conv2d" or use_counts[x] != 1:
            continue
        grow = [_growth(node, i, x.shape[2 + i]) for i in (0, 1)]
        if None in grow or grow == [0, 0]:
            continue
        _apply(graph, conv, node, (grow[0] or 0, grow[1] or 0))
        count += 1
    return count


def _growth(pool: Node, i: int, size: int) -> int | None:
    """Rows to add so that SAME is the pool's own padding; None if one more does not do it."""
    kernel, stride, padding = (pool.attrs[k][i] for k in ("kernel", "stride", "padding"))
    out = pool.output.shape[2 + i]
    for extra in (0, 1):
        rows = size + extra
        before, after = same_padding(rows, kernel, stride)
        covers = (out - 1) * stride + kernel - 1 - padding
        kept_reads_real_rows = covers < size or (extra == 0 and before + after == 2 * padding)
        if before == padding and -(-rows // stride) in (out, out + 1) and kept_reads_real_rows:
            if extra == 0 and -(-rows // stride) != out:
                continue
            return extra
    return None


def _apply(graph: Graph, conv: Node, pool: Node, grow: tuple[int, int]) -> None:
    x, out = conv.output, pool.output
    (sh, sw), (top, bottom, left, right) = conv.attrs["stride"], conv.attrs["padding"]
    needed = []
    for i, (stride, before, after) in enumerate(((sh, top, bottom), (sw, left, right))):
        assert conv.inputs[0] is not None and conv.inputs[1] is not None
        size, kernel = conv.inputs[0].shape[2 + i], conv.inputs[1].shape[2 + i]
        window = (kernel - 1) * conv.attrs["dilation"][i] + 1
        rows = x.shape[2 + i] + grow[i]
        needed.append(max((rows - 1) * stride + window - size - before, 0) if grow[i] else after)
    conv.attrs["padding"] = (top, needed[0], left, needed[1])
    n, c, h, w = x.shape
    x.shape = (n, c, h + grow[0], w + grow[1])
    pooled_shape = list(out.shape)
    for i in (0, 1):
        pooled_shape[2 + i] = -(-x.shape[2 + i] // pool.attrs["stride"][i])
    current = Value(
        graph.fresh_name(f"{out.name}.grown"), tuple(pooled_shape), out.dtype, None, out.range, out.quant
    )
    pool.outputs = [current]
    at = graph.nodes.index(pool) + 1
    dims = [d for d in (2, 3) if current.shape[d] != out.shape[d]]
    for d in dims:
        shape = tuple(out.shape[d] if i == d else s for i, s in enumerate(current.shape))
        if d == dims[-1]:
            result = out
        else:
            result = Value(graph.fresh_name(f"{out.name}.rows"), shape, out.dtype, None, out.range, out.quant)
        attrs = {"dim": d, "start": 0, "end": out.shape[d], "step": 1}
        graph.nodes.insert(at, Node("slice", [current], [result], attrs, pool.source))
        at, current = at + 1, result
