"""Depthwise convolutions over channels in sixteens.

ONNX Runtime's integer kernel for them (MlasConvSymDepthwise) takes sixteen channels at a time, and a slower
one takes every layer whose count is not a multiple: 5x5 over 120 channels of 28x28 takes 1.6 times as long as
over 128. Channels whose weights and biases are zero fill up the last sixteen; the convolutions before and
after get zero weights for them, so they begin and end within the block and change no number.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from edgekit.graph.channels import Families, carried, depthwise
from edgekit.graph.ir import Graph, Node, QuantParams, Value
from edgekit.graph.run import run_node
from edgekit.targets import Target

_MOST = 1.25  # times the channels: the convolutions around it grow as well


def widen_depthwise(graph: Graph, target: Target) -> int:
    """Fill up the channels of every integer depthwise convolution that stands between two full ones."""
    ties = _ties(graph)
    blocks = ties.open(graph.values())
    count = 0
    for node in graph.nodes:
        missing = -node.output.shape[1] % target.alignment if _is_depthwise(node) else 0
        channels = node.output.shape[1] if missing else 0
        if not missing or channels + missing > _MOST * channels or node.output.quant is None:
            continue
        block = blocks.get(ties.root(node.output))
        if block is not None:
            _widen(graph, set(block), missing)
            count += 1
    return count


def _is_depthwise(node: Node) -> bool:
    return depthwise(node) and node.output.shape[1] > 1


def _ties(graph: Graph) -> Families:
    """Values that share their channels, up to convolutions that mix them; closed where one must not grow."""
    counts, ties = graph.use_counts(), Families()
    ties.close(*graph.inputs, *graph.outputs)
    for node in graph.nodes:
        results = [value for value in node.operands if not value.is_constant]
        shared = any(counts[own] != 1 for own in node.operands if own.is_constant)
        tied = node.operands[:1] if _is_depthwise(node) else carried(node) if _stays_finite(node) else []
        if any(len(value.shape) != 4 for value in (*results, *node.outputs)) or shared:
            ties.close(*results, *node.outputs)
        elif node.op == "conv2d" and node.attrs["groups"] == 1:
            continue
        elif tied:
            ties.tie(*node.outputs, *tied)
        else:
            ties.close(*results, *node.outputs)
    return ties


def _stays_finite(node: Node) -> bool:
    """Whether channels of zeros give numbers: the convolution behind multiplies them by zero.

    Only where no constant would have to grow with them.
    """
    if any(value.is_constant for value in node.operands):
        return False
    zeros = [None if value is None else torch.zeros(value.shape) for value in node.inputs]
    results = run_node(node, zeros)
    return all(bool(torch.isfinite(result).all()) for result in results)


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
