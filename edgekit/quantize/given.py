"""A graph that was quantized elsewhere, made complete by our rules.

Enters: a graph whose file annotated some values. Leaves: a copy with every activation and weight annotated;
scales that the file gives stay, wherever the runtime's rules allow them. Tensors that the file leaves in
float (a stem, the logits) take trimmed ranges from calibration images.
"""

from __future__ import annotations

from collections.abc import Callable

from edgekit.errors import QuantizationError
from edgekit.graph.ir import Graph, QuantParams, Value
from edgekit.graph.ops import WEIGHT_AXIS
from edgekit.quantize import rules
from edgekit.quantize.images import Given
from edgekit.quantize.observers import observe
from edgekit.quantize.qparams import annotate
from edgekit.quantize.ranges import ranges_of


def is_given(graph: Graph) -> bool:
    """Does any activation carry parameters already?"""
    return any(value.quant is not None for value in rules.activations(graph))


def complete(graph: Graph, images: Callable[[], Given] | None = None) -> Graph:
    """The annotated copy.

    Args:
        images: gives calibration images, one tensor per graph input; called only when something has no scale.
    Raises: QuantizationError naming every tensor that nothing gives a scale.
    """
    graph = graph.copy()
    given = {v: v.quant for v in rules.activations(graph) if v.quant is not None}
    groups = _unknown(graph)
    bare = [unknown for _, unknown in groups if not any(v in given for v in unknown)]
    if bare and images is None:
        names = [group[0].name for group in bare]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise QuantizationError(
            f"[quantize] {graph.name}: its file quantizes some tensors, "
            f"but not {', '.join(names[:3])}{more}: "
            "calibration images, a file that quantizes every activation, or the float model"
        )
    seen = ranges_of(observe(graph, images()), "trim") if bare and images is not None else {}
    for group, unknown in groups:
        ranges = [v.range for v in unknown if v in given and v.range is not None]
        ranges = ranges or [seen[v] for v in group if v in seen]
        for value in unknown:
            if value not in given:
                value.range = (min(low for low, _ in ranges), max(high for _, high in ranges))
    for node in graph.nodes:
        weight = rules.weight_of(node)
        if weight is not None and weight.quant is not None:
            weight.quant = _per_channel(weight.quant, weight.shape, WEIGHT_AXIS[node.op], weight.name)
    annotate(graph)
    producers = graph.producers()
    for group in rules.groups(graph, lambda value: value.range).groups:
        own = {given[v] for v in group if v in given}
        if len(own) == 1 and rules.fixed_quant(group, producers, "int8") is None:
            (quant,) = own
            for value in group:
                value.quant = quant
    return graph


def _unknown(graph: Graph) -> list[tuple[list[Value], list[Value]]]:
    """Groups of activations that share a scale, each with those not constant or fixed by their op."""
    producers = graph.producers()

    def known(value: Value) -> bool:
        node = producers.get(value)
        return value.is_constant or (node is not None and rules.fixed_range(node.op) is not None)

    found = [(group, [value for value in group if not known(value)]) for group in rules.groups(graph).groups]
    return [(group, unknown) for group, unknown in found if unknown]


def _per_channel(quant: QuantParams, shape: tuple[int, ...], axis: int, name: str) -> QuantParams:
    if any(quant.zero_point) or quant.dtype != "int8" or quant.axis not in (None, axis):
        raise QuantizationError(
            f"[quantize] weight {name} has zero points, or scales along another axis: symmetric int8 weights"
        )
    count = shape[axis]
    scales = quant.scale * count if len(quant.scale) == 1 else quant.scale
    return QuantParams(scales, (0,) * count, "int8", axis)
