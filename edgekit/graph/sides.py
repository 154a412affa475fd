"""Whether a graph, recorded at one height and width, computes at others what its module would.

Enters: a graph whose pictures are (1, C, H, W). Leaves: the first node whose attributes or constants hold the
recorded side, none where all sides will do.
"""

from __future__ import annotations

from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import OPS

_SIDES = {2, 3}


def bound_to_side(graph: Graph) -> Node | None:
    """The first node that takes pictures of the recorded side alone."""
    sided = {value for value in graph.inputs if len(value.shape) == 4}
    for node in graph.nodes:
        if not sided.intersection(node.operands):
            continue
        follows = _follows(node, sided)
        if follows is None:
            return node
        if follows:
            sided.update(node.outputs)
    return None


def _follows(node: Node, sided: set[Value]) -> bool | None:
    """Whether the results grow with the operands; None where the node knows how large they were."""
    row = OPS[node.op]
    if row.channels == "reduce":
        dims = {d % 4 for d in node.attrs.get("dims", ())}
        return False if dims >= _SIDES else True if dims == {1} else None
    if row.channels == "window":  # an adaptive pool makes as many places of any side
        return None if "size" in node.attrs else "output_size" not in node.attrs
    if row.channels == "move":
        whole = node.attrs.get("dim") == 1 or "pads" in node.attrs or row.layout == "image"
        return True if whole else None
    if row.channels == "weigh":
        return True if row.layout == "image" else None
    if row.channels == "join":
        return None if any(v.is_constant and set(v.shape[-2:]) - {1} for v in node.operands) else True
    return True if row.channels in ("pass", "scale") else None
