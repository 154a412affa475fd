"""Activations written out in pieces, as one op.

x * sigmoid(x)                    -> silu(x)
x * hardsigmoid(x)                -> hardswish(x)
relu6(x + 3) / 6, * (1/6)         -> hardsigmoid(x)
x * relu6(x + 3) / 6              -> hardswish(x)     (through the line above)
x * (1/6) * relu6(x + 3)          is left alone: no library writes it
"""

from __future__ import annotations

from edgekit.graph.ir import Graph, Node, Value

GATES = {"sigmoid": "silu", "hardsigmoid": "hardswish"}


def recognize_activation(graph: Graph) -> int:
    return _hardsigmoid(graph) + _gated(graph)


def _number(value: Value | None) -> float | None:
    if value is None or value.data is None or value.data.numel() != 1:
        return None
    return float(value.data.reshape(()))


def _hardsigmoid(graph: Graph) -> int:
    producers = graph.producers()
    found = 0
    for node in graph.nodes:
        factor = _number(node.inputs[1]) if node.op in ("mul", "div") else None
        if not factor or abs((1 / factor if node.op == "mul" else factor) - 6.0) > 1e-4:
            continue
        if node.attrs.get("activation"):
            continue
        clip = producers.get(node.inputs[0])  # type: ignore[arg-type]
        if clip is None:
            continue
        if clip.op == "relu6":
            found += _shifted(producers.get(clip.inputs[0]), node)  # type: ignore[arg-type]
        elif clip.op == "mul":  # (x * relu6(x + 3)) / 6
            found += _product(producers, clip, node)
    return found


def _shifted(add: Node | None, node: Node) -> int:
    if add is None or not _adds_three(add, node):
        return 0
    node.op, node.inputs, node.attrs = "hardsigmoid", [add.inputs[0]], {}
    return 1


def _adds_three(add: Node | None, node: Node) -> bool:
    if add is None or add.op != "add" or add.attrs.get("activation"):
        return False
    x = add.inputs[0]
    return _number(add.inputs[1]) == 3.0 and x is not None and x.shape == node.output.shape


def _product(producers: dict[Value, Node], product: Node, node: Node) -> int:
    for x, gate in (product.inputs, product.inputs[::-1]):
        clip = producers.get(gate)  # type: ignore[arg-type]
        add = producers.get(clip.inputs[0]) if clip is not None and clip.op == "relu6" else None  # type: ignore[arg-type]
        if add and _adds_three(add, node) and add.inputs[0] is x and not product.attrs.get("activation"):
            node.op, node.inputs, node.attrs = "hardswish", [x], {}
            return 1
    return 0


def _gated(graph: Graph) -> int:
    producers = graph.producers()
    found = 0
    for node in graph.nodes:
        if node.op != "mul" or node.attrs.get("activation"):
            continue
        for x, gate in (node.inputs, node.inputs[::-1]):
            source = producers.get(gate)  # type: ignore[arg-type]
            if source is not None and source.op in GATES and source.inputs[0] is x:
                node.op, node.inputs, node.attrs = GATES[source.op], [x], {}
                found += 1
                break
    return found
