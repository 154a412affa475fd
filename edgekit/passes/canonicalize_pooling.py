"""One spelling for each pooling.

adaptive_avg_pool2d to 1x1, avg_pool2d over the whole map     -> mean over (2, 3)
adaptive_avg_pool2d to the same size                          -> nothing
adaptive_avg_pool2d that divides evenly                       -> avg_pool2d
mean(keepdim) whose only reader flattens it                   -> mean(keepdim=False)
"""

from __future__ import annotations

from edgekit.graph.ir import Graph, Node, Value
from edgekit.passes.rewrite import keep_annotation


def canonicalize_pooling(graph: Graph) -> int:
    rewrites = 0
    for node in list(graph.nodes):
        if node.op not in ("adaptive_avg_pool2d", "avg_pool2d") or len(_input(node).shape) != 4:
            continue
        if node.op == "adaptive_avg_pool2d":
            rewrites += _adaptive(graph, node)
        else:
            rewrites += _whole_map(node)
    users = graph.users()
    for node in list(graph.nodes):
        if node.op != "mean" or len(_input(node).shape) != 4:
            continue
        if node.attrs["keepdim"] and node.attrs["dims"] == (2, 3):
            rewrites += _flatten(graph, node, users.get(node.output, []))
    return rewrites


def _input(node: Node) -> Value:
    assert node.inputs[0] is not None
    return node.inputs[0]


def _adaptive(graph: Graph, node: Node) -> int:
    height, width = _input(node).shape[-2:]
    out_h, out_w = node.output.shape[-2:]
    if (out_h, out_w) == (height, width):
        graph.replace_uses(node.output, _input(node))
        return 1
    if (out_h, out_w) == (1, 1):
        node.op, node.attrs = "mean", {"dims": (2, 3), "keepdim": True}
        return 1
    if height % out_h == 0 and width % out_w == 0:
        window = (height // out_h, width // out_w)
        node.op = "avg_pool2d"
        node.attrs = {
            "kernel": window,
            "stride": window,
            "padding": (0, 0),
            "ceil_mode": False,
            "count_include_pad": True,
        }
        return 1
    return 0


def _whole_map(node: Node) -> int:
    if node.attrs["kernel"] == _input(node).shape[-2:] and node.attrs["padding"] == (0, 0):
        node.op, node.attrs = "mean", {"dims": (2, 3), "keepdim": True}
        return 1
    return 0


def _flatten(graph: Graph, node: Node, readers: list[Node]) -> int:
    flat = (1, node.output.shape[1])
    if node.output in graph.outputs or not readers:
        return 0
    if any(r.op != "reshape" or r.output.shape != flat for r in readers):
        return 0
    node.attrs["keepdim"] = False
    node.output.shape = flat
    for reader in readers:
        keep_annotation(reader.output, node.output)
        graph.replace_uses(reader.output, node.output)
    return 1
