"""Channel shuffles folded into the weights around them, where they can be: no Transpose, the same numbers."""

from __future__ import annotations

from edgekit.graph.ir import Graph
from edgekit.lower.tflite.prepare.fold_channel_shuffle import fold_channel_shuffle
from edgekit.targets import Target


def fold_shuffle(graph: Graph, target: Target) -> int:
    """Rewrite every channel_shuffle that the weights around it take in; returns how many are gone."""
    return fold_channel_shuffle(graph, target)
