"""reshape (N, g, c/g, H, W), permute (0, 2, 1, 3, 4), reshape (N, c, H, W) -> channel_shuffle(groups=g)."""

from __future__ import annotations

from edgekit.graph.ir import Graph
from edgekit.passes.rewrite import sole_reader


def recognize_channel_shuffle(graph: Graph) -> int:
    producers = graph.producers()
    counts = graph.use_counts()
    found = 0
    for node in graph.nodes:
        if node.op != "reshape" or len(node.output.shape) != 4:
            continue
        swap = producers.get(node.inputs[0])  # type: ignore[arg-type]
        if swap is None or swap.op != "permute" or swap.attrs["dims"] != (0, 2, 1, 3, 4):
            continue
        split = producers.get(swap.inputs[0])  # type: ignore[arg-type]
        if split is None or split.op != "reshape":
            continue
        x = split.inputs[0]
        assert x is not None
        groups = split.output.shape[1]
        if x.shape != node.output.shape or split.output.shape[3:] != x.shape[2:]:
            continue
        if split.output.shape[0] != x.shape[0]:
            continue
        if not (sole_reader(counts, swap.output) and sole_reader(counts, split.output)):
            continue
        node.op, node.inputs, node.attrs = "channel_shuffle", [x], {"groups": groups}
        found += 1
    return found
