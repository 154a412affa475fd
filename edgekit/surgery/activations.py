"""`relu6`: h-swish, SiLU and their relatives become ReLU6.

Per channel, the ramp  c relu6(a x + b) + d  that is nearest to the activation on the calibration images takes
its place: a and b move into the layer before it (its batch norm), c and d into the layers behind it, which
are then fitted by least squares to what they gave, on the changed network's own inputs. Where nothing before
it can take a and b, or nothing behind it c and d, they are 1 and 0; then a bound of 6 may cut what is needed,
and a ReLU without one is taken.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch

from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import OPS
from edgekit.graph.run import run_node
from edgekit.surgery.layers import (
    Layer,
    Layers,
    Readers,
    channel_samples,
    refits,
    scale_inputs,
    scale_output,
)
from edgekit.surgery.paired import Site
from edgekit.surgery.record import Change, Left

Tensor = torch.Tensor
# Those that dip below zero before they rise.
SMOOTH = frozenset(name for name, row in OPS.items() if row.turns is not None and -math.inf < row.turns < 0)
_BOUND = 6.0
_SAMPLES = 1024  # numbers a channel that a ramp is fitted to
_STARTS = 24
_STOPS = (0.05, -0.1, -0.2, -0.35)  # where a ramp ends, in parts of the range above its largest number
_LEAST_SPAN = 0.5  # of a ramp: a channel that hardly moves is not blown up further
_CUT_SHARE = 1e-3  # of numbers above the bound, from which on a ReLU without one is taken


@dataclass(frozen=True)
class Ramp:
    """relu6((x - start) * 6 / (stop - start)) * scale + shift, one of each a channel."""

    start: Tensor
    stop: Tensor
    scale: Tensor
    shift: Tensor


def replace_activations(
    graph: Graph, reference: Graph, only: Collection[str] | None
) -> tuple[list[Change], list[Left], list[Site]]:
    """Replace smooth activations of `graph` in place; the sites fit the ramps and the layers behind them."""
    layers = Layers(graph)
    meant = {v.name: v for v in reference.values()}
    changes: list[Change] = []
    left: list[Left] = []
    ramps: list[Site] = []
    changed: list[Value] = []
    for node in [n for n in graph.nodes if n.op in SMOOTH and (only is None or n.source in only)]:
        there = meant.get(node.output.name)
        if there is None:
            left.append(Left(node.source, f"{node.op}: the original has no counterpart"))
            continue
        x = node.inputs[0]
        assert x is not None
        before = layers.by_out.get(x)
        if before is not None and not (layers.counts[x] == 1 and before.shifts):
            before = None
        behind = layers.readers(node.output)
        changes.append(Change(node.source, f"{node.op} to relu6"))
        node.op, node.attrs = "relu6", {}
        changed.append(node.output)
        ramps.append(_ramp_site(node, x, there, before, behind))
    fits = refits(graph, layers.first_reached(changed), reference)
    return changes, left, [*fits, *ramps]  # of two sites at one layer its weights come first


def _ramp_site(node: Node, x: Value, meant: Value, before: Layer | None, behind: Readers | None) -> Site:
    """Where a ramp is fitted: before the node runs that is given a and b."""
    last = len(x.shape) == 3
    if before is None:
        return Site(node, x, meant, lambda _, wanted: _bound(node, channel_samples(wanted, last, _SAMPLES)))
    maker = before.norm or before.node
    seen = maker.inputs[0]
    assert seen is not None

    def fit(inputs: list[Tensor], wanted: list[Tensor]) -> None:
        constants = [None if v is None else v.data for v in maker.inputs[1:]]
        made = [run_node(maker, [t, *constants])[0] for t in inputs]
        xs, ys = (channel_samples(side, last, _SAMPLES) for side in (made, wanted))
        if behind is None:
            _bound(node, ys)
            slope, start = best_hinge(xs, ys)
            scale_output(before, slope, -slope * start)
            return
        ramp = best_ramp(xs, ys, shifts=behind.shifts)
        slope = _BOUND / (ramp.stop - ramp.start)
        scale_output(before, slope, -slope * ramp.start)
        for layer in behind.layers:
            scale_inputs(layer, ramp.scale, ramp.shift)

    return Site(maker, seen, meant, fit)


def _bound(node: Node, y: Tensor) -> None:
    """A ReLU without a bound where 6 would cut off what the activation gave."""
    if float((y > _BOUND).double().mean()) > _CUT_SHARE:
        node.op = "relu"


def best_ramp(x: Tensor, y: Tensor, *, shifts: bool = True) -> Ramp:
    """The ramp nearest to y(x).

    Args:
        x, y: (C, samples), float64.
        shifts: whether it may stand on another level than 0.
    """
    low, high = x.amin(1), x.amax(1)
    span = (high - low).clamp_min(_LEAST_SPAN)
    found: list[Tensor] = []
    for at in torch.linspace(-0.05, 0.9, _STARTS, dtype=x.dtype):
        start = low + at * span
        for end in _STOPS:
            stop = torch.maximum(high + end * span, start + _LEAST_SPAN)
            rise = ((x - start[:, None]) / (stop - start)[:, None]).clamp(0.0, 1.0) * _BOUND
            error, scale, shift = _line(rise, y, shifts)
            found = _better(found, [error, start, stop, scale, shift])
    return Ramp(*found[1:])


def best_hinge(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and start, per channel, of the relu(slope (x - start)) nearest to y(x)."""
    low, span = x.amin(1), x.amax(1) - x.amin(1)
    found: list[Tensor] = []
    for at in torch.linspace(-0.5, 0.9, _STARTS, dtype=x.dtype):
        start = low + at * span
        error, slope, _ = _line(torch.relu(x - start[:, None]), y, False)
        found = _better(found, [error, slope, start])
    return found[1], found[2]


def _better(best: list[Tensor], new: list[Tensor]) -> list[Tensor]:
    """Of two rows of numbers a channel the one whose first is smaller, channel by channel."""
    if not best:
        return new
    smaller = new[0] < best[0]
    return [torch.where(smaller, one, other) for one, other in zip(new, best, strict=True)]


def _line(rise: Tensor, y: Tensor, shifts: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Error, slope and level of the best line through (rise, y), per channel; the slope is positive."""
    zero = torch.zeros(len(y), dtype=y.dtype)
    mean_rise, mean_y = (rise.mean(1), y.mean(1)) if shifts else (zero, zero)
    r, t = rise - mean_rise[:, None], y - mean_y[:, None]
    slope = ((r * t).mean(1) / r.square().mean(1).clamp_min(1e-12)).clamp_min(1e-4)
    error = (t - slope[:, None] * r).square().mean(1)
    return error, slope, mean_y - slope * mean_rise
