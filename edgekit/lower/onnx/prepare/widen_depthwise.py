"""Depthwise convolutions over channels in sixteens.

ONNX Runtime's integer kernel for them (MlasConvSymDepthwise) takes sixteen channels at a time, and a slower
one takes every layer whose count is not a multiple: 5x5 over 120 channels of 28x28 takes 1.6 times as long as
over 128. Channels whose weights and biases are zero fill up the last sixteen; the convolutions before and
after get zero weights for them, so they begin and end within the block and change no number.
"""

from __future__ import annotations

import torch.nn.functional as F

from edgekit.graph.ir import Graph, Node, QuantParams, Value
from edgekit.lower.onnx.pooling import is_global
from edgekit.targets import Target

_CHANNELS = 16
_MOST = 1.25  # times the channels: the convolutions around it grow as well
_ELEMENTWISE = frozenset(
    {"relu", "relu6", "hardswish", "hardsigmoid", "sigmoid", "silu", "leaky_relu", "clamp", "add", "mul"}
)


def widen_depthwise(graph: Graph, target: Target) -> int:
    """Fill up the channels of every integer depthwise convolution that stands between two full ones."""
    if target.runtime != "onnxruntime" or not target.quantized:
        return 0
    count = 0
    for node in graph.nodes:
        missing = -node.output.shape[1] % _CHANNELS if _is_depthwise(node) else 0
        channels = node.output.shape[1] if missing else 0
        if not missing or channels + missing > _MOST * channels or node.output.quant is None:
            continue
        block = _block(graph, node)
        if block is not None:
            _widen(graph, block, missing)
            count += 1
    return count


def _is_depthwise(node: Node) -> bool:
    x, weight = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
    if node.op != "conv2d" or x is None or weight is None or len(x.shape) != 4:
        return False
    return node.attrs["groups"] == x.shape[1] == weight.shape[0] > 1


def _block(graph: Graph, start: Node) -> set[Value] | None:
    """Values that share the channels of `start`, up to convolutions that mix them; None if one must not."""
    producers, users, counts = graph.producers(), graph.users(), graph.use_counts()
    channels, edges = start.output.shape[1], {*graph.inputs, *graph.outputs}
    found: set[Value] = set()
    waiting = [start.output]
    while waiting:
        value = waiting.pop()
        if value in found:
            continue
        if value in edges or value.is_constant or len(value.shape) != 4 or value.shape[1] != channels:
            return None
        found.add(value)
        for node in (producers[value], *users.get(value, [])):
            if any(counts[own] != 1 for own in node.operands if own.is_constant):
                return None
            if node.op == "conv2d" and node.attrs["groups"] == 1:
                continue
            if node.op not in _ELEMENTWISE and not _is_depthwise(node) and not _pools(node):
                return None
            parts = node.operands[:1] if node.op == "conv2d" else node.operands
            waiting += [*parts, *node.outputs]
    return found


def _pools(node: Node) -> bool:
    return node.op == "mean" and is_global(node)


def _widen(graph: Graph, block: set[Value], missing: int) -> None:
    for node in graph.nodes:
        if node.op != "conv2d":
            continue
        x, weight, bias = node.inputs
        assert x is not None and weight is not None
        if node.attrs["groups"] != 1 and node.output in block:
            node.attrs = {**node.attrs, "groups": node.attrs["groups"] + missing}
        elif x in block:
            _fill(weight, 1, missing)
        if node.output in block:
            _fill(weight, 0, missing)
            if bias is not None:
                _fill(bias, 0, missing)
    for value in block:
        batch, channels, *sides = value.shape
        value.shape = (batch, channels + missing, *sides)


def _fill(value: Value, axis: int, missing: int) -> None:
    """Zeros behind a constant along one axis; its new channels share the first one's scale."""
    assert value.data is not None
    behind = [0, 0] * (value.data.ndim - 1 - axis) + [0, missing]
    value.data = F.pad(value.data.detach(), behind)
    value.shape = tuple(value.data.shape)
    quant = value.quant
    if quant is not None and quant.axis == axis:
        scale, zero_point = quant.scale[:1] * missing, quant.zero_point[:1] * missing
        value.quant = QuantParams(quant.scale + scale, quant.zero_point + zero_point, quant.dtype, axis)
