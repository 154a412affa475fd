"""Zeros in weights, where they stand: by magnitude, or two in every four.

A mask makes a file that compresses better; the kernels of the targets multiply by zeros as by anything else,
so no latency is claimed for it. Removing channels is what makes a network faster: see edgekit.prune.

Enters: a graph. Leaves: a new graph with zeros, and the masks, to be applied again after every training step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from edgekit.errors import PruneError
from edgekit.graph.ir import Graph, Value
from edgekit.graph.ops import WEIGHT_AXIS

Tensor = torch.Tensor


@dataclass(frozen=True)
class Sparse:
    """masks: name of a weight -> where it may be other than zero. left: name -> why it stays dense."""

    graph: Graph
    masks: Mapping[str, Tensor]
    left: Mapping[str, str]

    @property
    def zeros(self) -> float:
        """The share of zeros that the masks ask for, of all weights that have one."""
        total = sum(mask.numel() for mask in self.masks.values())
        return 1.0 - sum(int(mask.sum()) for mask in self.masks.values()) / max(1, total)


def magnitude(graph: Graph, share: float, *, per_layer: bool = False) -> Sparse:
    """Zero the smallest `share` of the weights, of all layers together or of each.

    Layers together are compared by weights over the layer's root mean square: else the widest would vanish.
    Raises: PruneError for a share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise PruneError(f"[prune] sparsity {share}: a share of the weights, at least 0 and less than 1")
    weights = _weights(graph)
    sizes = {v: _size(v) for v in weights}
    if per_layer or not weights:
        masks = {v: _largest(sizes[v], share) for v in weights}
    else:
        every = torch.cat([sizes[v].flatten() for v in weights])
        least = _largest(every, share).split([sizes[v].numel() for v in weights])
        masks = {v: kept.view(sizes[v].shape) for v, kept in zip(weights, least, strict=True)}
    return _masked(graph, masks, {})


def two_of_four(graph: Graph) -> Sparse:
    """Of every four input channels in a row that a weight reads, the two of least magnitude are zero there.

    Convolutions and linear layers whose input channels are a multiple of four; the others stay and are named.
    """
    masks: dict[Value, Tensor] = {}
    left: dict[str, str] = {}
    for value in _weights(graph):
        columns = value.shape[1]
        if columns % 4:
            left[value.name] = f"reads {columns} input channels, no multiple of four"
            continue
        quads = _size(value).movedim(1, -1)  # (O, ..., I)
        rank = quads.reshape(-1, 4).argsort(dim=1, stable=True).argsort(1)
        masks[value] = (rank >= 2).reshape(quads.shape).movedim(-1, 1)
    return _masked(graph, masks, left)


def _weights(graph: Graph) -> list[Value]:
    """Constant weights, each once, whose rows are output channels."""
    found = [n.inputs[1] for n in graph.nodes if WEIGHT_AXIS.get(n.op) == 0]
    return list(dict.fromkeys(v for v in found if v is not None and v.is_constant))


def _size(value: Value) -> Tensor:
    assert value.data is not None
    data = value.data.detach().double().abs()
    return data / data.square().mean().sqrt().clamp_min(1e-30)


def _largest(sizes: Tensor, share: float) -> Tensor:
    """True for all but exactly the `share` of smallest numbers; of equal ones the first goes."""
    order = sizes.flatten().argsort(stable=True)
    mask = torch.ones(sizes.numel(), dtype=torch.bool)
    mask[order[: round(share * sizes.numel())]] = False
    return mask.view(sizes.shape)


def _masked(graph: Graph, masks: Mapping[Value, Tensor], left: Mapping[str, str]) -> Sparse:
    made = graph.copy()
    named = {value.name: mask.clone() for value, mask in masks.items()}
    for value in made.constants():
        if value.name in named:
            assert value.data is not None
            value.data = value.data.detach() * named[value.name]
    return Sparse(made, named, dict(left))
