"""conv2d | linear, then a multiplication or addition by a per-channel constant -> one convolution.

(W x + b) * c = (W * c) x + b * c;   (W x + b) + c = W x + (b + c)
Inception-ResNet's scaled residuals, layer scale, and normalisation constants spelled out as tensors.
"""

from __future__ import annotations

import torch

from edgekit.ir import Graph, Node
from edgekit.passes.rewrite import new_constant, per_channel, sole_reader


def fold_scale(graph: Graph) -> int:
    folded = 0
    for node in [n for n in graph.nodes if n.op in ("mul", "add", "sub") and not n.attrs.get("activation")]:
        producers, counts = graph.producers(), graph.use_counts()
        for data_index, constant_index in ((0, 1), (1, 0)):
            if node.op == "sub" and data_index == 1:
                continue
            data, constant = node.inputs[data_index], node.inputs[constant_index]
            assert data is not None
            conv = producers.get(data)
            if conv is None or conv.op not in ("conv2d", "linear") or not sole_reader(counts, data):
                continue
            if (
                conv.attrs.get("activation")
                or len(data.shape) not in (2, 4)
                or node.output.shape != data.shape
            ):
                continue
            factor = per_channel(constant, data.shape[1])
            if factor is None:
                continue
            _apply(graph, conv, node, factor)
            folded += 1
            break
    return folded


def _apply(graph: Graph, conv: Node, node: Node, factor: torch.Tensor) -> None:
    weight, bias = conv.inputs[1], conv.inputs[2]
    assert weight is not None and weight.data is not None
    offset = torch.zeros(len(factor), dtype=torch.float64) if bias is None else bias.data.double()  # type: ignore[union-attr]
    if node.op == "mul":
        shape = [-1] + [1] * (weight.data.ndim - 1)
        scaled = (weight.data.double() * factor.reshape(shape)).float()
        conv.inputs[1] = new_constant(graph, weight.name, scaled, replaces=weight)
        offset = offset * factor
    else:
        offset = offset + factor if node.op == "add" else offset - factor
    stem = weight.name.removesuffix("weight").rstrip(".")
    conv.inputs[2] = new_constant(graph, f"{stem}.bias", offset.float(), replaces=bias)
    conv.outputs = [node.output]
    graph.nodes.remove(node)
