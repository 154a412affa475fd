"""Constants that follow from parameters: position tables, layer scales, standardized weights.

The program reads them as constants, so that nothing but training needs to know. `Graph.derivations` says how
each is computed. A constant that was changed since (pruned, refitted) no longer follows: it is a parameter
itself then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.run import run_node

_TOLERANCE = 1e-5  # of the largest value


def derive(nodes: Sequence[Node], read: Callable[[Value], torch.Tensor]) -> dict[Value, torch.Tensor]:
    """Every result of derivations, from the parameters that `read` gives."""
    made: dict[Value, torch.Tensor] = {}
    for node in nodes:
        args = [None if v is None else made[v] if v in made else read(v) for v in node.inputs]
        made.update(zip(node.outputs, run_node(node, args), strict=True))
    return made


def holding(graph: Graph) -> list[Node]:
    """The derivations of constants that the program reads and that are still what is derived."""
    statistics = {value for node in graph.nodes if node.op == "batch_norm" for value in node.inputs[3:5]}
    with torch.no_grad():
        made = derive(graph.derivations, _stored)
    needed = {value for value in graph.constants() if value in made and value not in statistics}
    needed = {value for value in needed if equal(made[value], _stored(value))}
    kept = []
    for node in reversed(graph.derivations):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(node.operands)
    return kept[::-1]


def equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """To rounding."""
    if a.shape != b.shape:
        return False
    return not a.numel() or bool((a - b).abs().max() <= _TOLERANCE * b.abs().max())


def _stored(value: Value) -> torch.Tensor:
    assert value.data is not None, value
    return value.data
