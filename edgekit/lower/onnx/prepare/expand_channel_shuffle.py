"""channel_shuffle = reshape, permute, reshape: three nodes of the file, each with its own parameters."""

from __future__ import annotations

from edgekit.graph.ir import Graph, Node, Value
from edgekit.targets import Target


def expand_channel_shuffle(graph: Graph, target: Target) -> int:
    """Rewrite every channel_shuffle; returns how many."""
    nodes: list[Node] = []
    count = 0
    for node in graph.nodes:
        if node.op != "channel_shuffle":
            nodes.append(node)
            continue
        x, out, groups = node.operands[0], node.output, node.attrs["groups"]
        n, c, h, w = out.shape
        wide = (groups, c // groups, h, w)
        turned = (c // groups, groups, h, w)
        split = _between(graph, out, "split", (n, *wide))
        swapped = _between(graph, out, "swapped", (n, *turned))
        nodes += [
            Node("reshape", [x], [split], {"shape": (-1, *wide)}, node.source),
            Node("permute", [split], [swapped], {"dims": (0, 2, 1, 3, 4)}, node.source),
            Node("reshape", [swapped], [out], {"shape": (-1, c, h, w)}, node.source),
        ]
        count += 1
    graph.nodes = nodes
    return count


def _between(graph: Graph, out: Value, part: str, shape: tuple[int, ...]) -> Value:
    return Value(graph.fresh_name(f"{out.name}.{part}"), shape, out.dtype, None, out.range, out.quant)
