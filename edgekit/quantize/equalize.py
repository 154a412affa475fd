"""Cross-layer equalization: rescale channels without changing what the network computes.

One scale serves a whole activation tensor, so a channel that uses a hundredth of the range gets a hundredth
of the steps. Wherever only linear maps and positively homogeneous functions lie between a producer and its
consumers, channel i may be multiplied by s[i] in the producer's weights and divided out again in those of the
consumers (Nagel et al. 2019, https://arxiv.org/abs/1906.04721). Residual additions, pooling and the data side
of a squeeze-excite product tie channel i of several tensors; concatenations, splits, slices and shuffles tie
some channels of one to some of another. Channels that are tied make a unit with one s; tensors that share
units make a family.

Enters: a float graph and its observations. Leaves: the same function, other weights, and the observations
rescaled to match.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from edgekit.graph.channels import Source, carried, components, placed, weighs_one
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
    """Tensors that share units, and the nodes that can absorb their scaling.

    units: how many there are. of: the unit of every channel of each tensor, (C,); `units` where it must stay.
    """

    units: int
    of: dict[Value, Tensor]
    producers: list[Node] = field(default_factory=list)
    consumers: list[Node] = field(default_factory=list)
    relu6: list[Value] = field(default_factory=list)

    @property
    def values(self) -> list[Value]:
        return list(self.of)


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
        self.first: dict[Value, int] = {}  # of a tensor's channels among all of them
        self.count = 0
        self.ties: list[np.ndarray] = []  # (2, n)
        self.closed: list[np.ndarray] = []
        self.relu6: set[Value] = set()
        self.producer: dict[Value, Node] = graph.producers()
        self._close(*graph.inputs, *graph.outputs)

    def visit(self, node: Node) -> None:
        if node.attrs.get("activation") == "relu6" or node.op == "relu6":
            self.relu6.add(node.output)
        if rules.weight_of(node) is not None:
            self._weighted(node)
        elif node.op == "mul":
            self._product(node)
        elif tied := _scaled_with(node):
            self._tie(*node.outputs, *tied)
        elif (moved := placed(node)) is not None:
            self._placed(node, moved)
        else:
            self._close(*node.operands, *node.outputs)

    def _channels(self, value: Value) -> np.ndarray:
        """The numbers of a tensor's channels."""
        size = value.shape[1] if len(value.shape) > 1 else 1
        if value not in self.first:
            self.first[value] = self.count
            self.count += size
        return np.arange(self.first[value], self.first[value] + size)

    def _close(self, *values: Value) -> None:
        self.closed += [self._channels(value) for value in values]

    def _tie(self, *values: Value) -> None:
        """One scaling for all of them, where dimension 1 is one of channels."""
        first = values[0]
        if not all(len(v.shape) in (2, 4) and v.shape[1] == first.shape[1] for v in values):
            self._close(*values)
            return
        own = self._channels(first)
        self.ties += [np.stack([own, self._channels(value)]) for value in values[1:]]

    def _placed(self, node: Node, moved: list[list[Source]]) -> None:
        """Whole channels that go elsewhere."""
        if any(len(v.shape) != 4 for v in (*node.operands, *node.outputs)):
            self._close(*node.operands, *node.outputs)
            return
        given = [self._channels(value) for value in node.operands]
        for value, sources in zip(node.outputs, moved, strict=True):
            self.ties.append(np.stack([self._channels(value), [given[k][c] for k, c in sources]]))

    def _weighted(self, node: Node) -> None:
        x, weight, bias = node.inputs[0], rules.weight_of(node), rules.bias_of(node)
        assert x is not None and weight is not None
        own = self.uses[weight] == 1 and (bias is None or (bias.is_constant and self.uses[bias] == 1))
        plain = node.op == "conv2d" or (node.op == "linear" and len(x.shape) == 2)
        if not own or not plain:
            self._close(x, node.output)

    def _product(self, node: Node) -> None:
        a, b = node.inputs[0], node.inputs[1]
        assert a is not None and b is not None
        for data, gate in ((a, b), (b, a)):
            maker = self.producer.get(gate)
            if gate.is_constant or (maker is not None and isinstance(OPS[maker.op].ranges, Fixed)):
                self._close(gate)
                self._tie(node.output, data)
                return
        self._close(a, b, node.output)

    def result(self) -> list[Family]:
        families = self._families()
        found = {value: family for family in families for value in family.of}
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
        return [family for family in families if family.producers and family.consumers]

    def _families(self) -> list[Family]:
        values = [value for value in self.graph.values() if not value.is_constant]
        channels = [self._channels(value) for value in values]  # those of weighted nodes are new here
        ties = np.concatenate(self.ties, 1) if self.ties else np.zeros((2, 0), int)
        unit = components(self.count, ties)
        stays = np.zeros(unit.max() + 1, bool)
        stays[unit[np.concatenate(self.closed)]] = True
        # a tensor and the units of its channels that are not closed: what hangs together is a family
        links = [
            np.stack([np.full(len(free), len(stays) + k), free])
            for k, own in enumerate(channels)
            if len(free := np.unique(unit[own][~stays[unit[own]]]))
        ]
        if not links:
            return []
        family = components(len(stays) + len(values), np.concatenate(links, 1))
        members: dict[int, list[int]] = {}
        for k, own in enumerate(channels):
            if not stays[unit[own]].all():
                members.setdefault(int(family[len(stays) + k]), []).append(k)
        found = []
        for group in members.values():
            every = np.concatenate([unit[channels[k]] for k in group])
            units = np.unique(every[~stays[every]])
            number = np.full(len(stays), len(units))
            number[units] = np.arange(len(units))
            of = {values[k]: torch.from_numpy(number[unit[channels[k]]]) for k in group}
            found.append(Family(len(units), of))
        return found


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
    """The scale of each unit, (units,): share ** balance / reach.

    reach is how far the activations of a unit go, share the largest part it has in any consumer's sums. Both
    are taken relative to what a rescaling of the units leaves alone, so that a network and its rescaled
    versions all arrive at the same weights: the reach of a channel is a factor of its tensor times one of its
    unit, by least squares of the logarithms, and the tensor's is divided out.
    """
    measured = [value for value in family.of if value in seen.low]
    reaches = {value: of_units(family, value, channel_reach(seen, value)) for value in measured}
    if not reaches:
        return torch.ones(family.units)
    there = torch.stack([of_units(family, value, torch.ones(value.shape[1])) for value in reaches]) > 0
    table = torch.stack(list(reaches.values()))  # (tensors, units and what stays)
    lives = table > 1e-6 * table.amax(1, keepdim=True)
    everywhere = there & (lives | ~there).all(0)
    if not bool(everywhere.any()):
        return torch.ones(family.units)
    reach = (table / _levels(table, everywhere)[:, None]).amax(0)
    alive = reach > 1e-6 * reach.max()
    dense = [node for node in family.consumers if not weighs_one(node)]
    share = torch.full((family.units + 1,), 1e-3)
    for node in dense:
        of = family.of[node.operands[0]]
        share.scatter_reduce_(0, of, _part(node, reach[of]), "amax")
    # a depthwise consumer has a scale for each channel: it absorbs everything for free
    scales = torch.where(alive, (share**balance if dense else 1.0) / reach, 1.0)
    scales *= float(reach.max() / (scales * reach).max())
    scales = torch.where(alive, scales, 1.0)
    for value in family.relu6:
        high = of_units(family, value, channel_reach(seen, value))
        scales = torch.where(high > RELU6_SHARE * 6.0, 1.0, scales)
        most = (RELU6_SHARE * 6.0 / high.clamp_min(1e-6)).clamp_min(1.0)
        scales = torch.where(high > 0, torch.minimum(scales, most), scales)
    return scales[: family.units].clamp_(1.0 / LARGEST, LARGEST)


def of_units(family: Family, value: Value, channels: Tensor) -> Tensor:
    """The largest of each unit's channels in a tensor, then of those that stay; 0 for none: (units + 1,)."""
    return torch.zeros(family.units + 1).scatter_reduce_(0, family.of[value], channels, "amax")


def _levels(table: Tensor, counted: Tensor) -> Tensor:
    """The factor of each row where an entry is one of its row times one of its column: (rows,)."""
    weights = counted.double()
    logs = torch.where(counted, table.clamp_min(1e-30).double().log(), 0.0)
    per_column = weights.sum(0).clamp_min(1.0)
    shared = weights / per_column
    left = weights.sum(1).diag() - shared @ weights.T
    right = (logs - weights * (logs.sum(0) / per_column)).sum(1)
    # whole rows may be raised together: the smallest solution, and a mean over those of one column alone
    found = torch.linalg.lstsq(left, right[:, None], driver="gelsd").solution[:, 0]
    return (found - found.mean()).exp().to(table.dtype)


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
    """Multiply the channels of every tensor of the family by the scales of their units, (units,), through the
    weights around it.
    """
    every = torch.cat([scales, torch.ones(1)])
    for node in family.producers:
        own = every[family.of[node.output]]
        weight, bias = rules.weight_of(node), rules.bias_of(node)
        assert weight is not None and weight.data is not None
        weight.data = weight.data * own.view(-1, *[1] * (weight.data.ndim - 1))
        if bias is not None and bias.data is not None:
            bias.data = bias.data * own
    for node in family.consumers:
        weight = rules.weight_of(node)
        assert weight is not None and weight.data is not None
        own = every[family.of[node.operands[0]]]
        split = split_by_input(weight.data, node)
        weight.data = (split / own.view(len(split), 1, -1, 1)).reshape(weight.data.shape)
    if seen is not None:
        rescale(seen, {value: every[of] for value, of in family.of.items()}, family.producers)


def split_by_input(weight: Tensor, node: Node) -> Tensor:
    """A weight by the channels of the input: (groups, O / groups, I / groups, taps)."""
    groups = node.attrs.get("groups", 1)
    return weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)


def rescale(
    seen: Observations, scales: Mapping[Value, Tensor], producers: Iterable[Node], axis: int = 1
) -> None:
    """What the statistics would be once the channels of each value were multiplied by its scales, (C,).

    Args:
        axis: the dimension that counts them; samples have it last.
    """
    for value, own in scales.items():
        if value in seen.low:
            seen.low[value] = seen.low[value] * own
            seen.high[value] = seen.high[value] * own
        if value in seen.sample:
            size = math.prod(value.shape)
            channel = sample_positions(size, seen.samples) % value.shape[axis]
            seen.sample[value] = seen.sample[value] * own[channel]
    for node in producers:
        if node in seen.mean:
            seen.mean[node] = seen.mean[node] * scales[node.output]
