"""Pixel shuffles spelled as views: reshape, permute, reshape -> pixel_shuffle or pixel_unshuffle.

reshape (N, c, r, r, H, W), permute (0, 1, 4, 2, 5, 3), reshape (N, c, rH, rW)     -> pixel_shuffle(r)
reshape (N, c, H/r, r, W/r, r), permute (0, 1, 3, 5, 2, 4), reshape (N, crr, ...)  -> pixel_unshuffle(r)
"""

from __future__ import annotations

from edgekit.graph.ir import Graph, Node
from edgekit.passes.rewrite import sole_reader

_SHUFFLE, _UNSHUFFLE = (0, 1, 4, 2, 5, 3), (0, 1, 3, 5, 2, 4)


def recognize_pixel_shuffle(graph: Graph) -> int:
    producers, counts = graph.producers(), graph.use_counts()
    found = 0
    for node in graph.nodes:
        if node.op != "reshape" or len(node.output.shape) != 4:
            continue
        swap = producers.get(node.inputs[0])  # type: ignore[arg-type]
        split = producers.get(swap.inputs[0]) if swap is not None and swap.op == "permute" else None  # type: ignore[arg-type]
        if swap is None or split is None or split.op != "reshape":
            continue
        if not (sole_reader(counts, swap.output) and sole_reader(counts, split.output)):
            continue
        matched = _matched(split, tuple(swap.attrs["dims"]), node)
        if matched is None:
            continue
        op, factor = matched
        node.op, node.inputs, node.attrs = op, [split.inputs[0]], {"factor": factor}
        found += 1
    return found


def _matched(split: Node, dims: tuple[int, ...], join: Node) -> tuple[str, int] | None:
    """(op, factor) that the three movements are, if they are one."""
    x, middle, out = split.inputs[0], split.output.shape, join.output.shape
    if x is None or len(x.shape) != 4 or len(middle) != 6 or x.shape[0] != middle[0]:
        return None
    n, channels, height, width = x.shape
    if dims == _SHUFFLE:
        _, c, r, s, h, w = middle
        if r == s and (h, w) == (height, width) and out == (n, c, h * r, w * r):
            return "pixel_shuffle", r
    if dims == _UNSHUFFLE:
        _, c, h, r, w, s = middle
        if r == s and c == channels and (h * r, w * r) == (height, width) and out == (n, c * r * r, h, w):
            return "pixel_unshuffle", r
    return None
