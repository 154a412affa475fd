"""Units that are zero for every input: what can go without any loss.

No image is looked at. Every element of every value gets an interval that holds whatever the inputs are
(they may be anything); a unit is dead when everywhere it is summed over its interval is exactly zero, or all
weights that read it there are. What only dead units read dies with them: search again in the cut graph.

Enters: a captured graph. Leaves: the units that are dead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import OPS
from edgekit.graph.run import finish, run_node, walk
from edgekit.prune import rows
from edgekit.prune.groups import Analysis

Tensor = torch.Tensor
Interval = tuple[Tensor, Tensor]

_UNBOUNDED = 1e150  # in float64: large enough that no finite network reaches it


def dead_units(analysis: Analysis) -> set[int]:
    """Units whose removal changes no answer, of an exact analysis: `analyse(graph, exact=True)`."""
    graph, coupling = analysis.graph, analysis.coupling
    alive = np.zeros(int(coupling.labels.max()) + 1, bool)

    def see(node: Node, args: Sequence[Interval | None]) -> None:
        """Mark what is summed over here and not zero."""
        summed = OPS[node.op].channels == "product" or node.op == "sum"
        reads = node in coupling.weighings and coupling.weighings[node].read is not None
        if not (summed or reads):
            return
        for value, interval in zip(node.inputs, args, strict=True):
            if value is None or value.is_constant or interval is None or value not in coupling.tags:
                continue
            tag = coupling.tags[value]
            nonzero = ((interval[0] != 0) | (interval[1] != 0)).numpy()
            dims = tuple(d for d, size in enumerate(tag.shape) if size == 1)
            there = nonzero.any(dims, keepdims=True) if dims else nonzero
            if reads:
                axis = tag.ndim - 1 if node.op == "linear" else 1
                there = there & _read(node).reshape([-1 if d == axis else 1 for d in range(tag.ndim)])
            alive[np.unique(coupling.labels[tag][np.broadcast_to(there, tag.shape)])] = True

    _intervals(graph, see)
    return {unit for unit in analysis.units if not alive[unit] and not _holds_living(analysis, unit, alive)}


def _holds_living(analysis: Analysis, unit: int, alive: np.ndarray) -> bool:
    """A whole line is dead only with all its members."""
    lines = [line for whole, line in analysis.coupling.derived if whole == unit]
    return any(alive[line].any() for line in lines)


def _read(node: Node) -> np.ndarray:
    """Which input channels a layer has any weight for: (I,)."""
    weight = node.inputs[1]
    assert weight is not None and weight.data is not None
    data = weight.data.detach()
    if node.op == "conv_transpose2d":
        return (data != 0).flatten(1).any(1).numpy()
    groups = rows.groups_of(node)
    used = (data != 0).reshape(groups, -1, data.shape[1], math.prod(data.shape[2:])).any(3).any(1)
    return used.flatten().numpy()


def _intervals(graph: Graph, see: Callable[[Node, Sequence[Interval | None]], None]) -> None:
    """Every node's interval, in order; `see` is shown each node's arguments."""

    def apply(node: Node, args: list[Interval | None]) -> Sequence[Interval]:
        see(node, args)
        return _step(node, args)

    def on_value(_value: Value, given: Tensor | Interval) -> Interval:
        if isinstance(given, tuple):
            return given
        data = given.detach().double() if given.is_floating_point() else given.detach()
        return data, data

    inputs = [_anything(value) for value in graph.inputs]
    with torch.no_grad():
        finish(walk(graph, inputs, apply, on_value))


def _anything(value: Value) -> Interval:
    high = torch.full(value.shape, _UNBOUNDED, dtype=torch.float64)
    return -high, high


def _step(node: Node, args: list[Interval | None]) -> list[Interval]:
    found = _bounds(node, args)
    if found is None:
        return [_anything(value) for value in node.outputs]
    return [
        (
            low.nan_to_num(-_UNBOUNDED).clamp_min(-_UNBOUNDED),
            high.nan_to_num(_UNBOUNDED).clamp_max(_UNBOUNDED),
        )
        for low, high in found
    ]


def _bounds(node: Node, args: list[Interval | None]) -> list[Interval] | None:
    row = OPS[node.op]
    floating = all(v is None or v.dtype.startswith("float") for v in (*node.inputs, *node.outputs))
    if not floating or not args or args[0] is None:
        return None

    def both(*which: list[Tensor | None]) -> list[Interval]:
        lows, highs = (run_node(node, one) for one in which)
        return list(zip(lows, highs, strict=True))

    lows = [None if a is None else a[0] for a in args]
    highs = [None if a is None else a[1] for a in args]
    x = args[0]
    averages = row.channels in ("window", "reduce") and row.homogeneous
    if row.movement or averages or row.turns == -math.inf:
        return both(lows, highs)
    if row.turns is not None and not node.attrs:
        (low,), (high,) = run_node(node, [x[0]]), run_node(node, [x[1]])
        at = torch.full_like(x[0], row.turns)
        inside = (x[0] <= at) & (at <= x[1])
        floor = torch.where(inside, run_node(node, [at])[0], torch.minimum(low, high))
        return [(floor, torch.maximum(low, high))]
    if node.op == "add":
        return both(lows, highs)
    if node.op == "sub" and args[1] is not None:
        return both([x[0], args[1][1]], [x[1], args[1][0]])
    if node.op == "mul" and args[1] is not None and not node.attrs.get("activation"):
        corners = torch.stack(torch.broadcast_tensors(*(a * b for a in x for b in args[1])))
        return [(corners.amin(0), corners.amax(0))]
    if node.op == "batch_norm" and all(v is None or v.is_constant for v in node.inputs[1:]):
        rest = lows[1:]
        (one,), (two,) = run_node(node, [x[0], *rest]), run_node(node, [x[1], *rest])
        return [(torch.minimum(one, two), torch.maximum(one, two))]
    if rows.weight_of(node) is not None and args[1] is not None:
        weight, bias = args[1][0], lows[2]
        up, down = weight.clamp_min(0), weight.clamp_max(0)
        plain = Node(node.op, node.inputs, node.outputs, {**node.attrs, "activation": None})
        low = run_node(plain, [x[0], up, bias])[0] + run_node(plain, [x[1], down, None])[0]
        high = run_node(plain, [x[1], up, bias])[0] + run_node(plain, [x[0], down, None])[0]
        activation = node.attrs.get("activation")
        if activation:
            low, high = (run_node(Node(activation, [], []), [t])[0] for t in (low, high))
        return [(low, high)]
    return None
