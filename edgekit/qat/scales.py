"""Which activations of an annotated graph share a scale, and which scales may learn.

Where an operator only moves numbers and its two sides have equal parameters, they must stay equal: one
parameter for all of them. A scale is fixed where an operator dictates it, at the graph's inputs (callers
quantize by it), of constants, and where int8 meets int16, whose conversions follow from the scales.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.errors import QuantizationError
from edgekit.graph.boundaries import crossings
from edgekit.graph.ir import Graph, Node, QuantParams, Value
from edgekit.graph.ops import MOVES, SAME
from edgekit.quantize import rules


@dataclass(frozen=True)
class Group:
    """Values of equal parameters. learns: whether their scale may change."""

    values: tuple[Value, ...]
    quant: QuantParams
    learns: bool


def groups(graph: Graph) -> list[Group]:
    """The quantized activations of a graph in groups, in program order.

    Raises: QuantizationError for a graph without any.
    """
    values = [value for value in rules.activations(graph) if value.quant is not None]
    if not values:
        raise QuantizationError(f"[qat] {graph.name}: nothing of it is quantized: an annotated graph")
    root = {value: value for value in values}

    def find(value: Value) -> Value:
        while root[value] is not value:
            value = root[value]
        return value

    for node in graph.nodes:
        if node.op not in SAME and node.op not in MOVES:
            continue
        members = [v for v in (*node.outputs, *node.operands) if v in root]
        for other in members[1:]:
            if other.quant == members[0].quant:
                root[find(other)] = find(members[0])
    found: dict[Value, list[Value]] = {}
    for value in values:
        found.setdefault(find(value), []).append(value)
    producers, fixed = graph.producers(), _meeting(graph) | set(graph.inputs)
    result = []
    for members in found.values():
        quant = members[0].quant
        assert quant is not None
        learns = not any(
            value.is_constant or value in fixed or _dictated(value, producers.get(value)) for value in members
        )
        result.append(Group(tuple(members), quant, learns))
    return result


def _dictated(value: Value, node: Node | None) -> bool:
    """Whether a kernel is built for exactly these parameters."""
    if node is None or node.op not in rules.FIXED or value.quant is None:
        return False
    return rules.FIXED[node.op].get(value.quant.dtype) == value.quant


def _meeting(graph: Graph) -> set[Value]:
    """Operands of another integer type than their reader computes in."""
    found = set()
    for node in graph.nodes:
        for index, _ in crossings(node):
            value = node.inputs[index]
            assert value is not None
            found.add(value)
    return found
