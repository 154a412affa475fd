"""Layers with weights as surgery sees them: a convolution or linear layer with the batch norm behind it.

A layer's result is `out`, behind its batch norm. Here it is given other weights (its batch norm then holds
the mean and variance of the new sums, so that it can be trained on), a scale and a shift of its output, or a
scale and a shift of the channels that it reads. All constants are edited in place: the graph is a copy, and
only constants that nobody else reads are touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from edgekit.graph.channels import carried
from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import OPS, WEIGHT_AXIS
from edgekit.passes.fold_batch_norm import affine, has_statistics
from edgekit.surgery import least_squares
from edgekit.surgery.paired import Site

Tensor = torch.Tensor
_AVERAGES = ("mean", "adaptive_avg_pool2d")


@dataclass(frozen=True)
class Layer:
    node: Node
    norm: Node | None

    @property
    def out(self) -> Value:
        return (self.norm or self.node).output

    @property
    def name(self) -> str:
        return self.node.source

    @property
    def shifts(self) -> bool:
        """Whether a constant can be added to its output."""
        return self.norm is not None or self.node.inputs[2] is not None


class Layers:
    """The layers of a graph whose constants are nobody else's."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.counts = graph.use_counts()
        self.users = graph.users()
        self.found: dict[Node, Layer] = {}
        self.by_out: dict[Value, Layer] = {}
        for node in graph.nodes:
            if node.op in ("conv2d", "linear") and self._own(node) and not node.attrs.get("activation"):
                layer = Layer(node, self._norm(node))
                self.found[node] = self.by_out[layer.out] = layer

    def _own(self, node: Node) -> bool:
        constants = [v for v in node.inputs[1:] if v is not None]
        return all(v.is_constant and self.counts[v] == 1 for v in constants)

    def _norm(self, node: Node) -> Node | None:
        readers = self.users.get(node.output, [])
        if self.counts[node.output] != 1 or not readers or readers[0].op != "batch_norm":
            return None
        norm = readers[0]
        rank = 2 if node.op == "linear" else 4
        whole = all(v is not None for v in norm.inputs[1:]) and len(node.output.shape) == rank
        return norm if whole and has_statistics(norm) and self._own(norm) else None

    def first_reached(self, values: Iterable[Value]) -> list[Layer]:
        """The layers that read what becomes of `values` before any other weights do, in program order."""
        changed = set(values)
        found = []
        for node in self.graph.nodes:
            if not changed & set(node.operands):
                continue
            if node.op in WEIGHT_AXIS:
                if node in self.found and node.inputs[0] in changed:
                    found.append(self.found[node])
            else:
                changed.update(node.outputs)
        return found

    def readers(self, value: Value) -> Readers | None:
        """The layers that can take in a scale of the channels of `value`; None where others see it too."""
        found: list[Layer] = []
        factors: set[Value] = set()  # what a scaled value is multiplied by: it must not be scaled as well
        waiting, scaled, shifts = [value], {value}, True
        axis = None if len(value.shape) in (2, 4) else -1
        while waiting:
            at = waiting.pop()
            if at in self.graph.outputs:
                return None
            for node in self.users.get(at, []):
                layer = self.found.get(node)
                if layer is not None and node.inputs[0] is at and self._reads_channels(node, axis):
                    found.append(layer)
                    shifts = shifts and layer.shifts
                elif axis is None and self._keeps_channels(node, at):
                    waiting += node.outputs
                    scaled.update(node.outputs)
                    if node.op == "mul":
                        factors.update(v for v in node.operands if v is not at)
                    shifts = shifts and (node.op in _AVERAGES or OPS[node.op].movement == "view")
                else:
                    return None
        if not found or factors & scaled:
            return None
        return Readers(tuple(dict.fromkeys(found)), shifts)

    @staticmethod
    def _reads_channels(node: Node, axis: int | None) -> bool:
        x = node.inputs[0]
        assert x is not None
        return node.op == "conv2d" or axis == -1 or len(x.shape) == 2

    @staticmethod
    def _keeps_channels(node: Node, value: Value) -> bool:
        """Whether scaling the channels of `value` by positive factors scales those of all results."""
        if node.op == "mul":
            others = [v for v in node.operands if v is not value]
            return len(others) == 1 and not node.attrs.get("activation")
        row = OPS[node.op]  # relu6 is bounded; what is placed elsewhere need not be whole channels
        if row.homogeneous and row.movement != "place" and len(node.operands) == 1 and node.op != "relu6":
            return carried(node) == [value]
        return False


class Readers(NamedTuple):
    """layers: in no order. shifts: whether they can take in a shift of the channels as well."""

    layers: tuple[Layer, ...]
    shifts: bool


def refit(layer: Layer, meant: Value, beside: Value | None = None) -> Site | None:
    """The site that gives a layer the weights with which `out`, with `beside` added to it, is nearest to
    `meant`; None where none can.
    """
    if not least_squares.fits(layer.node):
        return None

    def fit(inputs: list[Tensor], wanted: list[Tensor]) -> None:
        found = least_squares.fit(layer.node, _weight(layer), inputs, wanted, intercept=layer.shifts)
        if found is not None:
            _put(layer, found)

    x = layer.node.inputs[0]
    assert x is not None
    return Site(layer.node, x, meant, fit, beside)


def refits(graph: Graph, layers: Iterable[Layer], reference: Graph, skip: Iterable[Node] = ()) -> list[Site]:
    """A site for each layer that has its counterpart, by the name of its result, in the reference.

    Where the result joins a sum whose other part is there by then, the sum is what is to be met: the layer
    repairs what the other part has lost.
    """
    meant, skipped = {v.name: v for v in reference.values()}, set(skip)
    sums, places = _sums(graph, reference), {node: i for i, node in enumerate(graph.nodes)}
    made = {v: i for node, i in places.items() for v in node.outputs}
    sites = []
    for layer in dict.fromkeys(layers):
        there = meant.get(layer.out.name)
        if layer.node in skipped or there is None or there.shape != layer.out.shape:
            continue
        total, beside = sums.get(layer.out) or (there, None)
        if beside is not None and made.get(beside, -1) > places[layer.node]:
            total, beside = there, None
        if site := refit(layer, total, beside):
            sites.append(site)
    return sites


def _sums(graph: Graph, reference: Graph) -> dict[Value, tuple[Value, Value]]:
    """For what is read by one addition alone: the reference's sum and the other part of this one."""
    theirs = {node.output.name: node for node in reference.nodes if node.op == "add"}
    counts = graph.use_counts()
    found: dict[Value, tuple[Value, Value]] = {}
    for node in graph.nodes:
        there = theirs.get(node.output.name)
        if node.op != "add" or there is None or len(node.operands) != 2 or _acts(node) or _acts(there):
            continue
        for value, other in (node.operands, node.operands[::-1]):
            same = value.shape == other.shape == there.output.shape
            if same and counts[value] == 1 and not other.is_constant:
                found[value] = (there.output, other)
    return found


def _acts(node: Node) -> bool:
    return bool(node.attrs.get("activation"))


def scale_output(layer: Layer, scale: Tensor, shift: Tensor | None = None) -> None:
    """out := scale * out + shift, per channel (O,); a shift where the layer `shifts`."""
    shift = torch.zeros_like(scale) if shift is None else shift
    if layer.norm is not None:
        gamma, beta = layer.norm.inputs[1:3]
        _set(gamma, _data(gamma) * scale)
        _set(beta, _data(beta) * scale + shift)
        return
    weight, bias = layer.node.inputs[1:3]
    data = _data(weight)
    _set(weight, data * scale.reshape(-1, *[1] * (data.ndim - 1)))
    if bias is not None:
        _set(bias, _data(bias) * scale + shift)


def scale_inputs(layer: Layer, scale: Tensor, shift: Tensor | None = None) -> None:
    """The layer reads scale * x + shift where it read x, per channel (I,).

    At borders that are filled with zeros the shift is right only in the middle.
    """
    weight = layer.node.inputs[1]
    data = _data(weight)
    groups = layer.node.attrs.get("groups", 1)

    def columns(factor: Tensor) -> Tensor:
        """(O, I of its group, 1, 1)."""
        own = factor.double().reshape(groups, 1, -1).expand(-1, data.shape[0] // groups, -1)
        return own.reshape(data.shape[0], -1, *[1] * (data.ndim - 2))

    if shift is not None and bool(shift.any()):
        added = (data * columns(shift)).flatten(1).sum(1)
        if layer.norm is not None:
            beta = layer.norm.inputs[2]
            _set(beta, _data(beta) + affine(layer.norm)[0] * added)
        else:
            bias = layer.node.inputs[2]
            _set(bias, _data(bias) + added)
    _set(weight, data * columns(scale))


def _weight(layer: Layer) -> Tensor:
    """The weight as it acts on `out`, behind the batch norm."""
    data = _data(layer.node.inputs[1])
    if layer.norm is None:
        return data
    return data * affine(layer.norm)[0].reshape(-1, *[1] * (data.ndim - 1))


def _put(layer: Layer, found: least_squares.Fitted) -> None:
    """Weights that act on `out` into the layer; its batch norm keeps the part of the scale that it had."""
    weight, bias = layer.node.inputs[1:3]
    if layer.norm is None:
        _set(weight, found.weight)
        if bias is not None:
            _set(bias, found.shift)
        return
    gain = affine(layer.norm)[0]
    gain = torch.where(gain.abs() > 1e-3 * gain.abs().max().clamp_min(1e-12), gain, torch.ones_like(gain))
    _set(weight, found.weight / gain.reshape(-1, *[1] * (found.weight.ndim - 1)))
    gamma, beta, mean, var = layer.norm.inputs[1:]
    spread = found.var / gain.square()
    own = torch.zeros_like(gain) if bias is None else _data(bias)
    _set(gamma, gain * (spread + layer.norm.attrs["eps"]).sqrt())
    _set(beta, found.shift + found.mean)
    _set(mean, found.mean / gain + own)
    _set(var, spread)


def new_weight(layer: Layer, data: Tensor) -> None:
    """Another kernel in the layer, of another size."""
    weight = layer.node.inputs[1]
    assert weight is not None
    weight.shape = tuple(data.shape)
    _set(weight, data)


def _data(value: Value | None) -> Tensor:
    assert value is not None and value.data is not None
    return value.data.detach().double()


def _set(value: Value | None, data: Tensor) -> None:
    assert value is not None
    value.data = data.float().contiguous()


def channel_samples(tensors: Sequence[Tensor], last: bool, count: int) -> Tensor:
    """(C, at most `count`) numbers of each channel, spread over all images."""
    each = -(-count // len(tensors))
    generator = torch.Generator().manual_seed(0)
    found = []
    for t in tensors:
        rows = t.movedim(-1 if last else 1, 0).flatten(1)
        if rows.shape[1] > each:
            rows = rows[:, torch.randint(rows.shape[1], (each,), generator=generator)]
        found.append(rows)
    return torch.cat(found, 1).double()
