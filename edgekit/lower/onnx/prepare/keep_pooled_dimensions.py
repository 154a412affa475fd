"""mean over height and width that drops them = the same mean kept, then a reshape.

Runtimes have an integer kernel for the global average pool, not for a reduction.
"""

from __future__ import annotations

from edgekit.graph.ir import Graph, Node, Value
from edgekit.targets import Target


def keep_pooled_dimensions(graph: Graph, target: Target) -> int:
    """Rewrite every such mean; returns how many."""
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes.append(node)
        x = node.operands[0] if node.operands else None
        if node.op != "mean" or x is None or len(x.shape) != 4 or node.attrs["keepdim"]:
            continue
        if sorted(d % 4 for d in node.attrs["dims"]) != [2, 3]:
            continue
        out = node.output
        name = graph.fresh_name(f"{out.name}.pooled")
        pooled = Value(name, (*x.shape[:2], 1, 1), out.dtype, None, out.range, out.quant)
        node.outputs, node.attrs = [pooled], {"dims": (2, 3), "keepdim": True}
        nodes.append(Node("reshape", [pooled], [out], {"shape": (-1, x.shape[1])}, node.source))
    count, graph.nodes = len(nodes) - len(graph.nodes), nodes
    return count
