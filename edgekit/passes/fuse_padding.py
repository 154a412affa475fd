"""pad with zeros, then conv2d or an average pool that counts its border -> padding of the reader.

Does not fire when the padded value has other readers, nor on negative (cropping) or non-spatial pads.
"""

from __future__ import annotations

from edgekit.ir import Graph
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
        if pad.attrs["mode"] != "constant" or pad.attrs["value"] != 0 or len(pads) > 4 or min(pads) < 0:
            continue
        left, right, top, bottom = (*pads, 0, 0)[:4]
        if node.op == "conv2d":
            t, b, l, r = node.attrs["padding"]
            node.attrs["padding"] = (t + top, b + bottom, l + left, r + right)
        elif (
            (top, left) == (bottom, right) and node.attrs["padding"] == (0, 0) and not node.attrs["ceil_mode"]
        ):
            node.attrs["padding"], node.attrs["count_include_pad"] = (top, left), True
        else:
            continue
        node.inputs[0] = pad.inputs[0]
        fused += 1
    return fused
