"""conv2d | linear | conv_transpose2d, then batch_norm -> one convolution.

y = gamma * (W x + b - mean) / sqrt(var + eps) + beta
  = (W * g) x + (b - mean) * g + beta                 with g = gamma / sqrt(var + eps), per output channel
Computed in float64, since g can be large. Does not fire when the convolution's result is read elsewhere,
its weights are computed by the graph, or it already has an activation.
"""

from __future__ import annotations

import torch

from edgekit.graph.batch_norm import affine
from edgekit.graph.ir import Graph, Node
from edgekit.graph.ops import WEIGHT_AXIS
from edgekit.passes.rewrite import ConstantNames, bias_name, remove_nodes, scalable, sole_reader


def fold_batch_norm(graph: Graph) -> int:
    producers = graph.producers()
    counts = graph.use_counts()
    names = ConstantNames(graph)
    folded: set[Node] = set()
    for norm in [n for n in graph.nodes if n.op == "batch_norm"]:
        assert norm.inputs[0] is not None
        conv = producers.get(norm.inputs[0])
        if conv is None or not scalable(conv) or not sole_reader(counts, conv.output):
            continue
        if conv.op == "conv_transpose2d" and conv.attrs["groups"] != 1:
            continue
        if len(conv.output.shape) != (2 if conv.op == "linear" else 4) or not has_statistics(norm):
            continue
        gain, shift = affine(norm)
        _scale_output(names, conv, gain, shift)
        conv.outputs = [norm.output]
        producers[norm.output] = conv
        folded.add(norm)
    remove_nodes(graph, folded)
    return len(folded)


def has_statistics(norm: Node) -> bool:
    """Are all its statistics constants (they are, unless the module computes them from its input)?"""
    return all(v is None or v.is_constant for v in norm.inputs[1:])


def _scale_output(names: ConstantNames, conv: Node, gain: torch.Tensor, shift: torch.Tensor) -> None:
    weight, bias = conv.inputs[1], conv.inputs[2]
    assert weight is not None and weight.data is not None
    shape = [1] * weight.data.ndim
    shape[WEIGHT_AXIS[conv.op]] = -1
    scaled = (weight.data.double() * gain.reshape(shape)).float()
    offset = shift if bias is None or bias.data is None else bias.data.double() * gain + shift
    conv.inputs[1] = names.new(weight.name, scaled, replaces=weight)
    conv.inputs[2] = names.new(bias_name(weight), offset.float(), replaces=bias)
