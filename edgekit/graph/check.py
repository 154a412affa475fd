"""Whether a graph is one: asked after every pass and of every file that is read."""

from __future__ import annotations

from edgekit.errors import GraphError
from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import OPS
from edgekit.graph.shapes import infer_shapes


def check(graph: Graph) -> None:
    """Topological order, single producers, unique names, known ops, shapes as torch computes them.

    Raises: GraphError naming the node.
    """

    known: set[Value] = set(graph.inputs)
    names: set[str] = set()
    for value in graph.values():
        if value.name in names:
            raise GraphError(f"[graph] two values are named {value.name!r}")
        names.add(value.name)
        if value.data is not None and tuple(value.data.shape) != value.shape:
            raise GraphError(
                f"[graph] constant {value} holds {tuple(value.data.shape)}: recorded as {value.shape}"
            )
    for node in graph.nodes:
        where = node.source or "top level"
        if node.op not in OPS:
            raise GraphError(f"[graph] unknown op {node.op!r} at {where}")
        for value in node.operands:
            if value not in known and not value.is_constant:
                raise GraphError(f"[graph] {node.op} at {where} reads {value} before it is computed")
        _check_dtype(node, where)
        computed, recorded = infer_shapes(node), tuple(v.shape for v in node.outputs)
        if computed != recorded:
            raise GraphError(f"[graph] {node.op} at {where} computes {computed}: recorded as {recorded}")
        for out in node.outputs:
            if out in known or out.is_constant:
                raise GraphError(f"[graph] {out} is produced twice")
            known.add(out)
    for value in graph.outputs:
        if value not in known and not value.is_constant:
            raise GraphError(f"[graph] output {value} is never computed")


def _check_dtype(node: Node, where: str) -> None:
    first, accepted = node.operands[0], OPS[node.op].dtypes
    floating = first.dtype.startswith("float")
    if not floating and (accepted == "floats" or (accepted == "numbers" and first.dtype == "bool")):
        raise GraphError(
            f"[graph] {node.op} at {where} reads {first}, which is {first.dtype}: takes {accepted}"
        )
