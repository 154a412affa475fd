"""A quantized graph as an nn.Module that trains: forward the integers of the file, backward straight through.

Forward is the simulation (`edgekit.quantize.simulate`) term by term: codes travel between nodes, biases are
rounded to the int32 grid of input scale times weight scale, convolutions sum integers, what only moves
numbers moves codes, and everything else runs on reals and is rounded to its grid. What is trained is what
ships.

Parameters are the folded weights and biases under their paths, in real numbers, and scales as logarithms of
what calibration chose: `scales`, one for each group of activations that share theirs, and `weight_scales`,
a vector a weight, one entry an output channel. Zero points and dictated scales stay.

Enters: an annotated graph; nothing of it is written. Leaves: the module, and `to_graph`, the annotated graph
with the present numbers.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn

from edgekit.graph.boundaries import crossings, meet_types
from edgekit.graph.ir import Graph, Node, QuantParams, Value
from edgekit.graph.module import GraphModule, See
from edgekit.graph.ops import MOVES, OPS
from edgekit.graph.run import run
from edgekit.qat.scales import Group, groups
from edgekit.qat.straight_through import rounded, to_codes, to_reals, weighted_sum
from edgekit.quantize import qparams, rules
from edgekit.quantize.simulate import code_bounds, in_integers

Tensor = torch.Tensor
_BIAS_LIMIT = 2.0**30  # as `qparams.fit_bias`


class QuantizedModule(GraphModule):
    """An annotated graph to train, to copy and to save like any other module."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(replace(graph, derivations=[]))
        self._groups: list[Group] = groups(self._graph)
        self._group_of = {value: i for i, group in enumerate(self._groups) for value in group.values}
        self._learning = [i for i, group in enumerate(self._groups) if group.learns]
        self._row = {index: row for row, index in enumerate(self._learning)}
        start = torch.tensor([group.quant.scale[0] for group in self._groups], dtype=torch.float32)
        self._calibrated = self._keep("quantization.calibrated", start)
        self.scales_path = self._keep("quantization.scales", nn.Parameter(torch.zeros(len(self._learning))))
        self._weight_scales: dict[Value, tuple[str, str]] = {}  # paths of calibrated, learned
        for value in _weights(self._graph, self._paths):
            assert value.quant is not None
            path, scale = self._paths[value], torch.tensor(value.quant.scale, dtype=torch.float32)
            learned = self._keep(f"{path}_scale", nn.Parameter(torch.zeros_like(scale)))
            self._weight_scales[value] = self._keep(f"{path}_calibrated", scale), learned
        self._computed, self._origin, self._stored_in = _with_conversions(self._graph)

    def _keep(self, name: str, tensor: Tensor) -> str:
        """Register a tensor where `name` goes; returns its path."""
        at, part = self._place(name)
        if isinstance(tensor, nn.Parameter):
            at.register_parameter(part, tensor)
        else:
            at.register_buffer(part, tensor)
        return f"{path}.{part}" if (path := self._path_of(at)) else part

    def watched(self, inputs: Sequence[Tensor], see: See | None = None) -> list[Tensor]:
        """All outputs, in real numbers on their grids; see `GraphModule.watched`."""
        now = _Pass(self)
        outputs = run(self._computed, inputs, lambda value, x: now.value(value, x, see), now.node)
        return [now.real(value, x) for value, x in zip(self._computed.outputs, outputs, strict=True)]

    def to_graph(self) -> Graph:
        """A new annotated graph with the present weights, biases and scales."""
        graph = super().to_graph()
        now = _Pass(self)
        with torch.no_grad():
            for new, old in zip(graph.values(), self._graph.values(), strict=True):
                if old in self._group_of:
                    group = self._groups[self._group_of[old]]
                    if group.learns:
                        scale = float(now.scale(old))
                        new.quant = QuantParams((scale,), group.quant.zero_point, group.quant.dtype)
                        new.range = _moved(old, scale / group.quant.scale[0])
                elif old in self._weight_scales and old.quant is not None and new.data is not None:
                    scales = now.weight_scale(old).cpu().tolist()
                    new.quant = QuantParams(tuple(scales), old.quant.zero_point, "int8", old.quant.axis)
                    new.range = (float(new.data.min()), float(new.data.max()))
        return graph


def held(module: QuantizedModule, path: str) -> Tensor:
    """The parameter or buffer at a path."""
    found: Tensor = operator.attrgetter(path)(module)
    return found


def weight_scales(module: QuantizedModule) -> dict[str, str]:
    """The path of each integer weight -> that of the logarithms of its scales."""
    return {module._paths[value]: learned for value, (_, learned) in module._weight_scales.items()}


def biases(module: QuantizedModule) -> set[str]:
    """The paths of the int32 biases."""
    found = {rules.bias_of(node) for node in module._graph.nodes if in_integers(node)}
    return {module._paths[value] for value in found if value is not None and value in module._paths}


def depthwise(module: QuantizedModule) -> set[str]:
    """The paths of the weights of depthwise convolutions."""
    found = set()
    for node in module._graph.nodes:
        weight = rules.weight_of(node)
        if weight in module._weight_scales and node.op == "conv2d" and node.attrs["groups"] > 1:
            assert weight is not None
            if weight.shape[1] == 1:
                found.add(module._paths[weight])
    return found


def grid(module: QuantizedModule, path: str) -> Callable[[], Tensor]:
    """What gives the present steps of a weight, broadcasting over it."""
    value = next(value for value in module._weight_scales if module._paths[value] == path)
    calibrated, learned = module._weight_scales[value]

    def now() -> Tensor:
        return _along(held(module, calibrated) * torch.exp(held(module, learned)), value)

    return now


def units(module: QuantizedModule) -> dict[str, Tensor]:
    """The size of one step of each weight and bias, a weight's own and a bias's output's, as calibrated.

    Each broadcasts over its parameter.
    """
    found: dict[str, Tensor] = {}
    for value in module._weight_scales:
        assert value.quant is not None
        found[module._paths[value]] = qparams.scales_of(value.quant, len(value.shape))
    for node in module._graph.nodes:
        bias = rules.bias_of(node)
        if bias is not None and bias in module._paths and in_integers(node) and node.output.quant:
            found[module._paths[bias]] = torch.tensor(node.output.quant.scale[0])
    return found


class _Pass:
    """One forward pass: the scales as they are now, each computed once."""

    def __init__(self, module: QuantizedModule) -> None:
        self.module = module
        calibrated, learned = held(module, module._calibrated), held(module, module.scales_path)
        self.fixed = calibrated.unbind()
        self.learned = (torch.exp(learned) * calibrated[module._learning]).unbind()
        self.of_weights: dict[Value, Tensor] = {}
        self.least = _least_scales(module, self)

    def scale(self, value: Value) -> Tensor:
        """The scale of an activation, a plain number as float32."""
        own = self.module._origin.get(value)
        if own is None or own not in self.module._group_of:
            assert value.quant is not None
            return torch.tensor(value.quant.scale[0], device=self.fixed[0].device)
        index = self.module._group_of[own]
        row = self.module._row.get(index)
        return self.fixed[index] if row is None else self.learned[row]

    def weight_scale(self, value: Value) -> Tensor:
        """The scales of a weight's channels (O,), never so small that a bias would not fit in int32."""
        own = self.module._origin[value]
        if own not in self.of_weights:
            calibrated, learned = (held(self.module, path) for path in self.module._weight_scales[own])
            grown, least = calibrated * torch.exp(learned), self.least.get(own)
            self.of_weights[own] = grown if least is None else torch.maximum(grown, least)
        return self.of_weights[own]

    def real(self, value: Value, codes: Tensor) -> Tensor:
        """What codes stand for; of a value without parameters they are reals."""
        if value.quant is None:
            return codes
        if self.module._origin.get(value) not in self.module._weight_scales:
            return to_reals(codes, self.scale(value))
        return codes * _along(self.weight_scale(value), value)

    # values
    def value(self, value: Value, x: Tensor, see: See | None) -> Tensor:
        """A value as its readers take it."""
        if value.is_constant:
            return self.constant(value, x)
        if value in self.module._computed.inputs:
            x = self.quantized(value, x) if value.quant is not None else x
        if see is None:
            return x
        shown = self.real(value, x)
        given = see(value.name, shown)
        if given is shown:
            return x
        return given if value.quant is None else self.quantized(value, given)

    def constant(self, value: Value, stored: Tensor) -> Tensor:
        own = self.module._stored_in.get(value)
        x = self.module._tensor(own) if own in self.module._paths else stored
        if value.quant is None:
            return x
        if self.module._origin.get(value) not in self.module._weight_scales:
            return self.quantized(value, x)
        limit = float(qparams.WEIGHT_MAX)
        return to_codes(x, _along(self.weight_scale(value), value), -limit, limit, divides=True)

    def quantized(self, value: Value, x: Tensor, activation: str | None = None) -> Tensor:
        """Reals to codes, with a fused activation as bounds."""
        return to_codes(x, self.scale(value), *self.bounds(value, activation), divides=True)

    def bounds(self, value: Value, activation: str | None = None) -> tuple[float, float | Tensor]:
        assert value.quant is not None
        scale = self.scale(value)
        quant = QuantParams((float(scale.detach()),), value.quant.zero_point, value.quant.dtype)
        low, high = code_bounds(quant, activation)
        if activation == "relu6" and high < code_bounds(quant)[1] and scale.requires_grad:
            return low, rounded(6.0 / scale.double()).float()
        return low, high

    # nodes
    def node(self, node: Node, args: list[Tensor | None]) -> tuple[Tensor, ...]:
        """Codes in, codes out, for one node."""
        if in_integers(node):
            return (self.summed(node, args),)
        if node.op in MOVES and self.same(node):
            return self.moved(node, args)
        out, activation = node.output, node.attrs.get("activation")
        exact = _EXACT.get(node.op)
        if exact is not None and out.quant and all(v.quant is not None for v in node.operands):
            x, factor = exact(self, node, args)
            return (to_codes(x, factor, *self.bounds(out, activation)),)
        reals = [
            None if v is None or x is None else self.real(v, x)
            for v, x in zip(node.inputs, args, strict=True)
        ]
        found = OPS[node.op].fn(*reals, **node.attrs)
        results = tuple(found) if isinstance(found, tuple | list) else (found,)
        return tuple(
            self.quantized(v, x) if v.quant else x for v, x in zip(node.outputs, results, strict=True)
        )

    def summed(self, node: Node, args: list[Tensor | None]) -> Tensor:
        """A convolution or matrix product in integers, with its int32 bias."""
        weight, bias, x = rules.weight_of(node), rules.bias_of(node), node.inputs[0]
        assert weight is not None and x is not None
        sums = OPS[node.op].fn(args[0], args[1], None, **{**node.attrs, "activation": None})
        assert isinstance(sums, Tensor)
        step = self.weight_scale(weight).double() * self.scale(x).double()
        view = (-1,) if node.op == "linear" else (-1, 1, 1)
        if bias is not None:
            given = args[2]
            assert given is not None and x.quant is not None
            whole = rounded(given.double() / step)
            if x.quant.dtype != "int16":
                whole = whole.clamp(*qparams.LIMITS["int32"])
            sums = sums + whole.float().view(view)
        bounds = self.bounds(node.output, node.attrs.get("activation"))
        factor = (step / self.scale(node.output).double()).float().view(view)
        if self.weight_scale(weight).requires_grad:
            return to_codes(sums, factor, *bounds)
        gain = torch.log(self.scale(x)) - torch.log(self.scale(node.output))
        return to_codes(sums, factor.detach(), *bounds, gain=gain)

    def same(self, node: Node) -> bool:
        """Whether inputs and outputs share their parameters, or none has any."""
        return len({v.quant for v in (*node.operands, *node.outputs)}) == 1

    def moved(self, node: Node, args: list[Tensor | None]) -> tuple[Tensor, ...]:
        attrs = node.attrs
        if node.op == "pad" and attrs.get("value") and node.output.quant:
            attrs = {**attrs, "value": float(self.quantized(node.output, torch.tensor(attrs["value"])))}
        found = OPS[node.op].fn(*args, **attrs)
        return tuple(found) if isinstance(found, tuple | list) else (found,)

    def ratio(self, node: Node, index: int) -> Tensor:
        """Steps of the output in one of an input's."""
        value = node.inputs[index]
        assert value is not None
        return self.scale(value).double() / self.scale(node.output).double()


Exact = Callable[[_Pass, Node, list[Tensor | None]], tuple[Tensor, Tensor]]


def _joined(sign: float) -> Exact:
    def joined(now: _Pass, node: Node, args: list[Tensor | None]) -> tuple[Tensor, Tensor]:
        a, b = args
        assert a is not None and b is not None
        total = weighted_sum(a, b, now.ratio(node, 0), sign * now.ratio(node, 1))
        return total, torch.ones((), device=total.device)

    return joined


def _product(now: _Pass, node: Node, args: list[Tensor | None]) -> tuple[Tensor, Tensor]:
    a, b = args
    assert a is not None and b is not None and node.inputs[1] is not None
    return torch.mul(a, b), (now.ratio(node, 0) * now.scale(node.inputs[1]).double()).float()


def _reduced(now: _Pass, node: Node, args: list[Tensor | None]) -> tuple[Tensor, Tensor]:
    result = OPS[node.op].fn(args[0], **node.attrs)
    assert isinstance(result, Tensor)
    return result, now.ratio(node, 0).float()


# as `simulate._EXACT`: computed on codes, then scaled by one factor
_EXACT: dict[str, Exact] = {
    "add": _joined(1.0),
    "sub": _joined(-1.0),
    "mul": _product,
    "mean": _reduced,
    "sum": _reduced,
    "avg_pool2d": _reduced,
    "adaptive_avg_pool2d": _reduced,
    "resize_bilinear": _reduced,
}


def _weights(graph: Graph, paths: dict[Value, str]) -> list[Value]:
    """The constants that integer kernels take, a scale an output channel."""
    found = dict.fromkeys(rules.weight_of(node) for node in graph.nodes)
    return [v for v in found if v is not None and v in paths and v.quant and v.quant.axis is not None]


def _with_conversions(graph: Graph) -> tuple[Graph, dict[Value, Value], dict[Value, Value]]:
    """The graph that is computed, its values' counterparts in `graph`, and whose numbers its constants hold.

    Where int8 meets int16 it has the conversions of the file.
    """
    same = {value: value for value in graph.values()}
    if not any(map(crossings, graph.nodes)):
        return graph, same, same
    computed = graph.copy()
    origin = dict(zip(computed.values(), graph.values(), strict=True))
    holders = {id(value.data): origin[value] for value in computed.constants()}
    meet_types(computed)
    return computed, same | origin, {value: holders[id(value.data)] for value in computed.constants()}


@torch.no_grad()
def _least_scales(module: QuantizedModule, now: _Pass) -> dict[Value, Tensor]:
    """Of each weight the scales below which a bias would not fit in int32."""
    found: dict[Value, Tensor] = {}
    for node in module._graph.nodes:
        weight, bias, x = rules.weight_of(node), rules.bias_of(node), node.inputs[0]
        if weight not in module._weight_scales or bias not in module._paths or not in_integers(node):
            continue
        assert weight is not None and bias is not None and x is not None
        least = (module._tensor(bias).abs().double() / (now.scale(x).double() * _BIAS_LIMIT)).float()
        found[weight] = torch.maximum(found[weight], least) if weight in found else least
    return found


def _along(scales: Tensor, value: Value) -> Tensor:
    """Scales of a weight's channels (O,), shaped to broadcast over it."""
    assert value.quant is not None and value.quant.axis is not None
    return scales.reshape([-1 if d == value.quant.axis else 1 for d in range(len(value.shape))])


def _moved(value: Value, factor: float) -> tuple[float, float] | None:
    """The range of a value whose scale grew."""
    return None if value.range is None else (value.range[0] * factor, value.range[1] * factor)
