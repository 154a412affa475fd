"""The oracle of every cut: the original, with what was removed masked where it is summed over.

It knows tags and classes, nothing of places or rewritten attributes. Statistics over channels are taken over
those that are kept.

Enters: an analysis and units. Leaves: a function of the graph's inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch

from edgekit.graph.channels import STATISTICS, depthwise
from edgekit.graph.channels.atoms import Tag, varying
from edgekit.graph.ir import Node, Value
from edgekit.graph.ops import OPS
from edgekit.graph.run import run, run_node
from edgekit.prune.groups import Analysis

Tensor = torch.Tensor


def masked(analysis: Analysis, removed: Collection[int]) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    """The function that `cut` must compute: takes and gives what `graph.run.run` does."""
    coupling = analysis.coupling
    alive = np.ones(int(coupling.labels.max()) + 1, bool)
    alive[list(analysis.complete(removed))] = False

    def kept(tag: Tag) -> Tensor:
        return torch.from_numpy(alive[coupling.labels[tag]])

    def present(value: Value, tensor: Tensor) -> Tensor:
        tag = coupling.tags.get(value)
        if tag is None or not varying(tag):
            return tensor
        return torch.where(kept(tag), tensor, torch.zeros((), dtype=tensor.dtype))

    def apply(node: Node, args: list[Tensor | None]) -> Sequence[Tensor]:
        kind = OPS[node.op].channels
        sums = (kind == "weigh" and not depthwise(node)) or kind == "product" or node.op == "sum"
        if sums:
            args = [
                None if v is None or t is None else present(v, t)
                for v, t in zip(node.inputs, args, strict=True)
            ]
        if kind == "normalize":
            return [_normalized(node, args, coupling.tags[node.output], kept)]
        if node.op in STATISTICS and not varying(coupling.tags[node.output]):
            x = node.operands[0]
            there = kept(coupling.tags[x]) if x in coupling.tags else torch.ones((), dtype=torch.bool)
            return [_statistic(node, args[0], there)]
        return run_node(node, args)

    return lambda inputs: run(analysis.graph, inputs, apply=apply)


def _statistic(node: Node, x: Tensor | None, there: Tensor) -> Tensor:
    """The average or the maximum of what is kept."""
    assert x is not None
    dims, keepdim = tuple(node.attrs["dims"]), node.attrs["keepdim"]
    there = there.expand(x.shape)
    if node.op == "amax":
        return torch.where(there, x, -torch.inf).amax(dims, keepdim)
    return (x * there).sum(dims, keepdim) / there.sum(dims, keepdim)


def _normalized(node: Node, args: list[Tensor | None], tag: Tag, kept: Callable[[Tag], Tensor]) -> Tensor:
    """A normalization whose statistics are those of the kept channels."""
    x, weight, bias = [*args, None][:3]
    assert x is not None
    rank = x.ndim
    groups = node.attrs.get("groups")
    if not varying(tag) or (groups or 1) > 1:  # of several groups only whole ones go
        return run_node(node, args)[0]
    dims = tuple(range(1, rank)) if groups else tuple(range(rank - len(node.attrs["normalized_shape"]), rank))
    there = kept(tag).to(x.dtype).expand([1, *x.shape[1:]] if tag.shape[0] == 1 else x.shape)
    count = there.sum(dims, keepdim=True).clamp_min(1.0)
    mean = (x * there).sum(dims, keepdim=True) / count if node.op != "rms_norm" else torch.zeros_like(count)
    variance = ((x - mean).square() * there).sum(dims, keepdim=True) / count
    y = (x - mean) * (variance + node.attrs["eps"]).rsqrt()
    shape = [-1] + [1] * (rank - 2) if groups else None
    for parameter, combine in ((weight, torch.mul), (bias, torch.add)):
        if parameter is not None:
            y = combine(y, parameter.reshape(shape) if shape else parameter)
    return y
