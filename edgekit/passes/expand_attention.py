"""scaled_dot_product_attention -> matmul, softmax, matmul, with the scale on the query side.

softmax(q k^T * scale + mask) v = softmax((q * scale) k^T + mask) v
"""

from __future__ import annotations

import math

import torch

from edgekit.graph.ir import Graph, Node, Value
from edgekit.passes.rewrite import ConstantNames

MASKED = -100.0  # what a boolean mask becomes: exp(-100) is nothing, and an int8 range still holds it


def expand_attention(graph: Graph) -> int:
    expanded = 0
    names = ConstantNames(graph)
    for node in [n for n in graph.nodes if n.op == "scaled_dot_product_attention"]:
        q, k, v, mask = node.inputs
        assert q is not None and k is not None and v is not None
        scale = node.attrs["scale"] or 1.0 / math.sqrt(q.shape[-1])
        rows, columns = q.shape[-2], k.shape[-2]
        batch = torch.broadcast_shapes(q.shape[:-2], k.shape[:-2])  # one key for all heads: multi-query
        position = graph.nodes.index(node)
        added: list[Node] = []

        def emit(op: str, inputs: list[Value], shape: tuple[int, ...], **attrs: object) -> Value:
            value = Value(names.fresh(f"{node.source}/{op}"), shape)  # noqa: B023 (this iteration only)
            added.append(Node(op, list(inputs), [value], attrs, node.source))  # noqa: B023
            return value

        factor = names.new(f"{node.source}/scale", torch.tensor(scale))
        scaled = emit("mul", [q, factor], q.shape)
        ahead = len(k.shape) - 2
        order = (*range(ahead), ahead + 1, ahead)
        transposed = emit("permute", [k], (*k.shape[:-2], k.shape[-1], columns), dims=order)
        scores = emit("matmul", [scaled, transposed], (*batch, rows, columns))
        if mask is not None:
            if mask.data is not None and mask.data.dtype == torch.bool:
                floats = torch.where(mask.data, 0.0, MASKED)
                mask = names.new(mask.name, floats, replaces=mask)
            scores = emit("add", [scores, mask], scores.shape)
        weights = emit("softmax", [scores], scores.shape, dim=len(scores.shape) - 1)
        added.append(Node("matmul", [weights, v], [node.output], {}, node.source))
        graph.nodes[position : position + 1] = added
        expanded += 1
    return expanded
