"""A graph that was quantized elsewhere, made complete by our rules.

Enters: a graph whose file annotated some values. Leaves: a copy with every activation and weight annotated;
scales that the file gives stay, wherever the runtime's rules allow them.
"""

from __future__ import annotations

from edgekit.errors import QuantizationError
from edgekit.ir import Graph, QuantParams
from edgekit.quantize import rules
from edgekit.quantize.qparams import annotate


def is_given(graph: Graph) -> bool:
    """Does any activation carry parameters already?"""
    return any(value.quant is not None for value in rules.activations(graph))


def complete(graph: Graph) -> Graph:
    """The annotated copy. Raises QuantizationError naming every tensor that nothing gives a scale."""
    graph = graph.copy()
    given = {v: v.quant for v in rules.activations(graph) if v.quant is not None}
    producers, bare = graph.producers(), []
    for group in rules.groups(graph):
        ranges = [v.range for v in group if v in given and v.range is not None]
        for value in group:
            node = producers.get(value)
            if value in given or value.is_constant or (node is not None and rules.fixed_range(node.op)):
                continue
            if ranges:
                value.range = (min(low for low, _ in ranges), max(high for _, high in ranges))
            else:
                bare.append(value.name)
    if bare:
        more = f" and {len(bare) - 3} more" if len(bare) > 3 else ""
        raise QuantizationError(
            f"[quantize] {graph.name}: its file quantizes some tensors, but not {', '.join(bare[:3])}{more}: "
            "a file that quantizes every activation, or the float model"
        )
    for node in graph.nodes:
        weight = rules.weight_of(node)
        if weight is not None and weight.quant is not None:
            weight.quant = _per_channel(weight.quant, weight.shape, rules.WEIGHT_AXIS[node.op], weight.name)
    annotate(graph)
    for group in rules.groups(graph):
        own = {given[v] for v in group if v in given}
        if len(own) == 1 and rules.fixed_quant(group, producers, "int8") is None:
            (quant,) = own
            for value in group:
                value.quant = quant
    return graph


def _per_channel(quant: QuantParams, shape: tuple[int, ...], axis: int, name: str) -> QuantParams:
    if any(quant.zero_point) or quant.dtype != "int8" or quant.axis not in (None, axis):
        raise QuantizationError(
            f"[quantize] weight {name} has zero points, or scales along another axis: symmetric int8 weights"
        )
    count = shape[axis]
    scales = quant.scale * count if len(quant.scale) == 1 else quant.scale
    return QuantParams(scales, (0,) * count, "int8", axis)
