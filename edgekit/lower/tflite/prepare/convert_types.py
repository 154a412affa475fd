"""int8 and int16 in one graph: each integer operator reads the type it computes in."""

from __future__ import annotations

from edgekit.graph.boundaries import meet_types
from edgekit.graph.ir import Graph
from edgekit.targets import Target


def convert_types(graph: Graph, target: Target) -> int:
    """Put a conversion in front of operands of the other integer type; returns how many."""
    return meet_types(graph)
