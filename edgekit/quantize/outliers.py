"""Channels that alone make a tensor's range wide, brought back to the others without changing the function.

One scale serves a whole activation tensor, so a channel thirty times as large as the rest leaves them three
bits. Where the layers that read it give it weights as much smaller, nothing asks for that: its scale moves
into them, and the same network comes out however large it was. Unlike `equalize` this leaves every other
channel alone, and layer norms are served too: their scale lies in gamma and beta, and the linear layers
behind them absorb it, through whatever only moves numbers in between.

Enters: a float graph and its observations. Leaves: the same function, other weights, and the observations
rescaled to match.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import MOVES, OPS
from edgekit.quantize import rules
from edgekit.quantize.equalize import (
    RELU6_SHARE,
    Family,
    apply_scales,
    channel_reach,
    families,
    of_units,
    rescale,
    split_by_input,
)
from edgekit.quantize.observers import Observations

Tensor = torch.Tensor
FAR = 4.0  # times the median channel's reach
UNASKED = 50.0  # times the median of reach over weight; a channel scaled by k has k * k times its own
_DEAD = 1e-4  # of the median: a channel that carries nothing


@dataclass
class Normalized:
    """A layer norm whose output only linear maps read: its channels and those who absorb their scales."""

    node: Node
    consumers: list[Node]


def normalized(graph: Graph) -> list[Normalized]:
    """Every layer norm over the last dimension whose channels may be rescaled."""
    uses, users, outputs = graph.use_counts(), graph.users(), set(graph.outputs)
    found = []
    for node in graph.nodes:
        if node.op != "layer_norm" or len(node.attrs["normalized_shape"]) != 1:
            continue
        own = [value for value in node.inputs[1:] if value is not None]
        if not own or node.inputs[1] is None or any(not v.is_constant or uses[v] != 1 for v in own):
            continue
        consumers = _readers(node.output, len(node.output.shape) - 1, users, outputs)
        if consumers and all(uses[w] == 1 for n in consumers if (w := rules.weight_of(n)) is not None):
            found.append(Normalized(node, list(dict.fromkeys(consumers))))
    return found


def _readers(
    value: Value, axis: int, users: dict[Value, list[Node]], outputs: set[Value]
) -> list[Node] | None:
    """The linear maps that contract dimension `axis` of a value; None where anything else reads it."""
    found: list[Node] = []
    if value in outputs:
        return None
    for node in users.get(value, []):
        last = len(value.shape) - 1
        if rules.weight_of(node) is not None and node.inputs[0] is value:
            contracts = axis == last if node.op == "linear" else node.op == "conv2d" and axis == 1
            if not contracts or node.attrs.get("groups", 1) != 1:
                return None
            found.append(node)
        elif node.op in MOVES and len(node.operands) == 1:
            for out, to in zip(node.outputs, _moved_to(node, axis), strict=True):
                further = None if to is None else _readers(out, to, users, outputs)
                if further is None:
                    return None
                found += further
        else:
            return None
    return found


def _moved_to(node: Node, axis: int) -> list[int | None]:
    """Where each output of a movement has the channels of dimension `axis`, whole and in order."""
    shape = node.operands[0].shape
    numbers = _numbered(shape, axis)
    moved = OPS[node.op].fn(numbers, **node.attrs)
    results = moved if isinstance(moved, tuple | list) else (moved,)
    return [next((d for d in range(t.ndim) if _is_numbered(t, d, shape[axis])), None) for t in results]


def _numbered(shape: Sequence[int], axis: int) -> Tensor:
    view = [1] * len(shape)
    view[axis] = -1
    return torch.arange(shape[axis], dtype=torch.int32).view(view).expand(tuple(shape))


def _is_numbered(tensor: Tensor, axis: int, channels: int) -> bool:
    return tensor.shape[axis] == channels and torch.equal(tensor, _numbered(tensor.shape, axis))


def told_apart(graph: Graph) -> dict[Value, int]:
    """Values of which every channel has to be observed, and the dimension that counts them."""
    found = {value: 1 for family in families(graph) for value in family.values}
    return found | {one.node.output: len(one.node.output.shape) - 1 for one in normalized(graph)}


def even_outliers(graph: Graph, seen: Observations) -> int:
    """Rescale them in place; returns how many channels were."""
    count = 0
    for family in families(graph):
        scales = _family_scales(family, seen)
        if scales is not None:
            apply_scales(family, scales, seen)
            count += int((scales != 1.0).sum())
    for one in normalized(graph):
        value = one.node.output
        if value not in seen.low or seen.low[value].shape[1] != value.shape[-1]:
            continue
        scales = outlier_scales(channel_reach(seen, value), weights(one.consumers))
        if scales is not None:
            _scale_normalized(one, scales, seen)
            count += int((scales != 1.0).sum())
    return count


def _family_scales(family: Family, seen: Observations) -> Tensor | None:
    """(units,)"""
    measured = [value for value in family.of if value in seen.low]
    if not measured or not family.consumers:
        return None
    reach = torch.stack([of_units(family, v, _relative(channel_reach(seen, v))) for v in measured]).amax(0)
    weight = torch.stack(
        [of_units(family, node.operands[0], weights([node])) for node in family.consumers]
    ).amax(0)
    scales = outlier_scales(reach[: family.units], weight[: family.units])
    if scales is None:
        return None
    for value in family.relu6:
        high = of_units(family, value, channel_reach(seen, value))[: family.units]
        scales = torch.where(high > RELU6_SHARE * 6.0, 1.0, scales)
    return scales


def _relative(channels: Tensor) -> Tensor:
    return channels / channels.median().clamp_min(1e-12)


def outlier_scales(reach: Tensor, weight: Tensor) -> Tensor | None:
    """The scale of each channel, 1 for most; None where all are.

    Args:
        reach: (C,), how far each channel goes. weight: (C,), the largest weight that reads it.
    """
    middle = reach.median()
    alive = (reach > _DEAD * middle) & (weight > 0.0)
    ratio = reach / weight.clamp_min(1e-30)
    if float(middle) <= 0.0 or not bool(alive.any()):
        return None
    usual = ratio[alive].median()
    far = alive & (reach > FAR * middle) & (ratio > UNASKED * usual)
    if not bool(far.any()):
        return None
    most = reach[~far].max()
    wanted = torch.minimum(reach * (usual / ratio.clamp_min(1e-30)).sqrt(), most)
    return torch.where(far, wanted / reach, 1.0)


def weights(consumers: list[Node]) -> Tensor:
    """The largest weight with which each channel is read, relative to the median channel's: (C,)."""
    found = []
    for node in consumers:
        weight = rules.weight_of(node)
        assert weight is not None and weight.data is not None
        found.append(_relative(split_by_input(weight.data.detach().abs(), node).amax((1, 3)).flatten()))
    return torch.stack(found).amax(0)


def _scale_normalized(one: Normalized, scales: Tensor, seen: Observations) -> None:
    for value in one.node.inputs[1:]:
        if value is not None:
            assert value.data is not None
            value.data = value.data * scales
    for node in one.consumers:
        weight = rules.weight_of(node)
        assert weight is not None and weight.data is not None
        weight.data = (split_by_input(weight.data, node) / scales.view(1, 1, -1, 1)).reshape(
            weight.data.shape
        )
    rescale(seen, {one.node.output: scales}, [], axis=-1)
