"""What quantization parameters each tensor may take, derived from the rows of the operator table.

Source: the TensorFlow Lite 8-bit quantization specification
(https://ai.google.dev/edge/litert/models/quantization_spec) and the kernels' Prepare functions. The other
runtimes accept everything TensorFlow Lite does, so one set of rules serves all of them.

Enters: a float graph after the passes. Leaves: groups of values that share their parameters, the values whose
parameters the op itself dictates, and the ranges outside which no reader can tell values apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from edgekit.graph.ir import Graph, Node, QuantParams, Value
from edgekit.graph.ops import EVERYTHING, MOVES, OPS, PLACES, SAME, WEIGHT_AXIS, Fixed, Range
from edgekit.quantize.ties import Bound, Ties, tie

_INF = math.inf
_DTYPES = ("int8", "int16")
# The op bounds its own output, and the kernel is a table built for exactly these parameters.
FIXED: dict[str, dict[str, QuantParams]] = {
    name: {
        dtype: QuantParams((scale,), (zero_point,), dtype)
        for dtype, (scale, zero_point) in zip(_DTYPES, (row.ranges.int8, row.ranges.int16), strict=True)
    }
    for name, row in OPS.items()
    if isinstance(row.ranges, Fixed)
}

# What the reader does with values outside is the same as at the bound, so steps spent there are wasted.
CLIPS: dict[str, Range] = {name: row.reads for name, row in OPS.items() if row.reads != EVERYTHING}

# Ops whose constant operands are parameters of a float computation (batch norm statistics, slopes).
FLOAT_PARAMETERS = frozenset(name for name, row in OPS.items() if row.parameters)


def weight_of(node: Node) -> Value | None:
    """The constant int8 weight of a node, if it has one.

    A grouped transposed convolution stays float: its output channels lie along two axes of the weight.
    """
    if node.op == "conv_transpose2d" and node.attrs["groups"] != 1:
        return None
    if node.op in WEIGHT_AXIS and node.inputs[1] is not None and node.inputs[1].is_constant:
        return node.inputs[1]
    return None


def bias_of(node: Node) -> Value | None:
    return node.inputs[2] if weight_of(node) is not None else None


def activations(graph: Graph) -> list[Value]:
    """Every float tensor with one scale: graph inputs, results, and constants that are plain operands."""
    parameters: set[Value] = set()
    operands: set[Value] = set()
    for node in graph.nodes:
        for i, value in enumerate(node.inputs):
            if value is None or not value.is_constant:
                continue
            parametric = weight_of(node) is not None or node.op == "conv_transpose2d"
            own = i > 0 and (parametric or node.op in FLOAT_PARAMETERS)
            (parameters if own else operands).add(value)
    places = _places(graph)
    return [
        value
        for value in graph.values()
        if value.dtype.startswith("float")
        and value not in places
        and (not value.is_constant or (value in operands and value not in parameters))
    ]


def _places(graph: Graph) -> set[Value]:
    """Results of ops that point somewhere, and what only moves them."""
    found: set[Value] = set()
    for node in graph.nodes:
        moved = node.op in MOVES and node.operands and all(v in found for v in node.operands)
        if node.op in PLACES or moved:
            found.update(node.outputs)
    return found


def groups(graph: Graph, bound: Bound | None = None, dtypes: Mapping[Value, str] | None = None) -> Ties:
    """Activations in sets that share one scale; see `ties.tie` for the arguments."""
    return tie(graph, activations(graph), bound, dtypes)


def fixed_quant(group: list[Value], producers: dict[Value, Node], dtype: str) -> QuantParams | None:
    """The parameters an op dictates for a group, when every tensor that enters the group agrees on them."""
    inner = [producers[v].op if v in producers else None for v in group]
    sources = {op for op in inner if op not in SAME}
    if len(sources) != 1:
        return None
    (op,) = sources
    return FIXED[op][dtype] if op in FIXED else None


def fixed_range(op: str) -> Range | None:
    """The range an op's output has by construction."""
    ranges = OPS[op].ranges
    return (ranges.low, ranges.high) if isinstance(ranges, Fixed) else None


def reader_clip(group: list[Value], users: dict[Value, list[Node]], outputs: set[Value]) -> Range:
    """The interval outside which no reader of the group can tell values apart."""
    low, high, members = _INF, -_INF, set(group)
    for value in group:
        if value in outputs:
            return EVERYTHING
        for node in users.get(value, []):
            if node.op in MOVES and any(out in members for out in node.outputs):
                continue  # its output is in the same group and its readers are seen there
            a, b = CLIPS.get(node.op, EVERYTHING)
            if node.op == "clamp":
                a = -_INF if node.attrs["low"] is None else node.attrs["low"]
                b = _INF if node.attrs["high"] is None else node.attrs["high"]
            low, high = min(low, a), max(high, b)
    return (low, high) if low < high else EVERYTHING
