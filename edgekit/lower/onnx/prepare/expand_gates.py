"""silu(x) = x * sigmoid(x) and hardswish(x) = x * hardsigmoid(x), where both ends are quantized.

ONNX Runtime has integer kernels for both steps and none for the whole, which would run in float between two
conversions.
"""

from __future__ import annotations

from edgekit.graph.ir import Graph, Node, Value
from edgekit.lower import gates
from edgekit.targets import Target

# op -> gate, its function, how much coarser than needed the gate's scale may be: a hardsigmoid's grid must
# end at 1, where it clips
_GATES = {
    "silu": ("sigmoid", gates.sigmoid, 0.01),
    "hardswish": ("hardsigmoid", gates.hardsigmoid, 0.0),
}


def expand_gates(graph: Graph, target: Target) -> int:
    """Rewrite every quantized silu and hardswish; returns how many."""
    nodes: list[Node] = []
    count = 0
    for node in graph.nodes:
        x, out = node.operands[0], node.output
        if node.op not in _GATES or x.quant is None or out.quant is None:
            nodes.append(node)
            continue
        op, function, slack = _GATES[node.op]
        gate = Value(graph.fresh_name(f"{out.name}.gate"), x.shape, x.dtype, None, (0.0, 1.0))
        gate.quant = gates.gate_parameters(x.quant, out.quant, function, slack)
        nodes += [
            Node(op, [x], [gate], {}, node.source),
            Node("mul", [x, gate], [out], {"activation": None}, node.source),
        ]
        count += 1
    graph.nodes = nodes
    return count
