"""What only training needs goes: dropout, and how constants follow from parameters."""

from __future__ import annotations

from edgekit.graph.ir import Graph
from edgekit.passes.rewrite import remove_nodes


def drop_training(graph: Graph) -> int:
    """Constants stay as they were computed, under their names."""
    dropped = [node for node in graph.nodes if node.op == "dropout"]
    rewrites = len(dropped) + len(graph.derivations)
    graph.derivations = []
    for node in graph.nodes:
        if node.op == "scaled_dot_product_attention":
            rewrites += node.attrs.pop("dropout", None) is not None
    for node in dropped:
        x = node.inputs[0]
        assert x is not None
        graph.replace_uses(node.output, x)
    remove_nodes(graph, set(dropped))
    return rewrites
