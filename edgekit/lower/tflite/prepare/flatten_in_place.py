"""flatten(C, H, W) -> linear: take the pixels as they lie, (H, W, C), and reorder the weight's columns."""

from __future__ import annotations

from edgekit.graph.ir import Graph, Node, Value
from edgekit.targets import Target


def flatten_in_place(graph: Graph, target: Target) -> int:
    """Rewrite reshape(N, C, H, W -> N, C*H*W) read only by linears with weights of their own."""
    users, use_counts = graph.users(), graph.use_counts()
    count = 0
    for node in list(graph.nodes):
        if node.op != "reshape" or len(node.inputs[0].shape) != 4 or len(node.output.shape) != 2:  # type: ignore[union-attr]
            continue
        x, flat = node.inputs[0], node.output
        assert x is not None
        _, c, h, w = x.shape
        readers = users.get(flat, [])
        if h * w == 1 or flat.shape[1] != c * h * w or flat in graph.outputs or not readers:
            continue
        if not all(_own_weight(reader, flat, use_counts) for reader in readers):
            continue
        for weight in dict.fromkeys(reader.inputs[1] for reader in readers):
            assert weight is not None and weight.data is not None
            columns = weight.data.detach().reshape(-1, c, h, w).permute(0, 2, 3, 1)
            weight.data = columns.reshape(weight.shape).contiguous()
        turned = Value(
            graph.fresh_name(f"{flat.name}.nhwc"), (x.shape[0], h, w, c), x.dtype, None, x.range, x.quant
        )
        permute = Node("permute", [x], [turned], {"dims": (0, 2, 3, 1)}, node.source)
        node.inputs = [turned]
        graph.nodes.insert(graph.nodes.index(node), permute)
        count += 1
    return count


def _own_weight(reader: Node, flat: Value, use_counts: dict[Value, int]) -> bool:
    weight = reader.inputs[1] if reader.op == "linear" else None
    return (
        weight is not None
        and weight.is_constant
        and use_counts[weight] == 1
        and reader.inputs.count(flat) == 1
    )
