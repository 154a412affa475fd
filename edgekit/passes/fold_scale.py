"""conv2d | linear, then a multiplication or addition by a per-channel constant -> one convolution.

(W x + b) * c = (W * c) x + b * c;   (W x + b) + c = W x + (b + c)
Inception-ResNet's scaled residuals, layer scale, and normalisation constants spelled out as tensors.
"""

from __future__ import annotations

import torch

from edgekit.graph.ir import Graph, Node
from edgekit.passes.rewrite import (
    ConstantNames,
    bias_name,
    per_channel,
    remove_nodes,
    scalable,
    sole_reader,
)


def fold_scale(graph: Graph) -> int:
    producers, counts, names = graph.producers(), graph.use_counts(), ConstantNames(graph)
    folded: set[Node] = set()
    for node in [n for n in graph.nodes if n.op in ("mul", "add", "sub") and not n.attrs.get("activation")]:
        for data_index, constant_index in ((0, 1), (1, 0)):
            if node.op == "sub" and data_index == 1:
                continue
            data, constant = node.inputs[data_index], node.inputs[constant_index]
            assert data is not None
            conv = producers.get(data)
            if conv is None or conv.op == "conv_transpose2d" or not scalable(conv):
                continue
            if not sole_reader(counts, data) or node.output.shape != data.shape:
                continue
            if len(data.shape) != (2 if conv.op == "linear" else 4):
                continue
            factor = per_channel(constant, data.shape[1], rank=len(data.shape))
            if factor is None:
                continue
            _apply(names, conv, node, factor)
            producers[node.output] = conv
            folded.add(node)
            break
    remove_nodes(graph, folded)
    return len(folded)


def _apply(names: ConstantNames, conv: Node, node: Node, factor: torch.Tensor) -> None:
    weight, bias = conv.inputs[1], conv.inputs[2]
    assert weight is not None and weight.data is not None
    offset = torch.zeros(len(factor), dtype=torch.float64) if bias is None else bias.data.double()  # type: ignore[union-attr]
    if node.op == "mul":
        shape = [-1] + [1] * (weight.data.ndim - 1)
        scaled = (weight.data.double() * factor.reshape(shape)).float()
        conv.inputs[1] = names.new(weight.name, scaled, replaces=weight)
        offset = offset * factor
    else:
        offset = offset + factor if node.op == "add" else offset - factor
    conv.inputs[2] = names.new(bias_name(weight), offset.float(), replaces=bias)
    conv.outputs = [node.output]
