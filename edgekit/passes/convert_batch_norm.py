"""A batch_norm with no convolution to fold into -> a 1x1 depthwise convolution.

One multiply-add per element in one pass over memory, int8 or float; MUL + ADD would be two (DenseNet,
pre-activation ResNet).
"""

from __future__ import annotations

from edgekit.ir import Graph
from edgekit.passes.fold_batch_norm import affine
from edgekit.passes.rewrite import new_constant


def convert_batch_norm(graph: Graph) -> int:
    converted = 0
    for norm in graph.nodes:
        if norm.op != "batch_norm" or len(norm.output.shape) != 4:
            continue
        gain, shift = affine(norm)
        channels = len(gain)
        stem = norm.source or norm.output.name
        weight = new_constant(graph, f"{stem}/scale", gain.float().reshape(channels, 1, 1, 1))
        bias = new_constant(graph, f"{stem}/shift", shift.float())
        norm.op = "conv2d"
        norm.inputs = [norm.inputs[0], weight, bias]
        norm.attrs = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": channels}
        converted += 1
    return converted
