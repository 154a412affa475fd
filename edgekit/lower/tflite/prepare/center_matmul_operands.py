"""The second operand of a quantized matrix product gets zero point 0: the delegate takes no other.

The operand usually reaches the product through permutes and slices that share its parameters, so the whole
group is given the symmetric parameters that cover its range, up to the linear layer that may choose them
freely. A group with a member that may not is left alone, and its product runs off the delegate.
"""

from __future__ import annotations

import numpy as np

from edgekit.graph.ir import Graph, Node, QuantParams, Value
from edgekit.graph.ops import MOVES, OPS, Free
from edgekit.targets import Target


def center_matmul_operands(graph: Graph, target: Target) -> int:
    """Make int8 groups that end in a matmul's second operand symmetric; returns how many."""
    producers, users = graph.producers(), graph.users()
    count = 0
    for node in list(graph.nodes):
        b = node.inputs[1] if node.op == "matmul" else None
        if b is None or b.quant is None or b.quant.zero_point == (0,) or node.output.quant is None:
            continue
        quant = _symmetric(b.quant, b.range)
        if b.is_constant:  # rounded once, to these parameters; other readers keep theirs
            name = graph.fresh_name(f"{b.name}.centred")
            node.inputs[1] = Value(name, b.shape, b.dtype, b.data, b.range, quant)
            count += 1
            continue
        group = _group(b, producers, users)
        if all(_may_choose(producers.get(value)) for value in group):
            for value in group:
                value.quant = quant
        else:
            _requantize(graph, node, b, quant)
        count += 1
    return count


def _may_choose(producer: Node | None) -> bool:
    return producer is not None and (producer.op in MOVES or isinstance(OPS[producer.op].ranges, Free))


def _requantize(graph: Graph, node: Node, operand: Value, quant: QuantParams) -> None:
    centred = Value(
        graph.fresh_name(f"{operand.name}.centred"), operand.shape, operand.dtype, None, operand.range, quant
    )
    attrs = {"shape": (-1, *operand.shape[1:])}
    graph.nodes.insert(graph.nodes.index(node), Node("reshape", [operand], [centred], attrs, node.source))
    node.inputs[1] = centred


def _group(start: Value, producers: dict[Value, Node], users: dict[Value, list[Node]]) -> list[Value]:
    """Every value that must share the parameters of `start`."""
    found: dict[Value, None] = {}
    waiting = [start]
    while waiting:
        value = waiting.pop()
        if value in found:
            continue
        found[value] = None
        nodes = [n for n in (producers.get(value), *users.get(value, [])) if n is not None and n.op in MOVES]
        waiting += [v for n in nodes for v in (*n.operands, *n.outputs) if v.quant == start.quant]
    return list(found)


def _symmetric(quant: QuantParams, bounds: tuple[float, float] | None) -> QuantParams:
    zero, scale = quant.zero_point[0], quant.scale[0]
    low, high = bounds or ((-128 - zero) * scale, (127 - zero) * scale)
    return QuantParams((float(np.float32(max(-low, high) / 127.0)),), (0,), quant.dtype)
