"""What a graph of other widths would cost, without building each.

Every node's share of the price (MACs, parameters, predicted milliseconds of its fused unit) is a bilinear
function of how much of its input and how much of its output is left:

    a + b p + c q + d p q        p, q: shares of the tags' elements that are kept

fitted, with coefficients of at least zero, to a few cut graphs of seeded widths that are priced exactly. For
MACs that is exact; for times it is what lies between the measured widths. Whoever searches corrects the sum
by an exact price of what was found.

Enters: an analysis, an exact pricing of graphs by node. Leaves: `Price`, a function of the share of every
group that is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.optimize import nnls

from edgekit.cost.static import count
from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import OPS
from edgekit.prune.cut import cut
from edgekit.prune.groups import Analysis

Shares = Mapping[str, float]  # group -> share of its units that stays
LEVELS = (1.0, 0.75, 0.5, 0.25)
SAMPLES = 8


class Unit(Protocol):
    """What runs as one: see edgekit.cost.predict.UnitCost."""

    @property
    def ms(self) -> float: ...
    @property
    def outputs(self) -> tuple[str, ...]: ...
    @property
    def source(self) -> str: ...


class Cost(Protocol):
    """Times of one device and target: see edgekit.cost.predict.Cost."""

    def graph_ms(self, graph: Graph) -> float: ...
    def units(self, graph: Graph) -> Sequence[Any]: ...


# a graph -> (the output or module a part belongs to, its price) in an order that a cut does not change
Parts = Callable[[Graph], list[tuple[str, str, float]]]


def macs_of(graph: Graph) -> list[tuple[str, str, float]]:
    return [(node.output, node.module, float(node.macs)) for node in count(graph).nodes]


def params_of(graph: Graph) -> list[tuple[str, str, float]]:
    return [(node.output, node.module, float(node.params)) for node in count(graph).nodes]


def milliseconds_of(cost: Cost) -> Parts:
    """The fused units of a device and what each takes."""

    def parts(graph: Graph) -> list[tuple[str, str, float]]:
        return [
            (unit.outputs[-1] if unit.outputs else "", unit.source, unit.ms) for unit in cost.units(graph)
        ]

    return parts


@dataclass(frozen=True, eq=False)
class Price:
    """names: groups. read, made: per part the share of each group in its input and output, and the rest that
    stays, (parts, groups + 1). terms: (parts, 4).
    """

    names: tuple[str, ...]
    read: np.ndarray
    made: np.ndarray
    terms: np.ndarray

    def __call__(self, kept: Shares) -> float:
        """The price where of each group that share stays."""
        shares = np.array([*(kept.get(name, 1.0) for name in self.names), 1.0])
        p, q = self.read @ shares, self.made @ shares
        a, b, c, d = self.terms.T
        return float((a + b * p + c * q + d * p * q).sum())


def units_price(analysis: Analysis, names: Sequence[str]) -> Price:
    """The number of units that are left, of these groups."""
    sizes = np.array([float(len(analysis.group(name).units)) for name in names])
    read = np.append(sizes, 0.0)[None]
    return Price(tuple(names), read, read, np.array([[0.0, 1.0, 0.0, 0.0]]))


def fit_price(
    analysis: Analysis,
    names: Sequence[str],
    parts: Parts,
    removal: Callable[[Mapping[str, int]], set[int]],
    *,
    seed: int = 0,
) -> Price:
    """Price a few cuts by node and fit what lies between.

    Args:
        names: groups that may lose units.
        parts: the exact price by node.
        removal: units to remove of each group -> the units, as they can be removed.
    """
    graph, rng = analysis.graph, np.random.default_rng(seed)
    groups = {name: set(analysis.group(name).units) for name in names}
    first = parts(graph)
    shares, values = [np.ones(len(names) + 1)], [[value for *_, value in first]]
    for sample in range(SAMPLES):
        levels = np.full(len(names), 0.5) if sample == 0 else rng.choice(LEVELS, len(names))
        wanted = {
            name: round(len(groups[name]) * (1 - level)) for name, level in zip(names, levels, strict=True)
        }
        removed = analysis.complete(removal(wanted))
        found = _aligned(first, parts(cut(analysis, removed)))
        if found is None:
            continue
        kept = [1 - len(groups[name] & removed) / len(groups[name]) for name in names]
        shares.append(np.array([*kept, 1.0]))
        values.append(found)
    read, made = _tags(analysis, names, first)
    lines, table = np.array(shares), np.array(values)
    terms = []
    for i in range(len(first)):
        p, q = lines @ read[i], lines @ made[i]
        scale = max(float(table[:, i].max()), 1e-30)
        solved, _ = nnls(np.stack([np.ones_like(p), p, q, p * q], 1), table[:, i] / scale)
        terms.append(solved * scale)
    return Price(tuple(names), read, made, np.array(terms))


def _aligned(first: list[tuple[str, str, float]], found: list[tuple[str, str, float]]) -> list[float] | None:
    """The figures of a cut for the parts of the whole: a part that is not there any more costs nothing.

    None where the cut has parts of its own that cost something: fused otherwise, it says nothing of the same.
    """
    if len(found) == len(first):
        return [value for *_, value in found]
    there = {output: value for output, _, value in found}
    names = {output for output, *_ in first}
    if len(there) < len(found) or any(value for name, value in there.items() if name not in names):
        return None
    return [there.get(output, 0.0) for output, *_ in first]


def _tags(
    analysis: Analysis, names: Sequence[str], parts: list[tuple[str, str, float]]
) -> tuple[np.ndarray, np.ndarray]:
    """For every part how its input and output are made up of groups."""
    coupling, graph = analysis.coupling, analysis.graph
    producers = graph.producers()
    by_output = {value.name: node for value, node in producers.items()}
    by_source: dict[str, Node] = {}
    for node in graph.nodes:
        if node in coupling.weighings or node.source not in by_source:
            by_source[node.source] = node
    owner = np.zeros(int(coupling.labels.max()) + 1, np.int64)
    owner[:] = len(names)
    for i, name in enumerate(names):
        owner[list(analysis.group(name).units)] = i

    def made_up(tag: np.ndarray) -> np.ndarray:
        found = np.bincount(owner[coupling.labels[tag]].ravel(), minlength=len(names) + 1)
        return found / found.sum()

    nothing = np.append(np.zeros(len(names)), 1.0)
    read, made = [], []
    for output, source, _ in parts:
        found = by_output.get(output) or by_source.get(source)
        if found is None:
            read.append(nothing)
            made.append(nothing)
            continue
        first = _computing(found, coupling.weighings, producers)
        varying = [coupling.tags[v] for v in first.operands if v in coupling.tags]
        read.append(made_up(max(varying, key=lambda tag: tag.size)) if varying else nothing)
        made.append(made_up(coupling.tags[found.output]))
    return np.array(read), np.array(made)


def _computing(node: Node, weighings: Mapping[Node, object], producers: Mapping[Value, Node]) -> Node:
    """The layer with weights whose unit ends in `node`: batch norm and activations are fused behind it."""
    while node not in weighings and node.operands and node.operands[0] in producers:
        before = producers[node.operands[0]]
        if before.source != node.source and OPS[node.op].channels not in ("pass", "scale"):
            break
        node = before
    return node
