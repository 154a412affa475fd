"""Single nodes of an int8 graph in another precision: float, or int8 weights over float activations.

A node computes in the type of its result, so a precision is that of results, and of the weights behind them:

    int8      integers in, integers out
    dynamic   int8 weights; the input is float, and the kernel rounds it by itself; the result is float
    float     weights as they were before they were rounded

What is int8 reads a float result through a rounded copy with the parameters that the result had; what only
moves numbers rounds them itself. A dynamic node reads integers through a copy in float. The copies are
reshapes to the same shape: QUANTIZE and DEQUANTIZE in a file. What leaves the graph stays int8, computed in
float or not.

Enters: an annotated graph whose weights are not rounded yet (`quantize` without GPTQ). Leaves: the same graph
in mixed precision; biases are fitted anew by `placement.fit_biases`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from edgekit.errors import QuantizationError, did_you_mean
from edgekit.graph.boundaries import may_be_dynamic
from edgekit.graph.ir import Graph, Node, QuantParams, Value, unused_name
from edgekit.graph.ops import MOVES, OPS, Fixed
from edgekit.quantize import rules

INT8, DYNAMIC, FLOAT = "int8", "dynamic", "float"
PRECISIONS = (INT8, DYNAMIC, FLOAT)
Kinds = Mapping[str, str]  # name of a node's first result -> its precision


def choices(graph: Graph) -> dict[str, tuple[str, ...]]:
    """What every node of an annotated graph may compute in, by its first result; int8 first.

    What saturates between fixed bounds (a hard sigmoid) stays int8, and so does what makes its input: the
    integers' own bounds do it, and the float form is not accelerated.
    """
    producers, outputs = graph.producers(), set(graph.outputs)
    saturating = [node for node in graph.nodes if _saturates(node)]
    pinned = {*saturating, *(producers[v] for node in saturating for v in node.operands if v in producers)}
    found = {}
    for node in graph.nodes:
        kinds = [INT8]
        if node not in pinned and all(v.quant is not None for v in node.outputs):
            integers = {v.quant.dtype for v in node.outputs if v.quant is not None}
            weighted = may_be_dynamic(node) and rules.weight_of(node) is not None
            if weighted and integers == {"int8"} and node.output not in outputs:
                kinds.append(DYNAMIC)
            kinds.append(FLOAT)
        found[node.output.name] = tuple(kinds)
    return found


def _saturates(node: Node) -> bool:
    """Whether the integers of its grid end where the function does."""
    ranges = OPS[node.op].ranges
    if not isinstance(ranges, Fixed):
        return False
    scale, zero_point = ranges.int8
    return math.isclose(scale * (127 - zero_point), ranges.high)


def of_modules(graph: Graph, modules: Iterable[str], kind: str) -> dict[str, str]:
    """The nodes of these modules in this precision, or float where they have no such form.

    Raises: QuantizationError for a module that the graph has not.
    """
    able, kinds = choices(graph), {}
    for module in modules:
        inside = [node for node in graph.nodes if _inside(node.source, module)]
        if not inside:
            known = sorted({node.source for node in graph.nodes})
            raise QuantizationError(
                f"[quantize] {kind}: {module!r} is no module of {graph.name}{did_you_mean(module, known)}"
            )
        for node in inside:
            name = node.output.name
            wanted = next((one for one in (kind, FLOAT) if one in able[name]), None)
            if wanted is not None:
                kinds[name] = wanted
    return kinds


def _inside(source: str, module: str) -> bool:
    return source == module or source.startswith(f"{module}.")


def assign(graph: Graph, kinds: Kinds) -> int:
    """Give nodes these precisions in place; those not named keep theirs. Returns how many were changed.

    Raises: QuantizationError for a node that cannot compute in what it is given.
    """
    able = choices(graph)
    for name, kind in kinds.items():
        if kind not in able.get(name, ()):
            accepted = f"one of {', '.join(able[name])}" if name in able else "a node's first result"
            raise QuantizationError(f"[quantize] {name}: {kind!r}: {accepted}")
    chosen = {node: kind for node in graph.nodes if (kind := kinds.get(node.output.name, INT8)) != INT8}
    outputs, uses = set(graph.outputs), graph.use_counts()
    grids: dict[Value, QuantParams] = {}
    for node, kind in chosen.items():
        for out in node.outputs:
            if out not in outputs and out.quant is not None:
                grids[out] = out.quant
                out.quant = None
        for index, value in enumerate(node.inputs):
            if value is None or not value.is_constant or value.quant is None:
                continue
            weight = rules.weight_of(node) is value
            if uses[value] > 1:
                value = node.inputs[index] = _own(graph, value)
            if not (weight and kind == DYNAMIC):
                value.quant = None
    _convert(graph, chosen, grids)
    return len(chosen)


def _own(graph: Graph, value: Value) -> Value:
    """A constant that others read too, for one reader alone."""
    name = graph.fresh_name(f"{value.name}.own")
    return Value(name, value.shape, value.dtype, value.data, value.range, value.quant, value.kind)


def _convert(graph: Graph, chosen: Mapping[Node, str], grids: Mapping[Value, QuantParams]) -> None:
    """Copies in front of readers that take the other type alone."""
    copies: dict[tuple[Value, bool], Value] = {}
    nodes: list[Node] = []
    taken = {value.name for value in graph.values()}
    for node in graph.nodes:
        for index, value in enumerate(node.inputs):
            if value is None or value.is_constant:
                continue
            rounded = value in grids and node not in chosen and takes_integers(node)
            floated = chosen.get(node) == DYNAMIC and index == 0 and value.quant is not None
            if not (rounded or floated):
                continue
            if (value, rounded) not in copies:
                quant = grids[value] if rounded else None
                copy = copies[value, rounded] = _copy(value, quant, taken)
                shape = (-1, *value.shape[1:]) if value.shape else ()
                nodes.append(Node("reshape", [value], [copy], {"shape": shape}, node.source))
            node.inputs[index] = copies[value, rounded]
        nodes.append(node)
    graph.nodes = nodes


def takes_integers(node: Node) -> bool:
    """Whether an operand in float is rounded in front of it: what moves numbers rounds them by itself, and
    what is computed in float anyway takes them as they are.

    A function that reads a float and gives an integer is the same function in float, its result rounded.
    """
    return node.op not in MOVES and node.output.quant is not None


def _copy(value: Value, quant: QuantParams | None, taken: set[str]) -> Value:
    name = unused_name(f"{value.name}.{'rounded' if quant else 'float'}", taken)
    taken.add(name)
    return Value(name, value.shape, value.dtype, None, value.range, quant)
