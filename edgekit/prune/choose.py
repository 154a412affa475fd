"""Which units go: the lowest scores of each group, under the lines and orders that must be kept.

Enters: groups, lines of classes, scores and counts. Leaves: a set of units. Groups without constraints take
their lowest scores; those that constraints tie together are chosen by an integer program.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from edgekit.errors import PruneError

_SECONDS = 20.0
_GAP = 0.01  # of the cost: scores are estimates
_MISSED = 100.0  # what a unit too many or too few costs, in units of the largest score

Line = tuple[tuple[int, int], ...]  # (class, how often)


@dataclass(frozen=True, eq=False)
class Choice:
    """groups: name -> units. rows, prefixes, grids, derived: as the coupling has them, in classes.

    values: the classes of each value, of which one must stay.
    """

    groups: dict[str, tuple[int, ...]]
    rows: list[list[np.ndarray]]
    prefixes: list[list[np.ndarray]]
    grids: list[np.ndarray]
    derived: list[tuple[int, set[int]]]
    values: list[np.ndarray]


def choose(choice: Choice, scores: dict[int, float], remove: dict[str, int]) -> set[int]:
    """The units to remove, `remove[group]` of each group."""
    whole = {unit for unit, _ in choice.derived}
    gone: set[int] = set()
    for name, units in choice.groups.items():
        if set(units) <= whole and name in remove:  # first: what goes with them is no longer up for choice
            gone = _lines(choice, units, scores, remove[name], gone)
    constraints = _constraints(choice, gone)
    owner = {unit: name for name, units in choice.groups.items() if not set(units) <= whole for unit in units}
    for names, rows, prefixes in _components(owner, constraints):
        counts = {name: remove.get(name, 0) - len(gone.intersection(choice.groups[name])) for name in names}
        if max(counts.values()) <= 0:
            continue
        if not rows and not prefixes:
            for name in names:
                free = [unit for unit in choice.groups[name] if unit not in gone]
                gone |= _lowest(free, scores, counts[name])
        else:
            left = {name: [u for u in choice.groups[name] if u not in gone] for name in names}
            needed = {frozenset(line) for _, line in choice.derived}
            needed |= {frozenset(classes.tolist()) for classes in choice.values}
            remain = [line - gone for line in needed]
            equal = None if prefixes else _equal_lines(left, counts, rows, remain, scores)
            program = (left, counts, rows, prefixes, remain, scores)
            gone |= _program(*program) if equal is None else equal
    return _spared(choice, gone, scores)


def completed(derived: list[tuple[int, set[int]]], removed: Iterable[int]) -> set[int]:
    """With everything that goes along: a line with its whole, a whole with all of its line."""
    gone, before = set(removed), -1
    while len(gone) != before:
        before = len(gone)
        for whole, line in derived:
            if whole in gone:
                gone |= line
            elif whole and line <= gone:
                gone.add(whole)
    return gone


def _lines(
    choice: Choice, units: Iterable[int], scores: dict[int, float], count: int, gone: set[int]
) -> set[int]:
    """Whole lines of the lowest scores, as many as leave something of everything."""
    for unit in sorted(units, key=lambda unit: (scores.get(unit, 0.0), unit)):
        if len(gone & set(units)) >= count:
            break
        more = completed(choice.derived, gone | {unit})
        empties = any(line <= more for whole, line in choice.derived if not whole) or any(
            set(classes.tolist()) <= more for classes in choice.values
        )
        if not empties and _fits(choice, more):
            gone = more
    return gone


def _fits(choice: Choice, gone: set[int]) -> bool:
    return all(_straight(lines, gone) for lines in choice.rows) and all(
        _rectangle(grid, gone) for grid in choice.grids
    )


def _rectangle(grid: np.ndarray, gone: set[int]) -> bool:
    """Whether the lines that are not gone whole are those of some indices of every dimension."""
    alive = np.asarray(np.isin(grid, list(gone), invert=True).any(axis=-1))
    dims = range(alive.ndim)
    return int(alive.sum()) == math.prod(
        int(alive.any(tuple(d for d in dims if d != dim)).sum()) for dim in dims
    )


def _straight(lines: list[np.ndarray], gone: set[int]) -> bool:
    """Whether the lines that are not gone whole have lost equally many."""
    lost = [sum(c in gone for c in line.tolist()) for line in lines]
    return len({n for n, line in zip(lost, lines, strict=True) if n < len(line)}) < 2


def _lowest(units: Iterable[int], scores: dict[int, float], count: int) -> set[int]:
    units = list(units)
    order = sorted(units, key=lambda unit: (scores.get(unit, 0.0), unit))
    return set(order[: max(0, min(count, len(units) - 1))])


def _line(classes: np.ndarray) -> Line:
    found, counts = np.unique(classes[classes > 0], return_counts=True)
    return tuple(zip(found.tolist(), counts.tolist(), strict=True))


def _constraints(choice: Choice, gone: set[int]) -> list[tuple[str, list[Line], list[int]]]:
    """(kind, lines, their lengths), each once; lines that are gone whole are no lines any more."""
    seen: set[tuple[str, tuple[Line, ...]]] = set()
    found = []
    for kind, every in (("rows", choice.rows), ("prefix", choice.prefixes)):
        for lines in every:
            alive = [line for line in lines if not set(np.unique(line).tolist()) <= gone]
            forms = [
                _line(np.array([c for c in line if c not in gone])) if gone else _line(line) for line in alive
            ]
            sizes = [sum(c not in gone for c in line) for line in alive]
            if kind == "rows":
                forms = sorted(set(forms))
                sizes = [sum(n for _, n in form) for form in forms]
            if len(forms) > 1 and (kind, tuple(forms)) not in seen:
                seen.add((kind, tuple(forms)))
                found.append((kind, forms, sizes))
    return found


def _components(
    owner: dict[int, str], constraints: list[tuple[str, list[Line], list[int]]]
) -> list[tuple[list[str], list[list[Line]], list[tuple[list[Line], list[int]]]]]:
    """Groups that constraints tie together, with those constraints."""
    parent = {name: name for name in owner.values()}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    touched = []
    for _, lines, _ in constraints:
        names = sorted({owner[c] for line in lines for c, _ in line if c in owner})
        touched.append(names)
        for name in names[1:]:
            parent[root(name)] = root(names[0])
    found: dict[str, tuple[list[str], list[list[Line]], list[tuple[list[Line], list[int]]]]] = {}
    for name in dict.fromkeys(owner.values()):
        found.setdefault(root(name), ([], [], []))[0].append(name)
    for (kind, lines, sizes), names in zip(constraints, touched, strict=True):
        if names:
            entry = found[root(names[0])]
            if kind == "rows":
                entry[1].append(lines)
            else:
                entry[2].append((lines, sizes))
    return list(found.values())


def _equal_lines(
    units: dict[str, list[int]],
    counts: dict[str, int],
    rows: list[list[Line]],
    needed: list[frozenset[int]],
    scores: dict[int, float],
) -> set[int] | None:
    """What the integer program would find where every unit lies in one line: the lowest of each line.

    None where units lie in several lines or none, or a group in lines that need not be equal to each other.
    """
    lines = sorted({line for found in rows for line in found})
    line_of = {unit: i for i, line in enumerate(lines) for unit, _ in line}
    owner = {unit: name for name, found in units.items() for unit in found}
    if sum(map(len, lines)) != len(line_of) or line_of.keys() != owner.keys():
        return None
    if len({n for line in lines for _, n in line}) > 1 or any(
        members
        and members <= owner.keys()
        and not any(members.issuperset(unit for unit, _ in line) for line in lines)
        for members in needed
    ):
        return None
    at = {line: i for i, line in enumerate(lines)}
    pairs = np.array([(at[found[0]], at[line]) for found in rows for line in found]).T
    links = coo_array((np.ones(pairs.shape[1], bool), (pairs[0], pairs[1])), (len(lines), len(lines)))
    part = connected_components(links, directed=False)[1]
    parts: dict[int, set[str]] = {}
    for unit, name in owner.items():
        parts.setdefault(int(part[line_of[unit]]), set()).add(name)
    if sum(map(len, parts.values())) != len(units):
        return None
    gone: set[int] = set()
    for number, names in parts.items():
        ranked = [
            sorted((unit for unit, _ in line), key=lambda unit: (scores.get(unit, 0.0), unit))
            for i, line in enumerate(lines)
            if part[i] == number
        ]
        options = []
        for lost in range(min(map(len, ranked))):
            chosen = [unit for line in ranked for unit in line[:lost]]
            taken = Counter(owner[unit] for unit in chosen)
            missed = sum(abs(taken[name] - max(0, counts[name])) for name in names)
            options.append((missed, sum(scores.get(unit, 0.0) for unit in chosen), chosen))
        gone.update(min(options)[2])
    return gone


def _program(
    units: dict[str, list[int]],
    counts: dict[str, int],
    rows: list[list[Line]],
    prefixes: list[tuple[list[Line], list[int]]],
    needed: list[frozenset[int]],
    scores: dict[int, float],
) -> set[int]:
    """The cheapest removal that keeps every line and order, as near to the counts as can be."""
    order = [unit for found in units.values() for unit in found]
    at = {unit: i for i, unit in enumerate(order)}
    size = len(order) + 2 * len(units)
    entries: list[tuple[int, int, float]] = []
    low: list[float] = []
    high: list[float] = []

    def add(terms: Iterable[tuple[int, float]], least: float, most: float) -> None:
        entries.extend((len(low), column, factor) for column, factor in terms)
        low.append(least)
        high.append(most)

    def lost(line: Line, sign: float = 1.0) -> list[tuple[int, float]]:
        return [(at[c], sign * n) for c, n in line if c in at]

    for k, (name, found) in enumerate(units.items()):
        wanted = max(0, min(counts[name], len(found) - 1))
        slack = len(order) + 2 * k
        add([*((at[u], 1.0) for u in found), (slack, 1.0), (slack + 1, -1.0)], wanted, wanted)
        add([(at[u], 1.0) for u in found], 0, max(len(found) - 1, 0))
    for members in needed:  # one of each stays
        if members and members <= at.keys():
            add([(at[u], 1.0) for u in members], 0, len(members) - 1)
    for lines in rows:
        for line in lines:
            add(lost(line), 0, max(sum(n for _, n in line) - 1, 0))
        for line in lines[1:]:
            add([*lost(lines[0]), *lost(line, -1.0)], 0, 0)
    for lines, sizes in prefixes:
        pairs = [*zip(range(len(lines)), range(1, len(lines)), strict=False), (0, len(lines) - 1)]
        for i, j in pairs:  # kept before the boundary: size - lost
            gap = sizes[i] - sizes[j]
            add([*lost(lines[i], -1.0), *lost(lines[j])], -gap, 1 - gap)
    largest = max((abs(scores.get(unit, 0.0)) for unit in order), default=0.0) or 1.0
    cost = np.array([scores.get(unit, 0.0) / largest for unit in order] + [_MISSED] * (2 * len(units)))
    row, column, factor = (np.array(part) for part in zip(*entries, strict=True))
    matrix = coo_array((factor, (row, column)), (len(low), size)).tocsr()
    limits = np.concatenate([np.ones(len(order)), np.full(2 * len(units), np.inf)])
    integral = np.concatenate([np.ones(len(order)), np.zeros(2 * len(units))])
    solved = milp(
        cost,
        integrality=integral,
        bounds=Bounds(0, limits),
        constraints=LinearConstraint(matrix, low, high),
        options={"time_limit": _SECONDS, "mip_rel_gap": _GAP},
    )
    if solved.x is None:
        raise PruneError(f"[prune] {next(iter(units))}: no choice keeps its lines: {solved.message}")
    return {unit for unit, x in zip(order, solved.x[: len(order)], strict=True) if x > 0.5}


def _spared(choice: Choice, gone: set[int], scores: dict[int, float]) -> set[int]:
    """Without the best unit of every value that would be left empty."""
    needed = [set(classes.tolist()) for classes in choice.values]
    needed += [line for whole, line in choice.derived if whole not in gone]
    for members in needed:
        if members <= gone:
            gone.discard(max(members, key=lambda unit: (scores.get(unit, 0.0), unit)))
    return gone
