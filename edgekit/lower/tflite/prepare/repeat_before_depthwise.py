"""A depthwise convolution with several filters a channel, over an input repeated that often.

depthMultiplier above 1 misses the fast kernels. concat(x, ..., x) with one filter a channel does not; its
channels come in another order, which a channel shuffle puts right and the weights of the next convolution
take in.
"""

from __future__ import annotations

import torch

from edgekit.graph.ir import Graph, Node, QuantParams, Value
from edgekit.targets import Target


def repeat_before_depthwise(graph: Graph, target: Target) -> int:
    """Rewrite depthwise convolutions of multiplier > 1 that only dense ones read; returns how many."""
    users, use_counts = graph.users(), graph.use_counts()
    count = 0
    for node in list(graph.nodes):
        if node.op != "conv2d":
            continue
        x, weight, bias = node.inputs
        assert x is not None and weight is not None
        channels = x.shape[1]
        times = weight.shape[0] // channels
        readers = users.get(node.output, [])
        dense = all(
            r.op == "conv2d" and r.attrs["groups"] == 1 and r.inputs[0] is node.output for r in readers
        )
        own = all(v.is_constant and use_counts[v] == 1 for v in node.operands[1:])
        if (
            node.attrs["groups"] != channels
            or channels == 1
            or times < 2
            or not readers
            or not dense
            or not own
        ):
            continue
        if node.output in graph.outputs:
            continue
        order = torch.arange(channels * times).reshape(channels, times).T.reshape(-1)
        for value in (weight, bias):
            if value is None:
                continue
            assert value.data is not None
            value.data = value.data.detach()[order].contiguous()
            if value.quant is not None and value.quant.axis == 0:
                scale = tuple(value.quant.scale[i] for i in order.tolist())
                value.quant = QuantParams(scale, value.quant.zero_point, value.quant.dtype, 0)
        out = node.output
        wide_shape = (x.shape[0], channels * times, *x.shape[2:])
        wide = Value(graph.fresh_name(f"{out.name}.repeated"), wide_shape, x.dtype, None, x.range, x.quant)
        plain = Value(
            graph.fresh_name(f"{out.name}.grouped"), out.shape, out.dtype, None, out.range, out.quant
        )
        node.inputs[0], node.outputs, node.attrs["groups"] = wide, [plain], channels * times
        at = graph.nodes.index(node)
        graph.nodes.insert(at, Node("concat", [x] * times, [wide], {"dim": 1}, node.source))
        shuffle = Node("channel_shuffle", [plain], [out], {"groups": times}, node.source)
        graph.nodes.insert(at + 2, shuffle)
        count += 1
    return count
