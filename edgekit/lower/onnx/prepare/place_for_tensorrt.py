"""Where the file for TensorRT is quantized, by the rules of its explicit quantization.

Source: NVIDIA TensorRT documentation, "Working with Quantized Types", and the placement of its PyTorch
quantization toolkit. Inputs and weights of convolutions and matrix products with weights are quantized, their
outputs are not, so that batch norm, activation and residual sum fuse into them. Of a residual sum only the
identity branch is quantized: the convolution of the other branch then takes in the sum and its ReLU. Pieces
of a quantized concat are quantized like their union, which makes it a copy of integers.
"""

from __future__ import annotations

from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import WEIGHT_AXIS
from edgekit.targets import Target


def place_for_tensorrt(graph: Graph, target: Target) -> int:
    """Take the parameters off every value that is not to be quantized; returns how many lost theirs."""
    kept: set[Value] = set()
    for node in graph.nodes:
        if node.op in WEIGHT_AXIS and all(v.quant is not None for v in node.operands[:2]):
            kept.update(node.operands[:2])
    producers, counts = graph.producers(), graph.use_counts()
    for node in graph.nodes:
        if node.op == "add":
            identity = _identity_branch(node, kept, producers, counts)
            if identity is not None:
                kept.add(identity)
    for node in reversed(graph.nodes):
        if node.op == "concat" and node.output in kept:
            kept.update(v for v in node.operands if v.quant == node.output.quant)
    lost = [value for value in graph.values() if value.quant is not None and value not in kept]
    for value in lost:
        value.quant = None
    return len(lost)


def _identity_branch(
    node: Node, kept: set[Value], producers: dict[Value, Node], counts: dict[Value, int]
) -> Value | None:
    """The operand of a residual sum to quantize: the one that no convolution could fuse the sum into."""
    operands = node.operands
    if any(v.is_constant or len(v.shape) != 4 for v in operands) or any(v in kept for v in operands):
        return None
    fusable = [v for v in operands if v in producers and producers[v].op == "conv2d" and counts[v] == 1]
    if not fusable:
        return None
    others = [v for v in operands if v not in fusable]
    if others:
        return others[0]
    # both are convolutions: the shortcut is the one that reads what others read too
    shortcuts = [v for v in operands if counts[producers[v].operands[0]] > 1]
    return (shortcuts or operands)[-1]
