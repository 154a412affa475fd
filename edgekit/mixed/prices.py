"""Milliseconds of every node in every precision: the units of three files, taken apart by nodes.

Enters: an annotated graph. Leaves: the fused units of its files in int8, with every node in float that can
be, and with every product dynamic that can be; which units belong to which node; and the units of the
conversions where precisions meet, one for each size. What they take is measured (`edgekit.cost.measure`) and
summed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from edgekit.cost.units import Unit, units_of
from edgekit.graph.ir import Graph, QuantParams, Value
from edgekit.lower.tflite import layout
from edgekit.lower.tflite.builder import Operator, Signature, Tensor
from edgekit.lower.tflite.layout import NHWC
from edgekit.lower.tflite.lowering import operators
from edgekit.lower.tflite.prepare import prepare
from edgekit.quantize.precision import DYNAMIC, FLOAT, INT8, PRECISIONS, assign, choices
from edgekit.targets import Target

_GRID = QuantParams((0.05,), (0,))
Ns = Callable[[Unit], float]


@dataclass(frozen=True, eq=False)
class Units:
    """nodes: precision -> a node's first result -> its units. rounding, floating: the QUANTIZE and the
    DEQUANTIZE of a node's first result. files: precision -> every unit of the file.
    """

    nodes: Mapping[str, Mapping[str, tuple[Unit, ...]]]
    rounding: Mapping[str, Unit]
    floating: Mapping[str, Unit]
    files: Mapping[str, tuple[Unit, ...]]

    def all(self) -> list[Unit]:
        """Each once, by its key."""
        every = [*self.rounding.values(), *self.floating.values()]
        every += [unit for units in self.files.values() for unit in units]
        return list({unit.key: unit for unit in every}.values())


@dataclass(frozen=True)
class Prices:
    """In milliseconds. nodes: a node's first result -> precision -> what it takes. rounding, floating: of
    converting a node's first result.
    """

    nodes: Mapping[str, Mapping[str, float]]
    rounding: Mapping[str, float]
    floating: Mapping[str, float]


def units_in_all(graph: Graph, target: Target) -> Units:
    """The units of an annotated graph (left as it is) in every precision."""
    able = choices(graph)
    files, nodes = {}, {}
    for kind in PRECISIONS:
        copy = graph.copy()
        assign(
            copy, {name: next(k for k in (kind, FLOAT, INT8) if k in kinds) for name, kinds in able.items()}
        )
        files[kind], owners = _file(copy, target)
        table: dict[str, list[Unit]] = {name: [] for name in able}
        for unit, owner in zip(files[kind], _settled(owners, able), strict=True):
            if owner is not None:
                table[owner].append(unit)
        nodes[kind] = {name: tuple(units) for name, units in table.items()}
    results = [node.output for node in graph.nodes]
    return Units(
        nodes,
        {value.name: _conversion("QUANTIZE", value) for value in results},
        {value.name: _conversion("DEQUANTIZE", value) for value in results},
        files,
    )


def units_of_graph(graph: Graph, target: Target) -> tuple[Unit, ...]:
    """The units of the file of one annotated graph."""
    return _file(graph, target)[0]


def priced(units: Units, able: Mapping[str, tuple[str, ...]], ns: Ns, factors: Mapping[str, float]) -> Prices:
    """What the units of every node add up to.

    Args:
        ns: nanoseconds of a unit by itself.
        factors: "int8" and "float": of a whole file over its units.
    """

    def ms(found: Iterable[Unit]) -> float:
        return sum(ns(unit) * factors[INT8 if _integer(unit) else FLOAT] for unit in found) / 1e6

    def nodes(name: str) -> dict[str, float]:
        return {kind: ms(units.nodes[kind][name]) for kind in able[name]}

    return Prices(
        {name: nodes(name) for name in able},
        {name: ms([unit]) for name, unit in units.rounding.items()},
        {name: ms([unit]) for name, unit in units.floating.items()},
    )


def predicted_ms(units: Iterable[Unit], ns: Ns, factors: Mapping[str, float]) -> float:
    """What a file takes."""
    return sum(ns(unit) * factors[INT8 if _integer(unit) else FLOAT] for unit in units) / 1e6


def _integer(unit: Unit) -> bool:
    """Whether a unit reads and writes integers; a product by dynamic weights does not."""
    return all(tensor.dtype != "float32" for tensor in (*unit.inputs, *unit.outputs))


def _file(graph: Graph, target: Target) -> tuple[tuple[Unit, ...], list[list[str]]]:
    """The units of a file, and of each the names of the values its nodes give."""
    prepared = prepare(graph, target)
    written, signature = operators(prepared, target)
    units = tuple(units_of(written, signature))
    names = [[value.name for value in node.outputs] for node in prepared.nodes]
    return units, [[name for i in unit.nodes for name in names[i]] for unit in units]


def _settled(owners: list[list[str]], able: Mapping[str, object]) -> list[str | None]:
    """The node of the source graph each unit belongs to: the last one it names; what preparation made on the
    way to a node is that node's; conversions belong to none.
    """
    order = {name: i for i, name in enumerate(able)}
    found: list[str | None] = []
    for names in owners:
        if names and all(name.endswith((".rounded", ".float")) for name in names):
            found.append(None)
            continue
        known = [name for name in names if name in order]
        known = known or [base for name in names if (base := name.rpartition(".")[0]) in order]
        found.append(max(known, key=order.__getitem__) if known else "")
    following: str | None = None
    for i in range(len(found) - 1, -1, -1):
        if found[i] == "":
            found[i] = following if owners[i] else None  # at the edge of the file it belongs to none
        elif found[i] is not None:
            following = found[i]
    return found


def _conversion(name: str, value: Value) -> Unit:
    shape = layout.apply(NHWC, value.shape) if len(value.shape) == 4 else value.shape
    integer = Tensor("integer", shape, "int8", None, _GRID)
    real = Tensor("real", shape, "float32")
    x, y = (real, integer) if name == "QUANTIZE" else (integer, real)
    (unit,) = units_of([Operator(name, [x], [y])], Signature([("x", x)], [("y", y)]))
    return unit


__all__ = ["DYNAMIC", "Prices", "Units", "predicted_ms", "priced", "units_in_all", "units_of_graph"]
