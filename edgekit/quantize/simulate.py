"""The integer arithmetic of an int8 runtime, run in float32 over an annotated graph.

Between nodes travel codes: integer - zero_point, exactly representable in float32. A convolution multiplies
codes by weight codes (sums of integers: exact below 2**24), adds the int32 bias, scales each channel by
input_scale * weight_scale / output_scale in float32, rounds half to even and clamps, which is XNNPACK's
`clamp(rint(f32(acc) * multiplier) + zero_point)` term by term. Ops that only move data move codes. Everything
else runs on reals and is rounded to its output's grid, as the table form of an activation does.

Values without parameters (float islands) travel as reals. Between int8 and int16, numbers are rounded to the
reader's grid where they cross, as files do it, from which only ties may differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch

from edgekit.graph.batch import batch_dims
from edgekit.graph.boundaries import crossings, is_dynamic, meet_types, rounded_by_row
from edgekit.graph.ir import Graph, Node, QuantParams, Value
from edgekit.graph.ops import MOVES, OPS
from edgekit.graph.run import finish, walk
from edgekit.quantize import qparams, rules
from edgekit.quantize.fused import Arguments
from edgekit.quantize.images import BATCH, Given, Images

Tensor = torch.Tensor
_INF = math.inf


def simulate(
    graph: Graph,
    images: Given | Images,
    batch: int = BATCH,
    dims: Mapping[Value, int | None] | None = None,
) -> list[Tensor]:
    """Run an annotated graph as an int8 runtime would.

    Args:
        images: (N, ...) real numbers, one tensor per graph input.
        dims: `batch_dims` of the graph, where the caller has them.
    Returns: one real tensor per graph output, on the output's grid.
    """
    images = images if isinstance(images, Images) else Images(graph, images)
    computed = graph
    if any(map(crossings, graph.nodes)):  # as the file has it, with a conversion where types meet
        computed = graph.copy()
        meet_types(computed)
    simulator = Simulator(computed)
    dims = batch_dims(graph) if dims is None else dims
    with torch.inference_mode():
        pieces = [simulator.run(inputs) for inputs in images.batches(images.at_once(batch))]
    along = [dims.get(value) or 0 for value in graph.outputs]
    return [
        torch.cat([part.reshape(1) if part.ndim == 0 else part for part in parts], dim)
        for parts, dim in zip(zip(*pieces, strict=True), along, strict=True)
    ]


def quantized(value: Value) -> bool:
    return value.quant is not None


def in_integers(node: Node) -> bool:
    """Whether a convolution or matrix product sums integers."""
    return rules.weight_of(node) is not None and quantized(node.output) and _all_quantized(node.inputs[:2])


def to_codes(tensor: Tensor, quant: QuantParams, activation: str | None = None) -> Tensor:
    """Reals to codes, with a fused activation as bounds."""
    return clamp_codes_(torch.div(tensor, quant.scale[0]), quant, activation)


def clamp_codes_(scaled: Tensor, quant: QuantParams, activation: str | None = None) -> Tensor:
    """Round values already in units of the scale and clamp them to the dtype and the activation, in place."""
    low, high = code_bounds(quant, activation)
    return scaled.round_().clamp_(low, high)


def code_bounds(quant: QuantParams, activation: str | None = None) -> tuple[float, float]:
    """The smallest and largest code of a tensor behind an activation."""
    low, high = (limit - quant.zero_point[0] for limit in qparams.LIMITS[quant.dtype])
    if activation in ("relu", "relu6"):
        low = max(low, 0)
    if activation == "relu6":
        high = min(high, round(6.0 / quant.scale[0]))
    return float(low), float(high)


class Simulator:
    """An annotated graph with its weights turned into codes once; `run` may be called for many batches."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.constants: dict[Value, Tensor] = {}
        self.biases: dict[Node, Tensor | None] = {}
        self.multipliers: dict[Node, Tensor] = {}

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """One batch, a real tensor per graph input, to real outputs."""
        start = [self.start(v, t) for v, t in zip(self.graph.inputs, inputs, strict=True)]
        results = finish(walk(self.graph, start, self.step, self.as_read))
        return [_real(t, v) for t, v in zip(results, self.graph.outputs, strict=True)]

    def start(self, value: Value, tensor: Tensor) -> Tensor:
        """A graph input as its readers take it."""
        return to_codes(tensor, value.quant) if value.quant else tensor

    def as_read(self, value: Value, tensor: Tensor) -> Tensor:
        return self.constant(value) if value.is_constant else tensor

    def constant(self, value: Value) -> Tensor:
        if value not in self.constants:
            assert value.data is not None
            data = value.data.detach()
            self.constants[value] = qparams.codes(data, value.quant) if value.quant else data
        return self.constants[value]

    def step(self, node: Node, args: Arguments) -> tuple[Tensor, ...]:
        """Codes in, codes out, for one node."""
        if in_integers(node):
            sums = self.accumulate(node, args)
            return (self.requantize(node, sums),)
        if node.op in MOVES and _same(node):
            return _on_codes(node, args)
        special = _EXACT.get(node.op)
        if special and quantized(node.output) and _all_quantized(node.operands):
            quant = node.output.quant
            assert quant is not None
            return (clamp_codes_(special(node, args), quant, node.attrs.get("activation")),)
        found = OPS[node.op].fn(*self.reals(node, args), **node.attrs)
        results = tuple(found) if isinstance(found, tuple | list) else (found,)
        return tuple(
            to_codes(t, v.quant) if v.quant else t for v, t in zip(node.outputs, results, strict=True)
        )

    def reals(self, node: Node, args: Arguments) -> Arguments:
        """The operands as a node finds them that computes in float."""
        found = [
            None if v is None or t is None else _real(t, v) for v, t in zip(node.inputs, args, strict=True)
        ]
        if is_dynamic(node) and found[0] is not None:
            found[0] = rounded_dynamically(found[0], by_row=rounded_by_row(node), last=node.op == "linear")
        return found

    def accumulate(self, node: Node, args: Arguments) -> Tensor:
        """The int32 accumulator without its bias, in the units of input_scale * weight_scale."""
        attrs = {**node.attrs, "activation": None}
        result = OPS[node.op].fn(args[0], args[1], None, **attrs)
        assert isinstance(result, Tensor)
        return result

    def requantize(self, node: Node, sums: Tensor) -> Tensor:
        """Accumulators to output codes, in place."""
        quant = node.output.quant
        assert quant is not None
        if node not in self.multipliers:
            self.prepare(node)
        multiplier, bias = self.multipliers[node], self.biases[node]
        view = (-1,) if node.op == "linear" else (-1, 1, 1)
        if bias is not None:
            sums.add_(bias.view(view))
        return clamp_codes_(sums.mul_(multiplier.view(view)), quant, node.attrs.get("activation"))

    def prepare(self, node: Node) -> None:
        """Multipliers and bias integers of a node, from the annotations as they are now."""
        x, weight, out = node.inputs[0], rules.weight_of(node), node.output
        assert x is not None and x.quant and weight is not None and weight.quant and out.quant
        scale = torch.tensor(weight.quant.scale, dtype=torch.float64)
        self.multipliers[node] = (scale * x.quant.scale[0] / out.quant.scale[0]).float()
        bias = qparams.bias_integers(node)
        self.biases[node] = None if bias is None else bias.float()


def rounded_dynamically(x: Tensor, *, by_row: bool, last: bool = False) -> Tensor:
    """Reals on the grid of 256 steps that a dynamic kernel lays over them.

    Args:
        x: (N, C, H, W), or (..., C) where `last`.
        by_row: a grid for every row of channels, else one for every image.
    """
    dims = ((-1,) if last else (1,)) if by_row else tuple(range(1, x.ndim))
    low, high = x.amin(dims, keepdim=True).clamp_(max=0.0), x.amax(dims, keepdim=True).clamp_(min=0.0)
    # one division: `255.0 / t` is a product with a rounded reciprocal, which decides ties otherwise
    steps = torch.where(high > low, torch.div(torch.tensor(255.0), high - low), torch.ones_like(high))
    least, most = low * steps, high * steps
    zero = torch.where(least + most > 1.0, -128.0 - least, 127.0 - most).clamp_(-128.0, 127.0).round_()
    return ((x * steps).round_() + zero).clamp_(-128.0, 127.0).sub_(zero).mul_(1.0 / steps)


def _real(tensor: Tensor, value: Value) -> Tensor:
    """Codes of a quantized value to reals."""
    return tensor * qparams.scales_of(value.quant, tensor.ndim) if value.quant else tensor


def _all_quantized(values: list[Value | None] | list[Value]) -> bool:
    return all(v is not None and v.quant is not None for v in values)


def _same(node: Node) -> bool:
    """Whether inputs and outputs really share their parameters (or none has any)."""
    quants = {v.quant for v in (*node.operands, *node.outputs)}
    return len(quants) == 1


def _on_codes(node: Node, args: Arguments) -> tuple[Tensor, ...]:
    attrs = node.attrs
    quant = node.output.quant
    if node.op == "pad" and attrs.get("value") and quant:
        attrs = {**attrs, "value": float(to_codes(torch.tensor(attrs["value"]), quant))}
    found = OPS[node.op].fn(*args, **attrs)
    return tuple(found) if isinstance(found, tuple | list) else (found,)


def _ratio(node: Node, index: int) -> float:
    value, out = node.inputs[index], node.output
    assert value is not None and value.quant and out.quant
    return value.quant.scale[0] / out.quant.scale[0]


def _add(node: Node, args: Arguments) -> Tensor:
    a, b = args
    assert a is not None and b is not None
    return torch.add(a * _ratio(node, 0), b, alpha=_ratio(node, 1))


def _sub(node: Node, args: Arguments) -> Tensor:
    a, b = args
    assert a is not None and b is not None
    return torch.sub(a * _ratio(node, 0), b, alpha=_ratio(node, 1))


def _mul(node: Node, args: Arguments) -> Tensor:
    a, b = args
    assert a is not None and b is not None and node.inputs[1] is not None and node.inputs[1].quant
    return torch.mul(a, b).mul_(_ratio(node, 0) * node.inputs[1].quant.scale[0])


def _reduce(node: Node, args: Arguments) -> Tensor:
    """A linear reduction of codes, requantized: mean, sum and the poolings that average."""
    result = OPS[node.op].fn(args[0], **node.attrs)
    assert isinstance(result, Tensor)
    return result.mul(_ratio(node, 0))


# Ops computed on codes and then scaled by one multiplier, as the integer kernels do.
_EXACT: dict[str, Callable[[Node, Arguments], Tensor]] = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "mean": _reduce,
    "sum": _reduce,
    "avg_pool2d": _reduce,
    "adaptive_avg_pool2d": _reduce,
    "resize_bilinear": _reduce,
}


def fake_quantize(tensor: Tensor, quant: QuantParams) -> Tensor:
    """Snap reals to the grid; gradients pass straight through where nothing was clamped (for training)."""
    scale = qparams.scales_of(quant, tensor.ndim)
    low, high = qparams.LIMITS[quant.dtype]
    if quant.axis is not None and quant.dtype == "int8":
        low = -qparams.WEIGHT_MAX
    zero_point = quant.zero_point[0]
    bounded = torch.clamp(tensor / scale, low - zero_point, high - zero_point)
    return (bounded + (bounded.round() - bounded).detach()) * scale


def on_value(value: Value, tensor: Tensor) -> Tensor:
    """A hook for `ir.run` that fake-quantizes every annotated value, differentiably."""
    return fake_quantize(tensor, value.quant) if value.quant else tensor


def sqnr_db(reference: Tensor, other: Tensor) -> float:
    """Signal to quantization noise pooled over everything: 10 log10(sum reference^2 / sum error^2)."""
    signal = float(reference.detach().double().square().sum())
    noise = float((reference.detach().double() - other.detach().double()).square().sum())
    if noise == 0.0:
        return _INF
    return 10.0 * math.log10(signal / noise) if signal > 0.0 else -_INF
