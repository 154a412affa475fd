"""A residual convolution adds into the other operand's memory, and then its own result is never rounded.

The CPU plugin fuses `add(conv, other)` into the convolution where nothing reads `other` afterwards. When the
sum is rounded in turn, the kernel applies the bounds of the FakeQuantize between the two and leaves out its
rounding (DnnlPostOpsComposer::compose drops it for FakeQuantize, Sum, FakeQuantize). The FakeQuantize must
stay in the file: without it the addition runs alone, on floats. So the graph says what happens: the result
is float within bounds, and the lowering writes such a clamp as the FakeQuantize it stands for.
"""

from __future__ import annotations

from edgekit.graph.ir import Graph, Node, Value
from edgekit.lower.openvino.constants import bounds
from edgekit.lower.openvino.context import FUSED
from edgekit.targets import Target


def sum_in_place(graph: Graph, target: Target) -> int:
    """Bound instead of round what a convolution adds in place; returns how many results that were."""
    users = graph.users()
    makers = {value: node for node in graph.nodes for value in node.outputs}
    found = [(node, _summand(graph, node, users, makers)) for node in graph.nodes if node.op == "add"]
    for node, value in found:
        if value is not None:
            _bound(graph, makers[value], node, value)
    return sum(value is not None for _, value in found)


def _summand(
    graph: Graph, node: Node, users: dict[Value, list[Node]], makers: dict[Value, Node]
) -> Value | None:
    """The operand whose convolution takes the addition in and skips the rounding, if there is one.

    An activation in between (not relu, which the bounds contain) would keep the rounding.
    """
    if len(set(node.operands)) != 2 or any(v.quant is None or v.is_constant for v in node.operands):
        return None
    straight = [v for v in node.operands if v in makers and _in_integers(makers[v])]
    taken = next((v for v in straight if len(users[v]) == 1), None)
    if taken is None or node.operands[0].shape != node.operands[1].shape:
        return None
    (other,) = [v for v in node.operands if v is not taken]
    if makers[taken].operands[0] is other:
        return None
    held = makers[other].outputs if other in makers else [other]
    before = _before(node, makers)
    spent = all(reader is node or reader in before for value in held for reader in users.get(value, []))
    return taken if spent and _is_rounded(node.output, graph, users) else None


def _in_integers(node: Node) -> bool:
    return node.op == "conv2d" and all(value.quant is not None for value in node.operands[:2])


def _before(node: Node, makers: dict[Value, Node]) -> set[Node]:
    """Every node that must have run before this one."""
    found: set[Node] = set()
    waiting = list(node.operands)
    while waiting:
        maker = makers.get(waiting.pop())
        if maker is not None and maker not in found:
            found.add(maker)
            waiting.extend(maker.operands)
    return found


def _is_rounded(value: Value, graph: Graph, users: dict[Value, list[Node]]) -> bool:
    """Whether a sum meets a FakeQuantize inside its kernel, possibly behind activations."""
    while value.quant is None:
        readers = users.get(value, [])
        if value in graph.outputs or len(readers) != 1 or readers[0].op not in FUSED:
            return False
        value = readers[0].output
    return True


def _bound(graph: Graph, maker: Node, node: Node, value: Value) -> None:
    assert value.quant is not None
    low, high = bounds(value.quant)
    bounded = Value(graph.fresh_name(f"{value.name}.bounded"), value.shape, value.dtype, None, value.range)
    value.quant = None
    clamp = Node("clamp", [value], [bounded], {"low": low, "high": high}, maker.source)
    graph.nodes.insert(graph.nodes.index(maker) + 1, clamp)
    node.inputs = [bounded if v is value else v for v in node.inputs]
