"""A captured graph as the operators of a target's file, by its shapes alone: nothing is calibrated or packed.

Weights are stood in for by one number that is repeated and ranges by one range, so that tens of megabytes
need not be folded, rounded and written for every width a search looks at. What is left is what decides the
form of the file: ops, shapes, settings, and constants that are no weights.
"""

from __future__ import annotations

import copy

import torch

from edgekit import passes
from edgekit.errors import UnsupportedError
from edgekit.graph.ir import Graph, QuantParams, Value
from edgekit.graph.ops import WEIGHT_AXIS
from edgekit.lower.tflite import prepare
from edgekit.lower.tflite.builder import Operator, Signature
from edgekit.lower.tflite.lowering import operators
from edgekit.quantize import qparams, rules
from edgekit.targets import Target

_NUMBER = 0.5
_RANGE = (-1.0, 1.0)
_WORTH = 1024  # elements from which a weight is stood in for


def operators_of(graph: Graph, target: Target) -> tuple[list[Operator], Signature, Graph]:
    """The operators of a captured graph (left as it is) in a target's form, and the graph they come from.

    Args:
        graph: as captured; one whose values carry integers already keeps them.
    Raises: UnsupportedError naming what the target cannot take, or that its files are not in this format.
    """
    if target.format != "tflite":
        raise UnsupportedError(f"{target.name}: costs of units are known for .tflite files: tflite-int8")
    plain = _without_weights(graph)
    given = any(value.quant is not None for value in plain.values())
    passes.optimize(plain)
    for value in _weights(plain):
        assert value.data is not None
        value.data = _stand_in(value.data)
    if target.quantized and not given:
        _stand_in_scales(plain)
        ranges = {value: value.range or _RANGE for value in rules.activations(plain)}
        qparams.annotate(plain, ranges, "int16" if target.activations == "int16" else "int8")
    prepared = prepare(plain, target)
    written, signature = operators(prepared, target)
    return written, signature, prepared


def _without_weights(graph: Graph) -> Graph:
    """A copy in which every large weight is one number; other constants are shared, passes replace them."""
    memo: dict[int, object] = {id(v.data): v.data for v in graph.constants()}
    memo |= {id(v.data): _stand_in(v.data) for v in _weights(graph) if v.data is not None}
    return copy.deepcopy(graph, memo)


def _stand_in(data: torch.Tensor) -> torch.Tensor:
    """One number, seen as often as a weight has elements; a small weight stays."""
    if data.numel() < _WORTH:
        return data
    return torch.full((1,) * data.ndim, _NUMBER).expand(data.shape)


def _weights(graph: Graph) -> list[Value]:
    found = [node.inputs[1] for node in graph.nodes if node.op in WEIGHT_AXIS]
    return [value for value in dict.fromkeys(found) if value is not None and value.data is not None]


def _stand_in_scales(graph: Graph) -> None:
    for node in graph.nodes:
        weight = rules.weight_of(node)
        if weight is not None and weight.quant is None:
            channels = weight.shape[WEIGHT_AXIS[node.op]]
            scale = (_NUMBER / qparams.WEIGHT_MAX,) * channels
            weight.quant = QuantParams(scale, (0,) * channels, "int8", WEIGHT_AXIS[node.op])
