"""A float target computes in float, whatever calibration wrote."""

from __future__ import annotations

from edgekit.graph.ir import Graph
from edgekit.targets import Target


def drop_quantization(graph: Graph, target: Target) -> int:
    """Forget every parameter; returns how many there were."""
    count = 0
    for value in graph.values():
        count += value.quant is not None
        value.quant = None
    return count
