"""Inputs of integers: what the file computes with are the numbers of a grid, whoever reads them."""

from __future__ import annotations

from edgekit.graph.ir import Graph
from edgekit.lower.onnx import constants


def take_integers(graph: Graph) -> int:
    """Put every input that stayed in float on its calibrated grid; returns how many."""
    bare = [value for value in graph.inputs if value.quant is None]
    for value in bare:
        value.quant = constants.input_grid(value)
    return len(bare)
