"""Run a graph node by node over several batches of images at once.

What is fitted to all images before the next node runs (a bias to the mean of every channel) needs every
image's inputs of one node at a time, and those of all images together may be too large to compute in one go.
Between nodes the batches wait as they came, or as bytes where they are integers and memory asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from edgekit.graph.ir import Graph, Node, Value
from edgekit.quantize.images import Images, bytes_per_image
from edgekit.quantize.walk import Arguments

Tensor = torch.Tensor
BUDGET_BYTES = 1 << 30  # of tensors alive at the same time
_PACKED = {"int8": torch.int8, "int16": torch.int16}


def fitting_images(graph: Graph, count: int) -> tuple[int, int]:
    """How many of `count` images to use, and how many of them run at once."""
    each = bytes_per_image(graph)
    together = max(1, BUDGET_BYTES // each)
    if together >= count:
        return count, count
    used = max(1, min(count, 4 * BUDGET_BYTES // each))  # they wait as bytes
    return used, max(1, min(used, together // 4))


def lockstep(
    graph: Graph,
    images: Images,
    at_once: int,
    *,
    start: Callable[[Value, Tensor], Tensor],
    constant: Callable[[Value], Tensor],
    apply: Callable[[Node, list[Arguments], list[int]], list[Sequence[Tensor]]],
) -> None:
    """Every node in order, over all images in batches of `at_once`.

    Args:
        start: a graph input as its readers take it. constant: the same of a constant.
        apply: a node, its arguments, one list a batch, and the batches' numbers of images, to its outputs in
            every batch.
    """
    waiting: list[dict[Value, Tensor]] = []
    sizes: list[int] = []
    for pieces in images.batches(at_once):
        sizes.append(len(pieces[0]))
        inputs = zip(graph.inputs, pieces, strict=True)
        waiting.append({value: start(value, piece) for value, piece in inputs})
    packs = len(waiting) > 1
    last_use = {value: i for i, node in enumerate(graph.nodes) for value in node.operands}

    def read(value: Value | None, held: dict[Value, Tensor]) -> Tensor | None:
        if value is None:
            return None
        return constant(value) if value.is_constant else _unpacked(value, held[value])

    for i, node in enumerate(graph.nodes):
        batches: list[Arguments] = [[read(operand, held) for operand in node.inputs] for held in waiting]
        for spent in node.operands:
            if last_use[spent] == i:
                for held in waiting:
                    held.pop(spent, None)
        for held, outputs in zip(waiting, apply(node, batches, sizes), strict=True):
            for value, tensor in zip(node.outputs, outputs, strict=True):
                if value in last_use:
                    held[value] = _packed(value, tensor) if packs else tensor


def _packed(value: Value, codes: Tensor) -> Tensor:
    """Codes as the integers they stand for; float islands stay as they are."""
    if value.quant is None or value.quant.dtype not in _PACKED:
        return codes
    return (codes + value.quant.zero_point[0]).to(_PACKED[value.quant.dtype])


def _unpacked(value: Value, tensor: Tensor) -> Tensor:
    if tensor.is_floating_point() or value.quant is None:
        return tensor
    return tensor.float() - value.quant.zero_point[0]
