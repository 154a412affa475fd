"""pad with zeros, then conv2d or an average pool that counts its border -> padding of the reader.

Does not fire when the padded value has other readers, nor on negative (cropping) or non-spatial pads.
"""

from __future__ import annotations

from edgekit.graph.ir import Graph, Node
from edgekit.passes.rewrite import sole_reader


def fuse_padding(graph: Graph) -> int:
    producers = graph.producers()
    counts = graph.use_counts()
    fused = 0
    for node in graph.nodes:
        if node.op not in ("conv2d", "avg_pool2d"):
            continue
        padded = node.inputs[0]
        assert padded is not None
        pad = producers.get(padded)
        if pad is None or pad.op != "pad" or not sole_reader(counts, padded):
            continue
        pads = pad.attrs["pads"]
        if pad.attrs.get("mode", "constant") != "constant" or pad.attrs.get("value", 0) != 0:
            continue
        if len(pads) > 4 or min(pads) < 0 or len(padded.shape) != 4:
            continue
        left, right, top, bottom = (*pads, 0, 0)[:4]
        if node.op == "conv2d":
            t, b, l, r = node.attrs["padding"]
            node.attrs["padding"] = (t + top, b + bottom, l + left, r + right)
        elif (top, left) == (bottom, right) and _pools_plainly(node, top, left):
            node.attrs["padding"], node.attrs["count_include_pad"] = (top, left), True
        else:
            continue
        node.inputs[0] = pad.inputs[0]
        fused += 1
    return fused


def _pools_plainly(pool: Node, top: int, left: int) -> bool:
    """torch refuses to pad a pool by more than half its window, and ceil_mode counts its border otherwise."""
    if pool.attrs["padding"] != (0, 0) or pool.attrs.get("ceil_mode"):
        return False
    height, width = pool.attrs["kernel"]
    return bool(2 * top <= height and 2 * left <= width)
