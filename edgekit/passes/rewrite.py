"""What several passes need to edit a graph safely."""

from __future__ import annotations

from collections import Counter

import torch

from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import WEIGHT_AXIS


def sole_reader(counts: Counter[Value], value: Value) -> bool:
    """True when exactly one operand in the whole graph reads `value` and it is not a graph output."""
    return counts[value] == 1


class ConstantNames:
    """Hands out constants and names for one pass, having looked over the graph once."""

    def __init__(self, graph: Graph) -> None:
        self.taken = {v.name for v in graph.values()}
        self.counts = graph.use_counts()

    def new(self, name: str, data: torch.Tensor, replaces: Value | None = None) -> Value:
        """A constant named `name`, or a fresh name when another value holds it.

        replaces: the constant whose place it takes in one node; its name is free again only when that was
            the last reader.
        """
        if replaces is not None:
            self.counts[replaces] -= 1
            if self.counts[replaces] == 0:
                self.taken.discard(replaces.name)
        return Value(self.fresh(name), tuple(data.shape), data=data.detach())

    def fresh(self, stem: str) -> str:
        name, i = stem, 0
        while name in self.taken:
            i += 1
            name = f"{stem}_{i}"
        self.taken.add(name)
        return name


def new_constant(graph: Graph, name: str, data: torch.Tensor, replaces: Value | None = None) -> Value:
    """One constant; a pass that makes many keeps a `ConstantNames`."""
    return ConstantNames(graph).new(name, data, replaces)


def bias_name(weight: Value) -> str:
    """What the bias beside `weight` is called where the layer had none."""
    return ".".join(filter(None, (weight.name.removesuffix("weight").rstrip("."), "bias")))


def keep_annotation(old: Value, new: Value) -> None:
    """`new` stands in for `old`, whose numbers are the same: a scale that a file gave stays."""
    if new.quant is None:
        new.quant, new.range = old.quant, old.range


def remove_nodes(graph: Graph, spent: set[Node]) -> None:
    graph.nodes = [node for node in graph.nodes if node not in spent]


def scalable(node: Node | None) -> bool:
    """Can a scale and a shift of its result move into `node`: constant weights, no activation of its own?"""
    if node is None or node.op not in WEIGHT_AXIS:
        return False
    _x, weight, bias = node.inputs
    if weight is None or not weight.is_constant or not (bias is None or bias.is_constant):
        return False
    return not node.attrs.get("activation")


def per_channel(value: Value | None, channels: int, rank: int = 4) -> torch.Tensor | None:
    """A constant that scales or shifts (N, C, H, W), or (N, C) where rank is 2, per channel.

    Returns: (C,) float64; None for a constant of any other shape.
    """
    if value is None or value.data is None or not value.data.is_floating_point():
        return None
    data = value.data.double()
    if data.numel() == 1:
        return data.reshape(1).expand(channels)
    shape = tuple(data.shape)
    trimmed = shape[1:] if len(shape) == rank and shape[0] == 1 else shape
    return data.reshape(-1) if trimmed == (channels, *[1] * (rank - 2)) else None
