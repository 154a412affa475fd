"""Where a graph, captured of one image, says 1 and means the batch."""

from __future__ import annotations

from edgekit.graph.ir import Graph, Node


def free_batch(graph: Graph, of_two: Graph) -> None:
    """Reshapes and expansions of `graph` leave the size open that grew in the same module's graph of two.

    Graphs that differ in more than sizes stay as they are.
    """
    pairs = list(zip(graph.nodes, of_two.nodes, strict=False))
    if len(graph.nodes) != len(of_two.nodes) or any(one.op != two.op for one, two in pairs):
        return
    for one, two in pairs:
        if one.op in ("reshape", "expand") and not one.operands[0].is_constant:
            one.attrs["shape"] = _open(one, two)


def _open(one: Node, two: Node) -> tuple[int, ...]:
    sizes = list(zip(one.output.shape, two.output.shape, strict=True))
    grown = [dim for dim, (a, b) in enumerate(sizes) if a != b]
    if one.op == "reshape" and len(grown) != 1:
        return tuple(one.attrs["shape"])
    return tuple(-1 if dim in grown else a for dim, (a, _) in enumerate(sizes))
