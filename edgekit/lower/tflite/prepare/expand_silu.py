"""silu(x) = x * sigmoid(x), so that the sigmoid is one table and the product one integer MUL."""

from __future__ import annotations

from edgekit.graph.ir import Graph, Node, Value
from edgekit.lower.gates import gate_parameters
from edgekit.targets import Target


def expand_silu(graph: Graph, target: Target) -> int:
    """Rewrite every silu into sigmoid and mul; returns how many."""
    nodes: list[Node] = []
    taken = {value.name for value in graph.values()}
    count = 0
    for node in graph.nodes:
        if node.op != "silu":
            nodes.append(node)
            continue
        x, out = node.inputs[0], node.output
        assert x is not None
        name = f"{out.name}.gate"
        while name in taken:
            name += "_1"
        taken.add(name)
        gate = Value(name, x.shape)
        if x.quant is not None and out.quant is not None:
            gate.quant = gate_parameters(x.quant, out.quant)
            gate.range = (0.0, 1.0)
        sigmoid = Node("sigmoid", [x], [gate], {}, node.source)
        nodes += [sigmoid, Node("mul", [x, gate], [out], {"activation": None}, node.source)]
        count += 1
    graph.nodes = nodes
    return count
