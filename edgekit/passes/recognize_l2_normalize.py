"""Normalisation to length one spelled out, as torch.export gives it: -> l2_normalize.

x / expand(max(sqrt(sum(x * x)), eps)); in integers the small lengths among the divisors would be zero.
"""

from __future__ import annotations

from edgekit.graph.ir import Graph, Node, Value
from edgekit.passes.rewrite import sole_reader


def recognize_l2_normalize(graph: Graph) -> int:
    producers, counts = graph.producers(), graph.use_counts()

    def made(value: Value | None, op: str) -> Node | None:
        """What computes a value, if it is that op and nobody else reads it."""
        node = producers.get(value) if value is not None else None
        return node if node is not None and node.op == op and sole_reader(counts, node.output) else None

    found = 0
    for node in graph.nodes:
        if node.op != "div" or node.attrs.get("activation"):
            continue
        x, divisor = node.inputs
        wide = made(divisor, "expand")
        clamp = made(wide.inputs[0] if wide else divisor, "clamp")
        root = made(clamp.inputs[0], "sqrt") if clamp else None
        total = made(root.inputs[0], "sum") if root else None
        square = made(total.inputs[0], "mul") if total else None
        if clamp is None or total is None or square is None or square.inputs != [x, x]:
            continue
        dims, low = total.attrs["dims"], clamp.attrs["low"]
        if len(dims) != 1 or not total.attrs["keepdim"] or clamp.attrs["high"] is not None:
            continue
        if square.attrs.get("activation") or not low or low < 0:
            continue
        node.op, node.inputs = "l2_normalize", [x]
        node.attrs = {"dim": dims[0] % len(square.output.shape), "eps": low}
        found += 1
    return found
