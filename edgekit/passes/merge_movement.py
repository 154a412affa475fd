"""Chains of reshape and of permute become one; those that change nothing disappear. slice after slice stays.

A reshape that merges into its reader must keep the leading -1 that carries the batch.
"""

from __future__ import annotations

from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import VIEWS
from edgekit.passes.rewrite import keep_annotation, remove_nodes


def merge_movement(graph: Graph) -> int:
    rewrites = 0
    producers = graph.producers()
    replaced: dict[Value, Value] = {}
    spent: set[Node] = set()
    for node in list(graph.nodes):
        if node.op not in VIEWS and node.op != "expand":
            continue
        x = node.inputs[0]
        assert x is not None
        x = node.inputs[0] = replaced.get(x, x)
        before = producers.get(x)
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
            keep_annotation(node.output, x)
            replaced[node.output] = x
            spent.add(node)
            rewrites += 1
    remove_nodes(graph, spent)
    for node in graph.nodes if replaced else ():
        node.inputs = [v and replaced.get(v, v) for v in node.inputs]
    graph.outputs = [replaced.get(v, v) for v in graph.outputs]
    return rewrites
