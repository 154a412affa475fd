"""What can be taken out of a graph: units, the groups in which they compete, and what must stay.

Enters: a captured graph. Leaves: `Analysis`. A unit is one class of elements that stand and fall together
(graph/channels); a group holds the units that the same parameters make. Where a choice of units must leave
rectangles (heads of equal width, groups of a convolution) or an order (channel shuffle), `allowed` finds the
nearest one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edgekit.errors import PruneError
from edgekit.graph.channels import Coupling, couple
from edgekit.graph.ir import Graph, Value
from edgekit.prune.choose import Choice, choose, completed


@dataclass(frozen=True, eq=False)
class Place:
    """The unit of every index of one dimension of a constant; 0 stays."""

    value: Value
    dim: int
    ids: np.ndarray


@dataclass(frozen=True, eq=False)
class Group:
    """Units that compete with each other, since the same parameters make them.

    name: the first of their modules. units: their ids, above 0. produces: parameters whose slices make a
    unit. consumes: those whose slices read it. scales: those that act on it on the way, one number a channel.
    """

    name: str
    units: tuple[int, ...]
    produces: tuple[Place, ...]
    consumes: tuple[Place, ...]
    scales: tuple[Place, ...]


@dataclass(frozen=True)
class Closed:
    """Channels of one layer that cannot go, and why."""

    name: str
    channels: int
    reason: str


@dataclass(frozen=True, eq=False)
class Analysis:
    graph: Graph
    coupling: Coupling
    groups: tuple[Group, ...]
    closed: tuple[Closed, ...]

    @cached_property
    def units(self) -> dict[int, Group]:
        """The group of every unit."""
        return {unit: group for group in self.groups for unit in group.units}

    def group(self, name: str) -> Group:
        for group in self.groups:
            if group.name == name:
                return group
        raise PruneError(f"[prune] no group is called {name!r}: analysis.groups lists them")

    def complete(self, removed: Collection[int]) -> set[int]:
        """With everything that goes along: a head's channels with the head, a head with all its channels.

        Raises: PruneError where that would take what must stay.
        """
        gone = set(removed)
        unknown = sorted(gone - set(self.units))
        if unknown:
            raise PruneError(f"[prune] {unknown[0]} is no unit of this analysis: analysis.units lists them")
        gone = completed(self._derived, gone)
        for whole, line in self._derived:
            if whole == 0 and line <= gone:
                name = self.units[next(iter(line))].name
                raise PruneError(f"[prune] {name}: a whole line of it would go: keep one unit of it")
        return gone

    @cached_property
    def _derived(self) -> list[tuple[int, set[int]]]:
        """(class, its line), lines that hold something that stays left out."""
        found = [(whole, set(line.tolist())) for whole, line in self.coupling.derived]
        return [(whole, line) for whole, line in found if line != {whole} and 0 not in line]

    def allowed(self, scores: dict[int, float], remove: dict[str, int]) -> set[int]:
        """The units to remove: of each group in `remove` as many as it says, those of the lowest scores.

        Where equal lines or an order must be kept, the cheapest choice that keeps them, as near to the counts
        as it can come. At least one unit of each group and of each line stays.
        """
        unknown = [name for name in remove if name not in {group.name for group in self.groups}]
        if unknown:
            raise PruneError(f"[prune] no group is called {unknown[0]!r}: analysis.groups lists them")
        return choose(self._choice, scores, remove)

    @cached_property
    def _choice(self) -> Choice:
        coupling = self.coupling
        labels = coupling.labels
        return Choice(
            {group.name: group.units for group in self.groups},
            [[labels[line] for line in lines] for lines in coupling.rows],
            [[labels[line] for line in lines] for lines in coupling.prefixes],
            [labels[grid] for grid in coupling.grids],
            self._derived,
            [np.unique(labels[tag]) for tag in coupling.tags.values() if tag.any()],
        )


def analyse(graph: Graph, *, exact: bool = False) -> Analysis:
    """What of `graph` can be removed, and what not with its reason.

    Args:
        exact: only what changes nothing where it is zero: channels under a LayerNorm stay.
    """
    coupling = couple(graph, exact=exact)
    producers = list(_producers(coupling))
    makers: dict[int, list[int]] = {}
    for i, place in enumerate(producers):
        for unit in np.unique(place.ids[place.ids > 0]).tolist():
            makers.setdefault(unit, []).append(i)
    by_makers: dict[tuple[int, ...], list[int]] = {}
    for unit, owners in sorted(makers.items()):
        by_makers.setdefault(tuple(owners), []).append(unit)
    sources = _sources(graph)
    consumers, scales = list(_consumers(coupling)), list(_scales(coupling))
    names: set[str] = set()
    groups = []
    for found, members in sorted(by_makers.items()):
        stem = sources[producers[found[0]].value]
        groups.append(
            Group(
                _unused(stem, names),
                tuple(members),
                tuple(_of(producers, members)),
                tuple(_of(consumers, members)),
                tuple(_of(scales, members)),
            )
        )
    groups += _heads(coupling, producers, set(makers), sources, names)
    return Analysis(graph, coupling, tuple(groups), tuple(_closed(coupling)))


def _producers(coupling: Coupling) -> Iterable[Place]:
    for node, weighing in coupling.weighings.items():
        ids = coupling.labels[weighing.made]
        yield Place(node.operands[1], weighing.out_axis, ids)
        if node.inputs[2] is not None:
            yield Place(node.operands[2], 0, ids)
    for value, tag in coupling.born.items():
        yield Place(value, int(np.argmax(tag.shape)), coupling.labels[tag].ravel())


def _consumers(coupling: Coupling) -> Iterable[Place]:
    """A grouped weight's columns serve every group with other ids: those are found in the coupling alone."""
    for node, weighing in coupling.weighings.items():
        if weighing.read is not None and node.attrs.get("groups", 1) == 1:
            yield Place(node.operands[1], weighing.in_axis, coupling.labels[weighing.read])


def _scales(coupling: Coupling) -> Iterable[Place]:
    for (node, index), tag in coupling.held.items():
        value = node.inputs[index]
        dims = [dim for dim, size in enumerate(tag.shape) if size > 1]
        made = node in coupling.weighings and index == 2
        if value is not None and len(dims) == 1 and not made and value not in coupling.born:
            yield Place(value, dims[0], coupling.labels[tag].ravel())


def _of(places: list[Place], units: Iterable[int]) -> Iterable[Place]:
    """Places that hold any of these units, each once, without the others."""
    wanted = np.array(list(units))
    seen: set[tuple[Value, int]] = set()
    for place in places:
        hit = np.isin(place.ids, wanted)
        if hit.any() and (place.value, place.dim) not in seen:
            seen.add((place.value, place.dim))
            yield Place(place.value, place.dim, np.where(hit, place.ids, 0))


def _heads(
    coupling: Coupling, producers: list[Place], made: set[int], sources: dict[Value, str], names: set[str]
) -> list[Group]:
    """Whole lines as units: a head of attention, a group of a convolution."""
    lines: dict[int, set[int]] = {}
    for whole, line in coupling.derived:
        if whole > 0 and whole not in made and 0 not in line:
            lines.setdefault(whole, set()).update(set(line.tolist()) & made)
    by_makers: dict[tuple[int, ...], list[int]] = {}
    for whole, members in lines.items():
        found = tuple(i for i, place in enumerate(producers) if np.isin(place.ids, list(members)).any())
        if found:
            by_makers.setdefault(found, []).append(whole)
    groups = []
    for makers, units in sorted(by_makers.items()):
        table = np.zeros(int(coupling.labels.max()) + 1, np.int64)
        for whole in units:
            table[list(lines[whole])] = whole
        places = [Place(p.value, p.dim, table[p.ids]) for p in (producers[i] for i in makers)]
        name = _unused(f"{sources[places[0].value]} (whole)", names)
        groups.append(Group(name, tuple(units), tuple(places), (), ()))
    return groups


def _closed(coupling: Coupling) -> Iterable[Closed]:
    for node, weighing in coupling.weighings.items():
        stays = weighing.made[coupling.labels[weighing.made] == 0]
        if len(stays):
            yield Closed(node.source or node.op, len(stays), coupling.reasons[int(stays[0])])


def _sources(graph: Graph) -> dict[Value, str]:
    found: dict[Value, str] = {}
    for node in graph.nodes:
        for value in node.operands:
            if value.is_constant:
                found.setdefault(value, node.source or value.name)
    return found


def _unused(stem: str, names: set[str]) -> str:
    name, i = stem, 1
    while name in names:
        i += 1
        name = f"{stem} ({i})"
    names.add(name)
    return name
