"""Activations that a quantized file left to the saturation of its QuantizeLinear.

ONNX Runtime's quantizer removes a Relu or Clip before a QuantizeLinear whose range ends where the activation
would: the integers of the type's end are all that is left of it. Our graph's values are real numbers, so the
bound becomes an operator again, or the float function of the file would be another one.

A zero point at the type's low end is a bound at zero: Relu; with a top that is a whole number, Clip(0, top),
which is Relu6 at 6. A grid of a whole number's width whose ends are whole numbers but for the rounding of the
zero point is Clip(low, high). Calibrated extremes are no whole numbers, so any other top or bottom is the
calibration's, and bounds nothing. A bound that the operators before it keep anyway is left out, and so is one
that the readers imply: sigmoid, tanh and the hard functions are calibrated no further than they look.

Enters: an imported graph, and what its QuantizeLinears read. Leaves: the graph with relu, relu6, clamp and
hardsigmoid in their places; the quantized value keeps its name and its parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from edgekit.graph.ir import Graph, Node, QuantParams, Value

Bounds = tuple[float, float]

_EVERYTHING = (-math.inf, math.inf)
_WHOLE = 1e-6  # relative: what float32 makes of a whole number over 255 steps
_WITHIN: dict[str, Bounds] = {
    "relu": (0.0, math.inf),
    "relu6": (0.0, 6.0),
    "sigmoid": (0.0, 1.0),
    "hardsigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "l2_normalize": (-1.0, 1.0),
    "abs": (0.0, math.inf),
    "exp": (0.0, math.inf),
    "sqrt": (0.0, math.inf),
    "rsqrt": (0.0, math.inf),
    "softplus": (0.0, math.inf),
}
# Every number of the result lies between those of the operands.
_KEEPS = frozenset(
    {"reshape", "permute", "concat", "split", "slice", "expand", "channel_shuffle", "pixel_shuffle"}
) | frozenset(
    {"pixel_unshuffle", "roll", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "mean", "amax"}
    | {"maximum", "minimum", "resize_bilinear", "resize_nearest", "pad"}
)
_LOOK_NO_FURTHER = frozenset({"sigmoid", "tanh", "hardsigmoid", "hardswish", "silu"})


def restore_activations(graph: Graph, saturated: Iterable[Value]) -> int:
    """Write out what the saturation of quantized results stands for; returns how many operators that took."""
    wanted = {value for value in saturated if value.quant is not None}
    users, within = graph.users(), _Intervals(graph)
    nodes: list[Node] = []
    restored = 0
    for node in graph.nodes:
        nodes.append(node)
        value = node.output
        if len(node.outputs) > 1 or value not in wanted or value.quant is None:
            continue
        if _becomes_hardsigmoid(node, within):
            restored += 1
            continue
        bounds = folded_bounds(value.quant)
        readers = users.get(value, [])
        if bounds[0] < 0 and any(reader.op in _LOOK_NO_FURTHER for reader in readers):
            continue
        low, high = within.of(value)
        low, high = (
            bounds[0] if bounds[0] > low else -math.inf,
            bounds[1] if bounds[1] < high else math.inf,
        )
        if (low, high) == _EVERYTHING:
            continue
        nodes += _clipped(graph, node, low if high == math.inf else bounds[0], high)
        within.known[value] = (max(bounds[0], within.of(value)[0]), min(high, within.of(value)[1]))
        restored += 1
    graph.nodes = nodes
    return restored


def folded_bounds(quant: QuantParams) -> Bounds:
    """What a grid's ends are the bounds of: an activation's, or nothing's (infinities)."""
    half = 32768 if quant.dtype == "int16" else 128
    scale, zero_point = quant.scale[0], quant.zero_point[0]
    span = scale * (2 * half - 1)
    whole = abs(span - round(span)) <= _WHOLE * span and round(span) > 0
    if zero_point == -half:
        return 0.0, float(round(span)) if whole else math.inf
    if zero_point == half - 1:
        return float(-round(span)) if whole else -math.inf, 0.0
    low = (-half - zero_point) * scale
    if whole and abs(low - round(low)) <= 0.51 * scale and round(low) < 0 < round(low) + round(span):
        return float(round(low)), float(round(low) + round(span))
    return _EVERYTHING


class _Intervals:
    """Bounds of values by the operators that make them."""

    def __init__(self, graph: Graph) -> None:
        self.producers = graph.producers()
        self.known: dict[Value, Bounds] = {}

    def of(self, value: Value) -> Bounds:
        if value not in self.known:
            self.known[value] = self._found(value)
        return self.known[value]

    def _found(self, value: Value) -> Bounds:
        if value.data is not None and value.data.is_floating_point() and value.data.numel():
            return float(value.data.min()), float(value.data.max())
        node = self.producers.get(value)
        if node is None:
            return _EVERYTHING
        if node.op in _WITHIN:
            return _WITHIN[node.op]
        if node.op == "clamp":
            low, high = node.attrs["low"], node.attrs["high"]
            return (-math.inf if low is None else low, math.inf if high is None else high)
        parts = [self.of(operand) for operand in node.operands]
        if node.op in _KEEPS:
            if node.op == "pad":
                parts.append((float(node.attrs.get("value", 0.0)),) * 2)
            return min(low for low, _ in parts), max(high for _, high in parts)
        if node.op == "add":
            return sum(low for low, _ in parts), sum(high for _, high in parts)
        if node.op in ("mul", "div") and all(low >= 0 for low, _ in parts):
            return 0.0, math.inf
        return _EVERYTHING


def _clipped(graph: Graph, node: Node, low: float, high: float) -> list[Node]:
    """The operator between a node and the quantized value it made; a Relu takes a top in itself."""
    ends = {"low": low if low > -math.inf else None, "high": high if high < math.inf else None}
    op = "clamp" if low != 0.0 or high not in (6.0, math.inf) else "relu6" if high == 6.0 else "relu"
    attrs = ends if op == "clamp" else {}
    if node.op == "relu" and low == 0.0:
        node.op, node.attrs = op, attrs
        return []
    value = node.output
    inner = Value(graph.fresh_name(f"{value.name}/unclipped"), value.shape, value.dtype)
    node.outputs = [inner]
    return [Node(op, [inner], [value], attrs, node.source)]


def _becomes_hardsigmoid(node: Node, within: _Intervals) -> bool:
    """x * (1/6) + 1/2 on a grid that ends at 0 and 1."""
    product = within.producers.get(node.inputs[0]) if node.op == "add" else None  # type: ignore[arg-type]
    if product is None or product.op != "mul" or node.output.quant is None:
        return False
    x, factor, half = product.inputs[0], _number(product.inputs[1]), _number(node.inputs[1])
    if not factor or abs(1 / factor - 6.0) > 1e-4 or half != 0.5 or x is None:
        return False
    if x.shape != node.output.shape or folded_bounds(node.output.quant) != (0.0, 1.0):
        return False
    node.op, node.inputs, node.attrs = "hardsigmoid", [x], {}
    return True


def _number(value: Value | None) -> float | None:
    if value is None or value.data is None or value.data.numel() != 1:
        return None
    return float(value.data.reshape(()))
