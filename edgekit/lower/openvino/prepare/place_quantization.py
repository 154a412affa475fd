"""Quantize the inputs of what has an integer kernel, and nothing else.

Measured on OpenVINO's CPU plugin: convolutions, matrix products, residual additions, global poolings and the
gating multiplication of squeeze-and-excite gain; a FakeQuantize anywhere else costs more than it saves.
Between a convolution and its hard-swish or SiLU it breaks the fusion of the two: efficientnet_b0 took 1.5
times as long.

A value keeps its parameters where every reader is glad of them. Where some reader wants integers and another
would only lose precision, the glad ones read a rounded copy. Moves carry the wish to their source, because
integers are cheaper to move than floats.
"""

from __future__ import annotations

import numpy as np

from edgekit.graph.ir import Graph, Node, QuantParams, Value
from edgekit.graph.ops import WEIGHT_AXIS
from edgekit.lower.openvino.constants import bounds
from edgekit.lower.openvino.context import moves_codes, moves_grids
from edgekit.targets import Target

# The plugin takes a FakeQuantize that begins between -1e-6 and 0 for one that begins at 0. Layer scale begins
# so small: such values stay float, and nothing they are added to could show them.
_LEAST_LOW = 2e-6


def place_quantization(graph: Graph, target: Target) -> int:
    """Drop the parameters of what stays float; returns how many values keep theirs."""
    _drop_narrow(graph)
    wishes = _wishes(graph)
    users, outputs = graph.users(), set(graph.outputs)
    for value in list(graph.values()):
        if value.is_constant or value.quant is None:
            continue
        readers = users.get(value, [])
        glad = [node for node in readers if value in wishes[node]]
        if glad and len(glad) == len(readers) and value not in outputs:
            continue
        if glad:
            _read_copy(graph, glad, value, value.quant)
        value.quant = None
    _center_right_operands(graph)
    _drop_constants(graph)
    return sum(v.quant is not None for v in graph.values())


def _drop_narrow(graph: Graph) -> None:
    for value in graph.values():
        if value.is_constant or value.quant is None:
            continue
        low, _ = bounds(value.quant)
        if -_LEAST_LOW < low < 0.0:
            value.quant = None


def _wishes(graph: Graph) -> dict[Node, list[Value]]:
    """The operands that each node would rather read as integers, found from the end."""
    wishes: dict[Node, list[Value]] = {}
    users, outputs = graph.users(), set(graph.outputs)

    def glad(value: Value) -> list[bool]:
        return [value in wishes[node] for node in users.get(value, [])]

    for node in reversed(graph.nodes):
        if moves_grids(node.op):
            asked = [glad(out) for out in node.outputs]
            refused = [not all(g) or out in outputs for g, out in zip(asked, node.outputs, strict=True)]
            pays = any(map(any, asked)) and not any(any(g) and r for g, r in zip(asked, refused, strict=True))
            wishes[node] = node.operands if pays and _one_grid(node) else []
        else:
            wishes[node] = _integer_operands(node)
    return wishes


def _integer_operands(node: Node) -> list[Value]:
    """What the integer kernel of a node reads, if it has one."""
    x = node.operands[0]
    both = list(node.operands) if len(node.inputs) == 2 and all(map(_ready, node.operands)) else []
    if node.op in WEIGHT_AXIS:
        weight = node.inputs[1]
        return [x] if _ready(x) and weight is not None and weight.quant is not None else []
    if node.op in ("matmul", "add") or (node.op == "mul" and _gates(node)):
        return both
    if (node.op == "avg_pool2d" and _pads_with_zero(node)) or (node.op == "mean" and _global(node)):
        return [x] if _ready(x) else []
    return []


def _ready(value: Value) -> bool:
    return not value.is_constant and value.quant is not None


def _pads_with_zero(node: Node) -> bool:
    """The plugin pads an average pooling with the integer 0, which is zero for unsigned tensors only."""
    quant = node.operands[0].quant
    counted = any(node.attrs["padding"]) and node.attrs.get("count_include_pad", True)
    return not counted or (quant is not None and quant.zero_point == (-128,))


def _global(node: Node) -> bool:
    return tuple(node.attrs["dims"]) == (2, 3) and len(node.operands[0].shape) == 4


def _gates(node: Node) -> bool:
    """(N, C, 1, 1) times (N, C, H, W)."""
    shapes = [value.shape for value in node.operands]
    return (
        len(shapes) == 2 and any(len(s) == 4 and s[2:] == (1, 1) for s in shapes) and shapes[0] != shapes[1]
    )


def _one_grid(node: Node) -> bool:
    return all(map(_ready, node.operands)) and moves_codes(node)


def _center_right_operands(graph: Graph) -> None:
    """The right operand of a product of two activations is rounded once more, to zero point 0.

    A constant is no activation: its product stays in float, and so does it.
    """
    for node in list(graph.nodes):
        right = node.inputs[1] if node.op == "matmul" else None
        if right is None or right.is_constant or right.quant is None:
            continue
        if right.quant.zero_point != (0,):
            _read_copy(graph, [node], right, _symmetric(right))


def _symmetric(value: Value) -> QuantParams:
    """Zero point 0 over the same numbers: the runtime multiplies by nothing else on the right."""
    assert value.quant is not None
    scale, zero_point = value.quant.scale[0], value.quant.zero_point[0]
    peak = max(abs(-128 - zero_point), abs(127 - zero_point)) * scale
    return QuantParams((float(np.float32(peak / 127.0)),), (0,))


def _read_copy(graph: Graph, readers: list[Node], value: Value, quant: QuantParams) -> None:
    """Let `readers` read `value` rounded to a grid of its own, just before the first of them."""
    copy = Value(
        graph.fresh_name(f"{value.name}.rounded"), value.shape, value.dtype, None, value.range, quant
    )
    attrs = {"shape": (-1, *value.shape[1:]) if value.shape else ()}
    place = graph.nodes.index(readers[0])
    graph.nodes.insert(place, Node("reshape", [value], [copy], attrs, readers[0].source))
    for reader in readers:
        reader.inputs = [copy if v is value else v for v in reader.inputs]


def _drop_constants(graph: Graph) -> None:
    """Operands stay float; so do the weights of a node whose input does."""
    integer = {
        node.inputs[1]
        for node in graph.nodes
        if node.op in WEIGHT_AXIS and node.inputs[0] is not None and node.inputs[0].quant is not None
    }
    for value in graph.constants():
        if value not in integer:
            value.quant = None
