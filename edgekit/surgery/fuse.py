"""`fuse`: an expansion and the depthwise convolution behind it become one dense convolution.

    depthwise(act(expand(x)))  ->  dense(x)          of the depthwise layer's kernel, stride and channels

It has more multiplications and runs nearer to the machine's limit: where it is cheaper, costs say. It starts
from the product of both kernels, the activation between them replaced by its best line, channel by channel,
and is then fitted by least squares to what the depthwise layer gave; the layers behind it follow. Without an
activation between, and nothing added at the borders, it is the same function.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch

from edgekit.graph.channels import depthwise
from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import OPS
from edgekit.graph.run import run_node
from edgekit.graph.shapes import infer_shapes
from edgekit.passes.fold_batch_norm import affine
from edgekit.surgery.layers import Layer, Layers, channel_samples, new_weight, refit, refits
from edgekit.surgery.least_squares import MAX_UNKNOWNS
from edgekit.surgery.paired import Site
from edgekit.surgery.record import Change, Left

Tensor = torch.Tensor
_SAMPLES = 1024  # numbers a channel that the activation's line is fitted to


@dataclass(frozen=True)
class Pair:
    """wide reads activation(narrow's result), or narrow's result where there is none between."""

    narrow: Layer
    activation: Node | None
    wide: Layer


def find_pairs(graph: Graph) -> tuple[list[Pair], list[Left]]:
    """Expansions with the depthwise layer behind them, in program order, and those that cannot be fused."""
    layers, producers = Layers(graph), graph.producers()
    found, left = [], []
    for node in graph.nodes:
        if node.op != "conv2d" or not depthwise(node) or node.inputs[0] is None:
            continue
        x, activation = node.inputs[0], None
        maker = producers.get(x)
        if maker is not None and OPS[maker.op].channels == "pass" and len(maker.operands) == 1:
            activation, x = maker, maker.operands[0]
        narrow, wide = layers.by_out.get(x), layers.found.get(node)
        if narrow is None or not _pointwise(narrow.node):
            continue
        if reason := _reason(layers, narrow, activation, wide):
            left.append(Left(node.source, reason))
        else:
            assert wide is not None
            found.append(Pair(narrow, activation, wide))
    return found, left


def _pointwise(node: Node) -> bool:
    a = node.attrs
    whole = node.op == "conv2d" and a["groups"] == 1 and tuple(a["stride"]) == (1, 1)
    return whole and node.inputs[1].shape[2:] == (1, 1) and not any(a["padding"])  # type: ignore[union-attr]


def _reason(layers: Layers, narrow: Layer, activation: Node | None, wide: Layer | None) -> str:
    """Why the two stay apart; "" where they can be one."""
    if wide is None:
        return "its weights are shared or computed"
    between = [narrow.out] if activation is None else [narrow.out, activation.output]
    if any(layers.counts[value] != 1 or value in layers.graph.outputs for value in between):
        return "what comes between expansion and depthwise is read elsewhere too"
    unknowns = narrow.node.inputs[1].shape[1] * _area(wide.node)  # type: ignore[union-attr]
    if unknowns > MAX_UNKNOWNS:
        return f"{unknowns:,} weights a channel: at most {MAX_UNKNOWNS:,} are fitted"
    return ""


def _area(node: Node) -> int:
    _, _, height, width = node.inputs[1].shape  # type: ignore[union-attr]
    return height * width


def fuse_pairs(
    graph: Graph, reference: Graph, only: Collection[str] | None
) -> tuple[list[Change], list[Left], list[Site]]:
    """Fuse pairs of `graph` in place; the sites give the dense layers their weights."""
    found, left = find_pairs(graph)
    meant = {v.name: v for v in reference.values()}
    changes, sites = [], list[Site]()
    for pair in found:
        if only is not None and pair.wide.name not in only:
            continue
        there = meant.get(pair.wide.out.name)
        if there is None or there.shape != pair.wide.out.shape:
            left.append(Left(pair.wide.name, "the original has no counterpart"))
            continue
        sites += _fuse(graph, pair, there)
        kernel = pair.wide.node.inputs[1].shape  # type: ignore[union-attr]
        channels, size = f"{kernel[1]} to {kernel[0]}", "x".join(map(str, kernel[2:]))
        changes.append(Change(pair.wide.name, f"{pair.narrow.name} and depthwise to one {channels} {size}"))
    fused = {change.module for change in changes}
    layers = Layers(graph)
    outs = [layer.out for layer in layers.found.values() if layer.name in fused]
    taken = {site.before for site in sites}
    return changes, left, [*sites, *refits(graph, layers.first_reached(outs), reference, taken)]


def _fuse(graph: Graph, pair: Pair, there: Value) -> list[Site]:
    """One layer in the place of two; gives where it is started and where it is fitted."""
    narrow, wide = pair.narrow, pair.wide
    kernel, bias = _acting(narrow)
    small = wide.node.inputs[1]
    assert small is not None and small.data is not None
    middle = small.data.detach().double()  # (O, 1, kh, kw)
    activation = pair.activation

    def dense(slope: Tensor) -> Tensor:
        return middle * (kernel * slope.reshape(-1, 1, 1, 1))  # (O, I, kh, kw)

    new_weight(wide, dense(torch.ones(len(kernel), dtype=torch.float64)))
    wide.node.inputs[0] = narrow.node.inputs[0]
    wide.node.attrs["groups"] = 1
    if not wide.shifts:
        zeros = torch.zeros(len(kernel))
        wide.node.inputs[2] = Value(graph.fresh_name(f"{wide.out.name}.bias"), tuple(zeros.shape), data=zeros)
    graph.remove_dead()
    assert infer_shapes(wide.node) == (wide.node.output.shape,)
    x = wide.node.inputs[0]
    assert x is not None

    def start(inputs: list[Tensor], _: list[Tensor]) -> None:
        """What the expansion's constant and the line's level bring goes into the dense layer's constant."""
        slope, level = torch.ones_like(bias), torch.zeros_like(bias)
        if activation is not None:
            made = [_run(narrow, t) for t in inputs]
            moved = [run_node(activation, [t])[0] for t in made]
            xs, ys = (channel_samples(side, False, _SAMPLES) for side in (made, moved))
            mean_x, mean_y = xs.mean(1), ys.mean(1)
            spread = (xs - mean_x[:, None]).square().mean(1).clamp_min(1e-12)
            slope = ((xs - mean_x[:, None]) * (ys - mean_y[:, None])).mean(1) / spread
            level = mean_y - slope * mean_x
        new_weight(wide, dense(slope))
        _raise(wide, middle.flatten(1).sum(1) * (slope * bias + level))

    fitted = refit(wide, there)
    # Of two sites at one layer the first in the list is visited first: it starts where the other goes on.
    return [Site(wide.node, x, there, start), *([fitted] if fitted is not None else [])]


def _run(layer: Layer, x: Tensor) -> Tensor:
    """What a layer gives, its batch norm included."""
    for node in (layer.node, layer.norm):
        if node is not None:
            x = run_node(node, [x, *(None if v is None else v.data for v in node.inputs[1:])])[0]
    return x


def _acting(layer: Layer) -> tuple[Tensor, Tensor]:
    """Kernel (O, I, 1, 1) and constant (O,) of a layer, its batch norm included."""
    weight, own = (None if v is None else v.data for v in layer.node.inputs[1:3])
    assert weight is not None
    kernel = weight.detach().double()
    bias = torch.zeros(len(kernel), dtype=torch.float64) if own is None else own.detach().double()
    if layer.norm is None:
        return kernel, bias
    gain, offset = affine(layer.norm)
    return kernel * gain.reshape(-1, 1, 1, 1), bias * gain + offset


def _raise(layer: Layer, constant: Tensor) -> None:
    """Add a constant to the sums of a layer, in front of its batch norm."""
    bias = layer.node.inputs[2]
    if bias is not None and bias.data is not None:
        bias.data = (bias.data.double() + constant).float()
    elif layer.norm is not None:
        mean = layer.norm.inputs[3]
        assert mean is not None and mean.data is not None
        mean.data = (mean.data.double() - constant).float()
