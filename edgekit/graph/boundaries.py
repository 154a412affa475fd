"""Where int8 meets int16: conversions as nodes of the graph, so that all who walk it compute and count them.

A node computes in the type of its result. Kernels that sum or multiply integers take operands of that type
alone, so an operand of the other one is converted in front, once for all readers in that type, by a reshape
to the same shape with parameters of its own. What only moves numbers rounds its operands itself, and what
computes in float reads any type.

Enters: an annotated graph. Leaves: the same graph, its integer sums and products of one type each.
"""

from __future__ import annotations

import numpy as np

from edgekit.graph.ir import Graph, Node, QuantParams, Value, unused_name
from edgekit.graph.ops import OPS, SUMS, WEIGHT_AXIS

_LARGEST = 32767  # int16 is symmetric
_DYNAMIC = ("conv2d", "linear")


def may_be_dynamic(node: Node) -> bool:
    """Whether there is a kernel that multiplies int8 weights by floats, which it rounds by itself."""
    if node.op not in _DYNAMIC or node.inputs[0] is None or node.inputs[1] is None:
        return False
    weight = node.inputs[1]
    depthwise = node.op == "conv2d" and node.attrs["groups"] > 1 and weight.shape[1] == 1
    return weight.is_constant and not depthwise


def is_dynamic(node: Node) -> bool:
    """Whether a node reads and gives floats around int8 weights."""
    x, weight = (*node.inputs, None)[:2]
    if not may_be_dynamic(node) or x is None or weight is None:
        return False
    return weight.quant is not None and x.quant is None and node.output.quant is None


def rounded_by_row(node: Node) -> bool:
    """Whether a dynamic kernel rounds each row of channels on a grid of its own, not the image on one.

    A 1x1 convolution that skips nothing is a matrix product over its pixels, as a linear layer is over rows.
    """
    if node.op == "linear":
        return True
    weight, attrs = node.inputs[1], node.attrs
    plain = tuple(attrs["stride"]) == (1, 1) and not any(attrs["padding"]) and attrs["groups"] == 1
    return weight is not None and tuple(weight.shape[2:]) == (1, 1) and plain


def meet_types(graph: Graph) -> int:
    """Convert every operand that is of another integer type than the node computes in; returns how many."""
    converted: dict[tuple[Value, QuantParams], Value] = {}
    taken = {value.name for value in graph.values()}
    nodes: list[Node] = []
    count = 0
    for node in graph.nodes:
        for index, dtype in crossings(node):
            value = node.inputs[index]
            assert value is not None and value.quant is not None
            quant = _converted(value, dtype, centred=node.op == "matmul" and index == 1)
            if (value, quant) not in converted:
                result = _like(value, quant, taken)
                converted[value, quant] = result
                if not value.is_constant:
                    shape = (-1, *value.shape[1:]) if value.shape else ()
                    nodes.append(Node("reshape", [value], [result], {"shape": shape}, node.source))
            node.inputs[index] = converted[value, quant]
            count += 1
        nodes.append(node)
    graph.nodes = nodes
    return count


def crossings(node: Node) -> list[tuple[int, str]]:
    """(operand, type it is needed in) of a node that computes in integers."""
    out = node.output.quant
    if out is None or node.op not in SUMS:
        return []
    data = list(range(len(node.inputs)))
    weight = node.inputs[1] if node.op in WEIGHT_AXIS else None
    if weight is not None and weight.is_constant:
        data = [0] if weight.quant is not None else []
    operands = [(i, value) for i in data if (value := node.inputs[i]) is not None]
    if OPS[node.op].channels == "join":  # a plain number is written in the type that is computed in
        operands = [(i, value) for i, value in operands if value.quant or not value.is_constant]
    if any(value.quant is None for _, value in operands):
        return []  # in float
    return [(i, out.dtype) for i, value in operands if value.quant and value.quant.dtype != out.dtype]


def _like(value: Value, quant: QuantParams, taken: set[str]) -> Value:
    name = unused_name(f"{value.name}.{quant.dtype}", taken)
    taken.add(name)
    return Value(name, value.shape, value.dtype, value.data, value.range, quant)


def _converted(value: Value, dtype: str, *, centred: bool) -> QuantParams:
    """The parameters of a value in the other type."""
    assert value.quant is not None
    scale, zero = value.quant.scale[0], value.quant.zero_point[0]
    if dtype == "int16":  # a whole number of steps for each of the old ones, so that nothing is rounded
        steps = _LARGEST // max(128 + zero, 127 - zero)
        return QuantParams((_float32(scale / steps),), (0,), dtype)
    low, high = value.range or (-_LARGEST * scale, _LARGEST * scale)
    low, high = min(low, 0.0), max(high, 0.0)
    if centred or high == low:
        return QuantParams((_float32(max(-low, high, scale) / 127.0),), (0,), dtype)
    step = _float32((high - low) / 255.0)
    return QuantParams((step,), (max(-128, min(127, round(-128 - low / step))),), dtype)


def _float32(x: float) -> float:
    return float(np.float32(x))
