"""From ranges and weights to QuantParams, and from QuantParams to integers.

real = scale * (integer - zero_point). Activations are asymmetric int8 (or symmetric int16), one scale a
tensor, zero exactly representable because padding and ReLU write it. Weights are symmetric int8 in
[-127, 127], one scale an output channel. Scales are rounded to float32, the precision of every model file.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from edgekit.errors import QuantizationError
from edgekit.graph.ir import Graph, Node, QuantParams, Value
from edgekit.graph.ops import MOVES, WEIGHT_AXIS
from edgekit.quantize import rules
from edgekit.quantize.choices import NO_CHOICES, Choices

LIMITS: dict[str, tuple[int, int]] = {
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-32768, 32767),
    "int32": (-(2**31), 2**31 - 1),
}
MIN_SPAN = 1e-9  # a narrower range carries no signal: (0, 1) keeps every derived multiplier ordinary
WEIGHT_MAX = 127
# A channel's scale is at least this share of its tensor's largest: dead channels keep usable multipliers.
_WEIGHT_FLOOR = 2.0**-16
_BIAS_LIMIT = 2.0**30  # the largest bias integer allowed, half of int32: the accumulator needs the rest


def _float32(x: float) -> float:
    return float(np.float32(x))


def with_zero(low: float, high: float) -> tuple[float, float]:
    """The range widened to contain zero; (0, 1) when nothing is left to measure."""
    low, high = min(low, 0.0), max(high, 0.0)
    return (low, high) if high - low > MIN_SPAN else (0.0, 1.0)


def from_range(low: float, high: float, dtype: str = "int8") -> QuantParams:
    """Parameters of one activation tensor. The zero point is nudged to the nearest integer, so 0.0 is exact.

    Raises QuantizationError for a NaN, an infinity or low > high; callers add the tensor's name.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise QuantizationError(f"range ({low}, {high}): finite bounds in order are needed")
    low, high = with_zero(low, high)
    smallest, largest = LIMITS[dtype]
    if dtype == "int16":  # TensorFlow Lite's 16x8 kernels take zero point 0 only
        return QuantParams((_float32(max(-low, high) / largest),), (0,), dtype)
    scale = _float32((high - low) / (largest - smallest))
    zero_point = max(smallest, min(largest, round(smallest - low / scale)))
    return QuantParams((scale,), (zero_point,), dtype)


def weight_quant(weight: torch.Tensor, axis: int = 0, shrink: torch.Tensor | None = None) -> QuantParams:
    """Symmetric per-channel parameters of a weight; `shrink` multiplies each channel's largest magnitude."""
    flat = weight.detach().transpose(0, axis).reshape(weight.shape[axis], -1)
    largest = flat.abs().amax(1).double()
    if shrink is not None:
        largest = largest * shrink.double()
    top = float(largest.max())
    if not math.isfinite(top):
        raise QuantizationError("a weight is NaN or infinite")
    floor = top * _WEIGHT_FLOOR if top > MIN_SPAN else 1.0
    scales = (largest.clamp_min(floor) / WEIGHT_MAX).float()
    return QuantParams(tuple(scales.tolist()), (0,) * len(scales), "int8", axis)


def scales_of(quant: QuantParams, ndim: int) -> torch.Tensor:
    """The scales as float32, shaped to broadcast over a tensor of `ndim` dimensions."""
    scale = torch.tensor(quant.scale, dtype=torch.float32)
    if quant.axis is None:
        return scale.reshape(())
    shape = [1] * ndim
    shape[quant.axis] = -1
    return scale.reshape(shape)


def codes(data: torch.Tensor, quant: QuantParams) -> torch.Tensor:
    """integer - zero_point of each element, as float32 (exact)."""
    low, high = LIMITS[quant.dtype]
    if quant.axis is not None and quant.dtype == "int8":
        low = -WEIGHT_MAX
    zero_point = quant.zero_point[0]
    return torch.div(data, scales_of(quant, data.ndim)).round_().clamp_(low - zero_point, high - zero_point)


def integers(value: Value) -> torch.Tensor:
    """The stored integers of an annotated constant, in its quant's dtype."""
    assert value.data is not None and value.quant is not None, value
    dtype = getattr(torch, value.quant.dtype)
    return (codes(value.data.detach(), value.quant) + value.quant.zero_point[0]).to(dtype)


def bias_integers(node: Node) -> torch.Tensor | None:
    """The int32 bias of a conv or linear node (int64 beside int16) at input_scale * weight_scale, as float64
    (exact).
    """
    bias, weight, x = rules.bias_of(node), rules.weight_of(node), node.inputs[0]
    if bias is None or bias.data is None or weight is None or weight.quant is None:
        return None
    if x is None or x.quant is None:
        return None
    scale = torch.tensor(weight.quant.scale, dtype=torch.float64) * x.quant.scale[0]
    integers = torch.round(bias.data.detach().double() / scale)
    return integers if x.quant.dtype == "int16" else integers.clamp_(*LIMITS["int32"])


def fit_bias(node: Node) -> None:
    """Widen the weight scales whose bias would not fit in int32 (channels with almost no weight)."""
    bias, weight, x = rules.bias_of(node), rules.weight_of(node), node.inputs[0]
    if bias is None or weight is None or weight.quant is None or x is None or x.quant is None:
        return
    assert bias.data is not None
    least = bias.data.detach().abs().double() / (x.quant.scale[0] * _BIAS_LIMIT)
    scale = torch.tensor(weight.quant.scale, dtype=torch.float64)
    if bool((least > scale).any()):
        fitted = torch.maximum(scale, least).float().tolist()
        weight.quant = QuantParams(tuple(fitted), weight.quant.zero_point, "int8", weight.quant.axis)


def annotate(
    graph: Graph,
    ranges: dict[Value, rules.Range] | None = None,
    dtype: str = "int8",
    choices: Choices = NO_CHOICES,
) -> None:
    """Give every activation its parameters and every weight without parameters its own.

    Args:
        ranges: calibrated range per activation; without it, the ranges the values already carry are used (to
            derive another target's parameters from an annotated graph).
        dtype: "int8" or "int16" activations. Weights are int8 either way.
        choices: what single values take instead; see `Choices` for what follows from it.
    Raises: QuantizationError naming the tensor and its module.
    """
    producers, users, outputs = graph.producers(), graph.users(), set(graph.outputs)

    def bound(value: Value) -> rules.Range | None:
        return _bound(value, ranges, producers, choices)

    kinds = {value: kind for value, kind in choices.dtypes.items() if kind != dtype}
    ties = rules.groups(graph, bound, kinds)
    for group in ties.groups:
        kind = kinds.get(group[0], dtype)
        loose = kind == "float32" or any(value in choices.calibrated for value in group)
        fixed = None if loose else rules.fixed_quant(group, producers, kind)
        low, high = _group_range(group, bound, producers, ties.brought, observed=ranges is not None)
        if fixed is None:
            a, b = rules.reader_clip(group, users, outputs)
            low, high = with_zero(min(max(low, a), b), max(min(high, b), a))
            low, high = _resolved(low, high, _finest(group, producers, kind), kind)
        for value in group:
            try:
                value.quant = None if kind == "float32" else fixed or from_range(low, high, kind)
            except QuantizationError as error:
                raise QuantizationError(f"{_where(value, producers)}: {error}") from error
            value.range = (low, high)
    for node in graph.nodes:
        weight = rules.weight_of(node)
        if weight is None:
            continue
        assert weight.data is not None
        if weight.quant is None:
            try:
                weight.quant = weight_quant(weight.data, WEIGHT_AXIS[node.op])
            except QuantizationError as error:
                raise QuantizationError(f"[quantize] {weight.name} at {node.source}: {error}") from error
        weight.range = (float(weight.data.min()), float(weight.data.max()))
        fit_bias(node)


def _finest(group: list[Value], producers: dict[Value, Node], kind: str) -> float:
    """The step in which reductions of integers can come out: their output needs none below it."""
    steps = [0.0]
    for value in group:
        node = producers.get(value)
        if node is None or node.op != "mean" or node.inputs[0] is None or node.inputs[0].quant is None:
            continue
        if node.inputs[0].quant.dtype != kind:
            continue  # converted first, or computed in float
        count = math.prod(node.inputs[0].shape) / math.prod(value.shape)
        steps.append(node.inputs[0].quant.scale[0] / count)
    return max(steps)


def _resolved(low: float, high: float, step: float, dtype: str) -> tuple[float, float]:
    """The range, widened where its grid would be finer than `step`."""
    if dtype not in LIMITS:
        return low, high
    smallest, largest = LIMITS[dtype]
    missing = step * (largest - smallest) - (high - low)
    return (low, high) if missing <= 0.0 else (low - missing / 2, high + missing / 2)


def _group_range(
    group: list[Value],
    bound: rules.Bound,
    producers: dict[Value, Node],
    brought: dict[Value, rules.Range],
    *,
    observed: bool,
) -> rules.Range:
    """The union of what enters the group; of tensors that were observed those that only move add nothing."""
    low, high = math.inf, -math.inf
    for value in group:
        node = producers.get(value)
        found = brought.get(value)
        if found is None and node is not None and node.op in MOVES and len(group) > 1 and observed:
            continue
        found = found or bound(value)
        if found is None:
            raise QuantizationError(f"{_where(value, producers)}: no calibrated range: run quantize first")
        low, high = min(low, found[0]), max(high, found[1])
    return low, high


def _bound(
    value: Value,
    ranges: dict[Value, rules.Range] | None,
    producers: dict[Value, Node],
    choices: Choices,
) -> rules.Range | None:
    """The range of one activation: of a constant, by construction, or as calibrated."""
    node = producers.get(value)
    if value.data is not None:
        return float(value.data.min()), float(value.data.max())
    if node is not None and value not in choices.calibrated and (fixed := rules.fixed_range(node.op)):
        return fixed
    return ranges.get(value) if ranges is not None else value.range


def _where(value: Value, producers: dict[Value, Node]) -> str:
    node = producers.get(value)
    return (
        f"[quantize] {value.name} at {node.source or 'top level'} ({node.op})"
        if node
        else (f"[quantize] {value.name} (input)")
    )
