"""Images in a graph: which dimension of each value counts them, and what one takes."""

from __future__ import annotations

import math

import torch

from edgekit.graph.ir import Graph, Value
from edgekit.graph.run import run


def batch_dims(graph: Graph) -> dict[Value, int | None]:
    """Which dimension of each value grows with the number of images; None where none does."""
    if not graph.batchable:
        return {value: 0 for value in graph.values() if not value.is_constant}
    found: dict[Value, int | None] = {}

    def record(value: Value, tensor: torch.Tensor) -> torch.Tensor:
        sizes = enumerate(zip(value.shape, tensor.shape, strict=True))
        found[value] = next((dim for dim, (one, two) in sizes if one != two), None)
        return tensor.to("meta")

    run(graph, [torch.empty((2, *value.shape[1:]), device="meta") for value in graph.inputs], record)
    return {value: dim for value, dim in found.items() if not value.is_constant}


def bytes_of_all_values(graph: Graph) -> int:
    """What every value of one image takes together, as float32."""
    return sum(4 * math.prod(value.shape) for value in graph.values() if not value.is_constant)


def bytes_per_image(graph: Graph) -> int:
    """The most that values of one image take at the same time, as float32."""
    last_use = {value: i for i, node in enumerate(graph.nodes) for value in node.operands}
    alive, most = sum(_bytes(value) for value in graph.inputs), 1
    for i, node in enumerate(graph.nodes):
        alive += sum(map(_bytes, node.outputs))
        most = max(most, alive)
        spent = {value for value in (*node.operands, *node.outputs) if last_use.get(value, i) == i}
        alive -= sum(map(_bytes, spent))
    return most


def _bytes(value: Value) -> int:
    return 0 if value.is_constant else 4 * math.prod(value.shape)
