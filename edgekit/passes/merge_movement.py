"""Chains of reshape and of permute become one; those that change nothing disappear. slice after slice stays.

A reshape that merges into its reader must keep the leading -1 that carries the batch.
"""

from __future__ import annotations

from edgekit.ir import Graph


def merge_movement(graph: Graph) -> int:
    rewrites = 0
    for node in list(graph.nodes):
        if node.op not in ("reshape", "permute", "expand"):
            continue
        x = node.inputs[0]
        assert x is not None
        before = graph.producers().get(x)
        if before is not None and before.op == node.op == "reshape":
            node.inputs[0] = before.inputs[0]
            rewrites += 1
        elif before is not None and before.op == node.op == "permute":
            node.inputs[0] = before.inputs[0]
            node.attrs["dims"] = tuple(before.attrs["dims"][d] for d in node.attrs["dims"])
            rewrites += 1
        x = node.inputs[0]
        assert x is not None
        if x.shape == node.output.shape and (
            node.op != "permute" or node.attrs["dims"] == tuple(range(len(x.shape)))
        ):
            graph.replace_uses(node.output, x)
            graph.nodes.remove(node)
            rewrites += 1
    return rewrites
