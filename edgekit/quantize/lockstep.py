"""Run a graph node by node over several batches of images at once.

What is fitted to all images before the next node runs (a bias to the mean of every channel) needs every
image's inputs of one node at a time, and those of all images together may be too large to compute in one go.
Between nodes the batches wait as they came, or as bytes where they are integers and memory asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from edgekit.graph.batch import bytes_per_image
from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.run import finish, walk
from edgekit.quantize.fused import Arguments
from edgekit.quantize.images import Images

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
    waiting: list[list[Tensor]] = []
    sizes: list[int] = []
    for pieces in images.batches(at_once):
        sizes.append(len(pieces[0]))
        waiting.append([start(v, piece) for v, piece in zip(graph.inputs, pieces, strict=True)])
    sources, packs = set(graph.inputs), len(sizes) > 1

    def held(value: Value, tensors: Any) -> list[Tensor]:
        if value.is_constant:
            return [constant(value)] * len(sizes)
        return [_packed(value, t) if packs and value not in sources else t for t in tensors]

    def step(node: Node, args: list[list[Tensor] | None]) -> list[list[Tensor]]:
        batches: list[Arguments] = [
            [
                None if t is None or v is None else _read(v, t[i])
                for v, t in zip(node.inputs, args, strict=True)
            ]
            for i in range(len(sizes))
        ]
        args.clear()
        return [list(column) for column in zip(*apply(node, batches, sizes), strict=True)]

    inputs = [list(column) for column in zip(*waiting, strict=True)]
    del waiting
    steps = walk(graph, inputs, step, held)
    del inputs
    finish(steps)


def _read(value: Value, tensor: Tensor) -> Tensor:
    return tensor if value.is_constant else _unpacked(value, tensor)


def _packed(value: Value, codes: Tensor) -> Tensor:
    """Codes as the integers they stand for; float islands stay as they are."""
    if value.quant is None or value.quant.dtype not in _PACKED:
        return codes
    return (codes + value.quant.zero_point[0]).to(_PACKED[value.quant.dtype])


def _unpacked(value: Value, tensor: Tensor) -> Tensor:
    if tensor.is_floating_point() or value.quant is None:
        return tensor
    return tensor.float() - value.quant.zero_point[0]
