"""The precisions of least noise that cost no more than a budget: by a MILP, by greedy steps, and all alike.

    x[n, k]   node n computes in precision k
    y[n]      its result is not rounded: only where n and all that read it are not int8
    r[n]      a float result is rounded for a reader;  d[n, m]   an int8 result is floated for the reader m

Noise is the sum of what is left; the MILP is scipy's (HiGHS), bounded in time, and starts from nothing, so
that what greedy steps find is taken where it is better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from edgekit.mixed.problem import Kinds, Place, Problem
from edgekit.quantize.precision import DYNAMIC, FLOAT, INT8

SECONDS = 20.0
_GAP = 1e-4


class _Rows:
    """Rows of sum(c x) <= high."""

    def __init__(self) -> None:
        self.row: list[int] = []
        self.column: list[int] = []
        self.value: list[float] = []
        self.high: list[float] = []
        self.low: list[float] = []

    def add(self, terms: Mapping[int, float], high: float, low: float = -np.inf) -> None:
        at = len(self.high)
        for column, value in terms.items():
            self.row.append(at)
            self.column.append(column)
            self.value.append(value)
        self.high.append(high)
        self.low.append(low)

    def constraint(self, columns: int) -> LinearConstraint:
        matrix = coo_array((self.value, (self.row, self.column)), shape=(len(self.high), columns))
        return LinearConstraint(matrix.tocsr(), np.array(self.low), np.array(self.high))


def fastest(problem: Problem) -> Kinds:
    """The choice of least milliseconds: not always int8 alone, for some kernels are faster in float."""
    found = solve(problem, math.inf)
    return found if found is not None and problem.ms(found) < problem.ms({}) else {}


def solve(problem: Problem, budget_ms: float) -> Kinds | None:
    """The choice of least noise; None where the solver finds none in its time.

    Args:
        budget_ms: without bound (inf), milliseconds are what is least.
    """
    index: dict[tuple[str, ...], int] = {}

    def column(*name: str) -> int:
        return index.setdefault(name, len(index))

    places, rows = problem.places.values(), _Rows()
    cost: dict[int, float] = {}
    noise: dict[int, float] = {}
    whole: set[int] = set()
    for place in places:
        kinds = {kind: column(place.name, kind) for kind in place.prices}
        whole.update(kinds.values())
        rows.add(dict.fromkeys(kinds.values(), 1.0), 1.0, 1.0)
        for kind, at in kinds.items():
            cost[at], noise[at] = place.prices[kind], place.own_noise(kind)
    for place in places:
        _add_edges(place, column, rows, cost, noise)
    scale = max(sum(place.result + place.weights for place in places), 1e-300)
    weight, unit = (1.0, 1e-6 / max(budget_ms, 1e-9)) if math.isfinite(budget_ms) else (0.0, 1.0)
    if weight:
        rows.add({at: price for at, price in cost.items() if price}, budget_ms)
    objective = np.zeros(len(index))
    for at, value in noise.items():
        objective[at] = weight * value / scale
    for at, price in cost.items():  # of equal noise the cheaper one
        objective[at] += unit * price
    found = milp(
        objective,
        integrality=np.array([float(at in whole) for at in range(len(index))]),
        bounds=Bounds(0.0, 1.0),
        constraints=rows.constraint(len(index)),
        options={"time_limit": SECONDS, "mip_rel_gap": _GAP},
    )
    if found.x is None:
        return None
    chosen: Kinds = {}
    for place in places:
        shares = {kind: float(found.x[index[place.name, kind]]) for kind in place.prices}
        chosen[place.name] = max(shares, key=shares.__getitem__)
    chosen = {name: kind for name, kind in chosen.items() if kind != INT8}
    return chosen if problem.ms(chosen) <= budget_ms * (1 + 1e-9) else None


def _add_edges(
    place: Place, column: Callable[..., int], rows: _Rows, cost: dict[int, float], noise: dict[int, float]
) -> None:
    own = column(place.name, INT8)
    free = column(place.name, "unrounded")
    noise[free] = -place.result
    rows.add({free: 1.0, own: 1.0}, 1.0)
    if place.leaves:
        rows.add({free: 1.0}, 0.0)
    rounding = column(place.name, "rounding")
    cost[rounding] = place.rounding
    if place.leaves:
        rows.add({rounding: -1.0, own: -1.0}, -1.0)
    for reader in place.readers:
        theirs = column(reader, INT8)
        rows.add({free: 1.0, theirs: 1.0}, 1.0)
        rows.add({rounding: -1.0, theirs: 1.0, own: -1.0}, 0.0)
        floating = column(place.name, "floating", reader)
        cost[floating] = place.floating
        rows.add({floating: -1.0, own: 1.0, theirs: -1.0}, 0.0)


def greedy(problem: Problem, budget_ms: float) -> Kinds:
    """Results one after the other: always the one whose noise goes for the least milliseconds.

    A step lowers the node and every reader of it, in float or, where that is cheaper,
    dynamically. Where int8 alone takes longer than the budget, steps that save time come first; what is left
    of it then may be more than the budget.
    """
    kinds: Kinds = {}
    ms, noise = problem.ms(kinds), problem.noise(kinds)
    steps = _steps(problem)
    while True:
        found: tuple[float, Kinds, float, float] | None = None
        for step in steps:
            tried = kinds | step
            if tried == kinds:
                continue
            won, price = noise - problem.noise(tried), problem.ms(tried) - ms
            if ms > budget_ms:  # first what saves most
                rate = -price if price < 0.0 else None
            else:
                rate = won / max(price, 1e-9) if won > 0.0 and ms + price <= budget_ms else None
            if rate is None:
                continue
            if found is None or rate > found[0]:
                found = (rate, tried, ms + price, noise - won)
        if found is None:
            return {name: kind for name, kind in kinds.items() if kind != INT8}
        _, kinds, ms, noise = found


def _steps(problem: Problem) -> list[Kinds]:
    found = []
    for place in problem.places.values():
        names = [place.name, *place.readers]
        for wanted in (FLOAT, DYNAMIC):
            step: Kinds = {}
            for name in names:
                able = problem.places[name].prices
                kind = next((one for one in (wanted, FLOAT) if one in able), None)
                if kind is None:
                    step = {}
                    break
                step[name] = kind
            if step and step not in found:
                found.append(step)
        for kind in (FLOAT, DYNAMIC):  # by itself, for its weights
            if kind in place.prices:
                found.append({place.name: kind})
    return found


def uniform(problem: Problem, kind: str) -> Kinds:
    """Every node that can be, in one precision."""
    found = {}
    for place in problem.places.values():
        wanted = next((one for one in (kind, FLOAT) if one in place.prices), INT8)
        if wanted != INT8 and kind != INT8:
            found[place.name] = wanted
    return found
