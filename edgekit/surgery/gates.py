"""`no-se`: squeeze-and-excitation gates become their mean over the calibration images.

A gate is a factor between two bounds (sigmoid, hard sigmoid, softmax, tanh, a clamp) that is made of means,
maxima or sums over all places and multiplies a map channel by channel: squeeze-excite in every spelling,
effective SE, ECA, channel attention of CBAM, selective kernels. What it is made of does not matter, nor what
the modules are called. Its mean is folded into the layers that read the product, or else into the layer that
makes the map, which are then fitted by least squares to what the gated network gives; where neither can take
it, a multiplication by a constant stays.

Gates between 0.1 and 0.5 are usual: leaving one out is not the same as leaving it at 1.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import OPS, Fixed
from edgekit.surgery.layers import Layer, Layers, refit, refits, scale_inputs, scale_output
from edgekit.surgery.paired import Site, averages
from edgekit.surgery.record import Change, Left

Tensor = torch.Tensor


@dataclass(frozen=True)
class Gate:
    """product = map * gate."""

    product: Node
    map: Value
    gate: Value


def find_gates(graph: Graph) -> tuple[list[Gate], list[Left]]:
    """Gates in program order, and the multiplications that look like one and are none."""
    producers = graph.producers()
    found, left = [], []
    for node in graph.nodes:
        if node.op != "mul" or len(node.output.shape) != 4 or node.attrs.get("activation"):
            continue
        for x, gate in (node.inputs, node.inputs[::-1]):
            assert x is not None and gate is not None
            if x.is_constant or gate.is_constant or x.shape != node.output.shape or x is gate:
                continue
            if not _bounded(gate, producers):
                continue
            if reason := _not_global(gate, producers, graph):
                if x.shape != gate.shape:
                    left.append(Left(node.source, reason))
            else:
                found.append(Gate(node, x, gate))
                break
    return found, left


def _bounded(gate: Value, producers: dict[Value, Node]) -> bool:
    """Whether a value lies between two bounds, seen through views of it."""
    node = producers.get(gate)
    while node is not None and _renames(node) and node.inputs[0] is not None:
        node = producers.get(node.inputs[0])
    if node is None:
        return False
    return isinstance(OPS[node.op].ranges, Fixed) or node.op in ("clamp", "relu6")


def _renames(node: Node) -> bool:
    """Whether every number of a result is one of the first operand."""
    return OPS[node.op].movement in ("view", "place") and len(node.operands) == 1 and node.op != "pad"


def _not_global(gate: Value, producers: dict[Value, Node], graph: Graph) -> str:
    """Why a factor is not made of reductions over all places; "" where it is."""
    waiting, seen, reduced = [gate], {gate}, 0
    while waiting:
        value = waiting.pop()
        node = producers.get(value)
        if node is None:
            return "its gate reads the input itself"
        if _reduces(node):
            reduced += 1
            continue
        if value is not gate and len(value.shape) == 4 and value.shape[2] * value.shape[3] > 1:
            return "its gate differs from place to place"
        for operand in node.operands:
            if not operand.is_constant and operand not in seen:
                seen.add(operand)
                waiting.append(operand)
    if not _even(gate, producers):
        return "its gate differs from place to place"
    return "" if reduced else "its gate is not made of means over the map"


def _even(gate: Value, producers: dict[Value, Node]) -> bool:
    """Whether a factor is the same at every place: of size 1 there, or spread from such."""
    node = producers.get(gate)
    while node is not None and node.op == "expand" and node.inputs[0] is not None:
        gate = node.inputs[0]
        node = producers.get(gate)
    return len(gate.shape) < 3 or all(size == 1 for size in gate.shape[-2:])


def _reduces(node: Node) -> bool:
    """Whether a node takes one number from all places of a map."""
    x, out = node.inputs[0], node.output
    if OPS[node.op].channels not in ("reduce", "window") or x is None or len(x.shape) != 4:
        return False
    if "dims" in node.attrs:
        return {d % 4 for d in node.attrs["dims"]} == {2, 3}
    return tuple(out.shape[2:]) == (1, 1)


def drop_gates(
    graph: Graph, reference: Graph, images: Sequence[Tensor], only: Collection[str] | None
) -> tuple[list[Change], list[Left], list[Site]]:
    """Replace gates of `graph` in place; the sites refit the layers that took them in."""
    found, left = find_gates(graph)
    found = [gate for gate in found if only is None or gate.product.source in only]
    means = averages(graph, [gate.gate for gate in found], images) if found else {}
    meant = {v.name: v for v in reference.values()}
    changes: list[Change] = []
    sites: list[Site] = []
    for gate in found:
        changes.append(Change(gate.product.source, _replace(graph, gate, means[gate.gate], meant, sites)))
    graph.remove_dead()
    layers = Layers(graph)
    products = [gate.product.output for gate in found]
    present = {v.name: v for v in graph.values()}
    still = [present[v.name] for v in (*products, *(g.map for g in found)) if v.name in present]
    taken = {site.before for site in sites}
    sites += refits(graph, layers.first_reached(still), reference, taken)
    return changes, left, [site for site in sites if site.before in set(graph.nodes)]


def _replace(graph: Graph, gate: Gate, mean: Tensor, meant: dict[str, Value], sites: list[Site]) -> str:
    """Take one gate out; gives what became of it."""
    x, product = gate.map, gate.product
    channels = x.shape[1]
    factor = mean.expand(x.shape)[0, :, 0, 0].contiguous()
    per_channel = bool(torch.equal(mean.expand(x.shape), factor.reshape(1, -1, 1, 1).expand(x.shape)))
    at = f"gate of {channels} channels, {float(factor.mean()):.2f} on average"
    if per_channel:
        layers = Layers(graph)
        readers = layers.readers(product.output)
        if readers is not None and bool((factor >= 0).all()):
            for layer in readers.layers:
                scale_inputs(layer, factor)
            _bypass(graph, product, x)
            return f"{at}: its mean in {_names(readers.layers)}"
        own = layers.by_out.get(x)
        if own is not None and _sole(graph, x, product):
            scale_output(own, factor)
            _bypass(graph, product, x)
            there = meant.get(product.output.name)
            x.name = product.output.name  # what it now stands for
            if there is not None and (site := refit(own, there)):
                sites.append(site)
            return f"{at}: its mean in {own.name}"
    constant = Value(graph.fresh_name(f"{product.output.name}.gate"), tuple(mean.shape), data=mean.float())
    product.inputs = [x, constant]
    return f"{at}: a multiplication by its mean"


def _names(layers: Sequence[Layer]) -> str:
    return ", ".join(dict.fromkeys(layer.name for layer in layers))


def _bypass(graph: Graph, product: Node, x: Value) -> None:
    """The readers of the product read the map."""
    graph.nodes.remove(product)
    graph.replace_uses(product.output, x)
    graph.remove_dead()


def _sole(graph: Graph, x: Value, product: Node) -> bool:
    """Whether nothing but the product and what makes its gate reads the map."""
    if x in graph.outputs:
        return False
    users, behind = graph.users(), {product}
    for node in reversed(graph.nodes):
        readers = {reader for out in node.outputs for reader in users.get(out, [])}
        if readers and readers <= behind and not any(out in graph.outputs for out in node.outputs):
            behind.add(node)
    return all(reader in behind for reader in users.get(x, []))
