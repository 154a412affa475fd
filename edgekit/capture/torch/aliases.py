"""Whether an export's in-place operators can be read as plain ones."""

from __future__ import annotations

import operator

import torch
from torch import fx

from edgekit.capture.torch.fx import CREATORS, IDENTITY, SAME, aten, chain, is_inplace, root

VIEWS = {
    aten.view.default,
    aten.reshape.default,
    aten.reshape_as.default,
    aten.view_as.default,
    aten.transpose.int,
    aten.permute.default,
    aten.chunk.default,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.slice.Tensor,
    aten.select.int,
    aten.unbind.int,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.squeeze.default,
    aten.expand.default,
    aten.expand_as.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.to.dtype,
    aten.to.dtype_layout,
    aten.to.device,
    aten.type_as.default,
    operator.getitem,
}


def aliases_matter(program: torch.export.ExportedProgram) -> bool:
    """Is some tensor overwritten in place while another view of its memory, made before, is read later?

    The importer renames the overwritten tensor itself; ops on constants are executed, aliases and all.
    """
    nodes = list(program.graph.nodes)
    order = {node: i for i, node in enumerate(nodes)}
    inputs = set(program.graph_signature.user_inputs)
    constant: set[fx.Node] = set()
    families: dict[fx.Node, list[fx.Node]] = {}
    for node in nodes:
        families.setdefault(root(node, VIEWS | IDENTITY), []).append(node)
        if node.op == "placeholder":
            fixed = node.name not in inputs
        else:
            fixed = node.target in CREATORS or all(arg in constant for arg in node.all_input_nodes)
        if fixed:
            constant.add(node)
    for node in nodes:
        if not is_inplace(node) or node.target in IDENTITY or node in constant:
            continue
        written = root(node, SAME)
        for relative in families[root(node, VIEWS | IDENTITY)]:
            if order[relative] >= order[node] or root(relative, SAME) is written:
                continue
            if _disjoint(relative, written):
                continue
            if any(order[user] > order[node] for user in relative.users):
                return True
    return False


def _disjoint(a: fx.Node, b: fx.Node) -> bool:
    """Do `a` and `b` stand on different pieces of one split?"""
    above_a, above_b = chain(a, VIEWS | IDENTITY)[::-1], chain(b, VIEWS | IDENTITY)[::-1]
    x, y = next(((x, y) for x, y in zip(above_a, above_b, strict=False) if x is not y), (a, b))
    return bool(x.target is y.target is operator.getitem and x.args[1] != y.args[1])
