"""Cross-layer equalization: rescale channels without changing what the network computes.

One scale serves a whole activation tensor, so a channel that uses a hundredth of the range gets a hundredth
of the steps. Wherever only linear maps and positively homogeneous functions lie between a producer and its
consumers, channel i may be multiplied by s[i] in the producer's weights and divided out again in those of the
consumers (Nagel et al. 2019, https://arxiv.org/abs/1906.04721). Residual additions, pooling and the data side
of a squeeze-excite product tie several tensors to one s: such a set is a family, found by union-find.

Enters: a float graph and its observations. Leaves: the same function, other weights, and the observations
rescaled to match.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

from edgekit.graph.channels import Families, carried, weighs_one
from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import OPS, Fixed
from edgekit.quantize import rules
from edgekit.quantize.observers import Observations, sample_positions, trim_count

Tensor = torch.Tensor

BALANCE = 0.0  # trained V3-Large: 24.4 dB at 0, 23.8 at 0.25, 23.4 without equalization
LARGEST = 2.0**10  # no channel is scaled by more than this either way
RELU6_SHARE = 0.7  # a channel whose maximum stays below this share of 6 counts as never clipped


@dataclass
class Family:
    """Tensors that share one channel scaling, and the nodes that can absorb it."""

    values: list[Value]
    producers: list[Node] = field(default_factory=list)
    consumers: list[Node] = field(default_factory=list)
    relu6: list[Value] = field(default_factory=list)

    @property
    def channels(self) -> int:
        return self.values[0].shape[1]


def families(graph: Graph) -> list[Family]:
    """Every set of tensors whose channels may be rescaled together."""
    finder = _Finder(graph)
    for node in graph.nodes:
        finder.visit(node)
    return finder.result()


class _Finder:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.uses = graph.use_counts()
        self.ties = Families()
        self.relu6: set[Value] = set()
        self.producer: dict[Value, Node] = graph.producers()
        self.ties.close(*graph.inputs, *graph.outputs)

    def visit(self, node: Node) -> None:
        if node.attrs.get("activation") == "relu6" or node.op == "relu6":
            self.relu6.add(node.output)
        if rules.weight_of(node) is not None:
            self._weighted(node)
        elif node.op == "mul":
            self._product(node)
        elif tied := _scaled_with(node):
            self._tie(*node.outputs, *tied)
        else:
            self.ties.close(*node.operands, *node.outputs)

    def _tie(self, *values: Value) -> None:
        """One scaling for all of them, where dimension 1 is one of channels."""
        if all(len(v.shape) in (2, 4) for v in values):
            self.ties.tie(*values)
        else:
            self.ties.close(*values)

    def _weighted(self, node: Node) -> None:
        x, weight, bias = node.inputs[0], rules.weight_of(node), rules.bias_of(node)
        assert x is not None and weight is not None
        own = self.uses[weight] == 1 and (bias is None or (bias.is_constant and self.uses[bias] == 1))
        plain = node.op == "conv2d" or (node.op == "linear" and len(x.shape) == 2)
        if not own or not plain:
            self.ties.close(x, node.output)
        else:
            self.ties.root(x)
            self.ties.root(node.output)

    def _product(self, node: Node) -> None:
        a, b = node.inputs[0], node.inputs[1]
        assert a is not None and b is not None
        for data, gate in ((a, b), (b, a)):
            maker = self.producer.get(gate)
            if gate.is_constant or (maker is not None and isinstance(OPS[maker.op].ranges, Fixed)):
                self.ties.close(gate)
                self._tie(node.output, data)
                return
        self.ties.close(a, b, node.output)

    def result(self) -> list[Family]:
        families = {root: Family(values) for root, values in self.ties.open(self.graph.values()).items()}
        found = {value: family for family in families.values() for value in family.values}
        for node in self.graph.nodes:
            if rules.weight_of(node) is not None:
                x = node.inputs[0]
                assert x is not None
                if x in found:
                    found[x].consumers.append(node)
                if node.output in found:
                    found[node.output].producers.append(node)
            for value in node.outputs:
                if value in self.relu6 and value in found:
                    found[value].relu6.append(value)
        return [family for family in families.values() if family.producers and family.consumers]


def _scaled_with(node: Node) -> list[Value]:
    """The operands whose channels may be scaled by any positive numbers if the outputs' are, all at once."""
    tied = carried(node)
    row = OPS[node.op]
    zero_border = node.op == "pad" and node.attrs.get("mode", "constant") == "constant"
    zero_border = zero_border and not node.attrs.get("value")
    results = node.operands[:1] if row.channels == "scale" else node.operands
    whole = set(tied) == set(results)  # a constant summand would have to be scaled as well
    return tied if whole and (row.homogeneous or zero_border) else []


def equalize(graph: Graph, seen: Observations, balance: float = BALANCE) -> int:
    """Rescale every family in place; returns how many were.

    Args:
        seen: statistics of this graph, rescaled to match on return.
        balance: share of a channel's deficit that activations give up to the consumers' weights. 0:
            activations end up equal; 0.5: both sides meet halfway. Any value gives the same network for every
            rescaled version of it.
    """
    found = families(graph)
    for family in found:
        apply_scales(family, family_scales(family, seen, balance), seen)
    return len(found)


def family_scales(family: Family, seen: Observations, balance: float) -> Tensor:
    """The scale of each channel: share[c] ** balance / reach[c].

    reach is how far the activations of a channel go, share the largest part it has in any consumer's sums.
    Both are taken relative to what a rescaling of the channels leaves alone, so that a network and its
    rescaled versions all arrive at the same weights.
    """
    reaches = [channel_reach(seen, value) for value in family.values if value in seen.low]
    everywhere = torch.stack([one > 1e-6 * one.max() for one in reaches]).all(0)
    if not bool(everywhere.any()):
        return torch.ones(family.channels)
    relative = [one / one[everywhere].log().mean().exp() for one in reaches]
    reach = torch.stack(relative).amax(0)
    alive = reach > 1e-6 * reach.max()
    dense = [node for node in family.consumers if not weighs_one(node)]
    share = torch.full((family.channels,), 1e-3)
    for node in dense:
        share = torch.maximum(share, _part(node, reach))
    # a depthwise consumer has a scale for each channel: it absorbs everything for free
    scales = torch.where(alive, (share**balance if dense else 1.0) / reach, 1.0)
    scales *= float(reach.max() / (scales * reach).max())
    scales = torch.where(alive, scales, 1.0)
    for value in family.relu6:
        high = channel_reach(seen, value)
        scales = torch.where(high > RELU6_SHARE * 6.0, 1.0, scales)
        scales = torch.minimum(scales, (RELU6_SHARE * 6.0 / high.clamp_min(1e-6)).clamp_min(1.0))
    return scales.clamp_(1.0 / LARGEST, LARGEST)


def channel_reach(seen: Observations, value: Value) -> Tensor:
    """The largest magnitude of each channel, images furthest out set aside: (C,)."""
    magnitude = torch.maximum(seen.low[value].abs(), seen.high[value].abs())
    return magnitude.sort(0).values[-1 - trim_count(len(magnitude))]


def _part(node: Node, reach: Tensor) -> Tensor:
    """The largest part each input channel has in the sums of a dense node: (C,), each in (0, 1]."""
    weight = rules.weight_of(node)
    assert weight is not None and weight.data is not None
    flat = weight.data.detach().abs()
    flat = flat.flatten(2).amax(2) if flat.ndim == 4 else flat  # (O, I / groups)
    groups = node.attrs.get("groups", 1)
    parts = flat.view(groups, -1, flat.shape[1]) * reach.view(groups, 1, -1)
    return (parts / parts.sum(2, keepdim=True).clamp_min(1e-12)).amax(1).flatten()


def apply_scales(family: Family, scales: Tensor, seen: Observations | None = None) -> None:
    """Multiply channel i of every tensor of the family by scales[i], through the weights around it."""
    for node in family.producers:
        weight, bias = rules.weight_of(node), rules.bias_of(node)
        assert weight is not None and weight.data is not None
        weight.data = weight.data * scales.view(-1, *[1] * (weight.data.ndim - 1))
        if bias is not None and bias.data is not None:
            bias.data = bias.data * scales
    for node in family.consumers:
        weight = rules.weight_of(node)
        assert weight is not None and weight.data is not None
        groups = node.attrs.get("groups", 1)
        size = weight.data.shape
        split = weight.data.reshape(groups, size[0] // groups, size[1], -1)
        weight.data = (split / scales.view(groups, 1, size[1], 1)).reshape(size)
    if seen is not None:
        rescale(seen, family.values, family.producers, scales)


def rescale(seen: Observations, values: Iterable[Value], producers: Iterable[Node], scales: Tensor) -> None:
    """What the statistics would be after `apply_scales`."""
    for value in values:
        if value in seen.low:
            seen.low[value] = seen.low[value] * scales
            seen.high[value] = seen.high[value] * scales
        if value in seen.sample:
            size = math.prod(value.shape)
            channel = sample_positions(size, seen.samples) % value.shape[1]
            seen.sample[value] = seen.sample[value] * scales[channel]
    for node in producers:
        if node in seen.mean:
            seen.mean[node] = seen.mean[node] * scales
