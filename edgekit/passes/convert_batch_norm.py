"""A batch_norm with no convolution to fold into -> a 1x1 depthwise convolution; mul and add where not 4-D.

One multiply-add per element in one pass over memory, int8 or float; MUL + ADD would be two (DenseNet,
pre-activation ResNet).
"""

from __future__ import annotations

from edgekit.graph.batch_norm import affine
from edgekit.graph.ir import Graph, Node, Value
from edgekit.passes.fold_batch_norm import has_statistics
from edgekit.passes.rewrite import ConstantNames


def convert_batch_norm(graph: Graph) -> int:
    converted = 0
    names = ConstantNames(graph)
    nodes: list[Node] = []
    for norm in graph.nodes:
        nodes.append(norm)
        if norm.op != "batch_norm" or not has_statistics(norm):
            continue
        gain, shift = affine(norm)
        channels = len(gain)
        stem = norm.source or norm.output.name
        converted += 1
        if len(norm.output.shape) != 4:
            shape = (channels, *[1] * (len(norm.output.shape) - 2))
            weight = names.new(f"{stem}/scale", gain.float().reshape(shape))
            bias = names.new(f"{stem}/shift", shift.float().reshape(shape))
            scaled = Value(names.fresh(f"{stem}/mul"), norm.output.shape)
            nodes.insert(-1, Node("mul", [norm.inputs[0], weight], [scaled], {}, norm.source))
            norm.op, norm.inputs, norm.attrs = "add", [scaled, bias], {}
            continue
        weight = names.new(f"{stem}/scale", gain.float().reshape(channels, 1, 1, 1))
        bias = names.new(f"{stem}/shift", shift.float())
        norm.op = "conv2d"
        norm.inputs = [norm.inputs[0], weight, bias]
        norm.attrs = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": channels}
    graph.nodes = nodes
    return converted
