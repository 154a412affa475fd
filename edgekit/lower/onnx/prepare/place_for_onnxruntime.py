"""Where the file for ONNX Runtime's CPU kernels is quantized.

An operator runs in integers when every input comes from a DequantizeLinear and every output goes into a
QuantizeLinear; one that misses either runs in float behind the conversions, up to 2.9 times slower than in a
float file. So an operator is a full unit or plainly float, and a value carries parameters when the operator
that makes it or one that reads it is a unit. The last Gemm needs no QuantizeLinear: its kernel also gives
floats.

The stem convolution of an h-swish network stays in float: in integers it would be as fast, and less exact.
"""

from __future__ import annotations

from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import CONCATS, MOVES, WEIGHT_AXIS
from edgekit.lower.onnx.context import INTEGER
from edgekit.targets import Target


def place_for_onnxruntime(graph: Graph, target: Target) -> int:
    """Take the parameters off everything the file computes in float; returns how many values lost theirs."""
    floating = {node for node in graph.nodes if not in_integers(node)}
    floating |= _stem(graph)
    before = sum(value.quant is not None for value in graph.values())
    while True:
        _strip(graph, floating)
        more = {node for node in graph.nodes if node not in floating and not _whole(node, graph)}
        if not more:
            break
        floating |= more
    return before - sum(value.quant is not None for value in graph.values())


def in_integers(node: Node) -> bool:
    """Whether the runtime has an integer kernel for the node."""
    return node.op in INTEGER and INTEGER[node.op](node)


def moves_integers(node: Node) -> bool:
    """Whether the runtime moves integers as they are."""
    return node.op in MOVES and in_integers(node)


def _stem(graph: Graph) -> set[Node]:
    """The convolutions that read the image, with the h-swish that follows."""
    users = graph.users()
    found: set[Node] = set()
    for node in graph.nodes:
        if node.op != "conv2d" or node.inputs[0] not in graph.inputs:
            continue
        readers = users.get(node.output, [])
        if [reader.op for reader in readers] == ["hardswish"]:
            found.update((node, *readers))
    return found


def _strip(graph: Graph, floating: set[Node]) -> None:
    """Keep the parameters of values that a unit makes or reads, and of weights and operands of units."""
    kept: set[Value] = set()
    for node in graph.nodes:
        if node in floating:
            continue
        kept.update(node.operands)
        if not (node.op == "linear" and node.output in graph.outputs):
            kept.update(node.outputs)
    for value in graph.values():
        if value not in kept:
            value.quant = None


def _whole(node: Node, graph: Graph) -> bool:
    """Whether everything a unit needs is quantized."""
    needed: list[Value] = [*node.operands, *node.outputs]
    if node.op in WEIGHT_AXIS:
        needed = [*node.operands[:2], *([] if node.op == "linear" else node.outputs)]
    whole = all(value.quant is not None for value in needed)
    if moves_integers(node) and node.op not in CONCATS:  # QLinearConcat takes pieces of other grids
        whole = whole and len({value.quant for value in needed}) == 1
    return whole
