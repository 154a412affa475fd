"""A choice of precisions that keeps a demand, on the clock or on the images: Base, Demand, Clock -> Mixed.

Units are timed, noise is measured, and the least noise within a time is chosen; the stitched file is then
timed beside the int8 and the float file and the aim corrected by what came out, until the measured time keeps
the demand. A demand on the answers is met by the least time that meets it on images that nothing was fitted
to. Both the MILP's and the greedy choice are judged there, and the better one stays. A choice that would take
longer than the float file is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from edgekit.cost.units import Unit
from edgekit.errors import QuantizationError
from edgekit.graph.ir import Graph
from edgekit.mixed import noise
from edgekit.mixed.choose import fastest, greedy, solve, uniform
from edgekit.mixed.prices import Ns, Units, predicted_ms, priced, units_in_all, units_of_graph
from edgekit.mixed.problem import Kinds, Problem, problem
from edgekit.mixed.refit import Base, answers_of, finished, quick, simulated
from edgekit.quantize.images import Images
from edgekit.quantize.precision import FLOAT, INT8, assign, choices
from edgekit.quantize.simulate import sqnr_db
from edgekit.targets import Target

MIXED = "mixed"
NOISE_IMAGES = 16
TRIES = 4
_OVER = 0.01  # of a measured time: what two runs of one file differ by
_UNDER = 0.03  # a time so far below what is allowed leaves noise in that could go
_HALVINGS = 6
_ALIKE = 50.0  # condition of two files whose units are nearly the same
Drop = Callable[[Graph], float]


@dataclass(frozen=True)
class Demand:
    """Exactly one. latency_ms: the file's p50; ratio: as a multiple of the int8 file's. sqnr_db: of the
    outputs on held images; drop: accuracy lost against float, a fraction.
    """

    latency_ms: float | None = None
    ratio: float | None = None
    sqnr_db: float | None = None
    drop: float | None = None

    def __post_init__(self) -> None:
        given = [
            name for name in ("latency_ms", "ratio", "sqnr_db", "drop") if getattr(self, name) is not None
        ]
        if len(given) != 1:
            said = ", ".join(given) or "nothing"
            raise QuantizationError(f"[mixed] {said}: one of latency_ms, ratio, sqnr_db, drop")


class Clock(Protocol):
    """Where times come from."""

    def ns(self, units: Iterable[Unit]) -> Ns:
        """What single units take, timed where that is not known."""

    def measured_ms(self, graphs: Mapping[str, tuple[Graph, str]]) -> dict[str, float]:
        """The p50 of the files of these graphs for these targets, timed in turns."""


@dataclass(frozen=True, eq=False)
class Mixed:
    """graph: annotated, weights rounded, biases fitted. kinds: of nodes that are not int8, by first result.
    record: plain data for the report.
    """

    graph: Graph
    kinds: Kinds
    record: dict[str, Any]


@dataclass
class _Tried:
    kinds: Kinds
    how: str
    predicted_ms: float
    measured_ms: float
    sqnr_db: float

    def row(self) -> dict[str, Any]:
        return {
            "how": self.how,
            "nodes": len(self.kinds),
            "predicted_ms": self.predicted_ms,
            "measured_ms": self.measured_ms,
            "sqnr_db": self.sqnr_db,
        }


@dataclass
class Priced:
    """An int8 graph with everything a choice is made by. int8_ms, float_ms: measured of the whole files."""

    base: Base
    target: Target
    units: Units
    ns: Ns
    factors: dict[str, float]
    problem: Problem
    int8_ms: float
    float_ms: float
    wanted: torch.Tensor
    seen: dict[tuple[tuple[str, str], ...], float] = field(default_factory=dict)

    def predicted_ms(self, kinds: Kinds) -> float:
        """What the file of a choice takes: of its own units, those that nobody timed by the sum."""
        return predicted_ms(units_of_graph(quick_form(self.base, kinds), self.target), self.ns, self.factors)

    def sqnr_db(self, kinds: Kinds) -> float:
        """Of all held images together, biases fitted."""
        key = tuple(sorted(kinds.items()))
        if key not in self.seen:
            self.seen[key] = sqnr_db(self.wanted, simulated(quick(self.base, kinds), self.base.held))
        return self.seen[key]

    def best(self, budget_ms: float) -> tuple[Kinds, str]:
        """The choice within a predicted time that leaves least noise on held images."""
        found: dict[str, Kinds | None] = {
            INT8: {},
            "greedy": greedy(self.problem, budget_ms),
            "milp": solve(self.problem, budget_ms),
        }
        found = {
            name: kinds
            for name, kinds in found.items()
            if kinds is not None and self.problem.ms(kinds) <= budget_ms * (1 + 1e-9)
        }
        if not found:
            return fastest(self.problem), "fastest"
        how = max(found, key=lambda name: self.sqnr_db(found[name] or {}))
        return found[how] or {}, how


def quick_form(base: Base, kinds: Kinds) -> Graph:
    """A choice as it is lowered, its biases as they were."""
    graph = base.graph.copy()
    assign(graph, kinds)
    return graph


def price(base: Base, target: Target, clock: Clock, seed: int = 0) -> Priced:
    """Time what there is to choose from and measure the noise of every rounding."""
    units = units_in_all(base.graph, target)
    ns = clock.ns(units.all())
    whole = clock.measured_ms({INT8: (base.graph, target.name), FLOAT: (base.plain, target.baseline)})
    factors = factors_of(units, ns, whole)
    few = [rows[:NOISE_IMAGES] for rows in base.fitted]
    measured = noise.measure(base.graph, Images(base.graph, few), seed)
    prices = priced(units, choices(base.graph), ns, factors)
    found = problem(base.graph, measured, prices)
    return Priced(
        base, target, units, ns, factors, found, whole[INT8], whole[FLOAT], answers_of(base.plain, base.held)
    )


def mix(
    base: Base,
    demand: Demand,
    target: Target,
    clock: Clock,
    *,
    drop: Drop | None = None,
    seed: int = 0,
) -> Mixed:
    """Choose precisions that keep a demand.

    Args:
        base: an annotated graph whose weights are not rounded, with its images.
        drop: the accuracy that a graph loses against float, where that is demanded.
    Returns: the graph, whose record says what was asked, predicted and measured, and why where it is not met.
    """
    known = price(base, target, clock, seed)
    if demand.sqnr_db is None and demand.drop is None:
        limit = demand.latency_ms if demand.latency_ms is not None else (demand.ratio or 1.0) * known.int8_ms
        tried, why = _within(known, clock, limit)
    else:
        tried, why = _as_good_as(known, clock, demand, drop)
    chosen = tried[-1]
    graph, fitted = finished(base, chosen.kinds)
    record = _record(known, demand, tried, why)
    record["fitted"] = fitted
    record["sqnr_db"] = sqnr_db(known.wanted, simulated(graph, base.held))
    return Mixed(graph, chosen.kinds, record)


def factors_of(units: Units, ns: Ns, whole: Mapping[str, float]) -> dict[str, float]:
    """What a whole takes over its units, of integers and of floats, so that both files take what they took.

    An int8 file has floats too (a softmax), and the other way round. Where both files say nearly the same,
    one factor serves both kinds.
    """
    only = {INT8: {INT8: 1.0, FLOAT: 0.0}, FLOAT: {INT8: 0.0, FLOAT: 1.0}}
    parts = np.array(
        [
            [predicted_ms(units.files[file], ns, only[kind]) for kind in (INT8, FLOAT)]
            for file in (INT8, FLOAT)
        ]
    )
    times = np.array([whole[INT8], whole[FLOAT]])
    common = float(times.sum() / max(parts.sum(), 1e-12))
    if np.linalg.cond(parts) < _ALIKE:
        found = np.linalg.solve(parts, times)
        if (found > 0.5 * common).all() and (found < 2.0 * common).all():
            return {INT8: float(found[0]), FLOAT: float(found[1])}
    return {INT8: common, FLOAT: common}


def _measured(known: Priced, clock: Clock, kinds: Kinds, how: str, predicted: float) -> _Tried:
    """A choice's file beside the int8 and the float file in one run, at the first run's clock."""
    base = known.base
    whole = clock.measured_ms(
        {
            INT8: (base.graph, known.target.name),
            FLOAT: (base.plain, known.target.baseline),
            MIXED: (quick_form(base, kinds), known.target.name),
        }
    )
    ms = known.int8_ms * whole[MIXED] / whole[INT8]
    known.float_ms = known.int8_ms * whole[FLOAT] / whole[INT8]
    return _Tried(kinds, how, predicted, ms, known.sqnr_db(kinds))


def _within(known: Priced, clock: Clock, asked_ms: float) -> tuple[list[_Tried], str]:
    """Least noise in a measured time."""
    why = ""
    limit = min(asked_ms, known.float_ms)
    tried: list[_Tried] = []
    aim, kept = limit, None
    for _ in range(TRIES):
        kinds, how = known.best(aim)
        if any(one.kinds == kinds for one in tried):
            break
        tried.append(_measured(known, clock, kinds, how, known.predicted_ms(kinds)))
        limit, now = min(asked_ms, known.float_ms), tried[-1]
        if now.measured_ms <= limit * (1.0 + _OVER) and (kept is None or now.sqnr_db > kept.sqnr_db):
            kept = now
        if limit * (1.0 - _UNDER) <= now.measured_ms <= limit * (1.0 + _OVER):
            break
        if how == "fastest":
            break
        aim *= limit / now.measured_ms
    if kept is None:
        kept = min(tried, key=lambda one: one.measured_ms)
        why = f"no choice of {len(tried)} kept {limit:.3f} ms when it was timed: the fastest of them is taken"
        if kept.measured_ms > known.float_ms:
            why += f"; the float file takes {known.float_ms:.3f} ms, less than that"
    if asked_ms > known.float_ms and not why:
        why = f"float takes {known.float_ms:.3f} ms: no more is spent"
    return [*(one for one in tried if one is not kept), kept], why


def _as_good_as(known: Priced, clock: Clock, demand: Demand, drop: Drop | None) -> tuple[list[_Tried], str]:
    """The least time whose answers are good enough on held images."""
    if demand.drop is not None and drop is None:
        raise QuantizationError("[mixed] drop: images with answers to compare: sqnr or latency without them")

    def lacks(kinds: Kinds) -> float:
        """What is missing, at most 0 where nothing is."""
        if demand.sqnr_db is not None:
            return demand.sqnr_db - known.sqnr_db(kinds)
        assert drop is not None and demand.drop is not None
        return drop(quick(known.base, kinds)) - demand.drop

    chosen: tuple[Kinds, str] = ({}, INT8)
    why = ""
    if lacks({}) > 0:
        everything = uniform(known.problem, FLOAT)
        low = known.problem.ms(fastest(known.problem))
        high = max(known.float_ms, known.problem.ms(everything))
        chosen = (everything, FLOAT)
        if (missing := lacks(everything)) > 0:
            why = f"with everything in float {missing:.3g} is missing: inputs and outputs stay int8"
        for _ in range(_HALVINGS if not why else 0):
            middle = math.sqrt(low * high)
            kinds, how = known.best(middle)
            if lacks(kinds) <= 0:
                high, chosen = middle, (kinds, how)
            else:
                low = middle
    kinds, how = chosen
    now = _measured(known, clock, kinds, how, known.predicted_ms(kinds))
    if now.measured_ms > known.float_ms * (1.0 + _OVER):
        why = why or (
            f"what meets it takes {now.measured_ms:.3f} ms, the float file {known.float_ms:.3f}: use that one"
        )
    return [now], why


def _record(known: Priced, demand: Demand, tried: list[_Tried], why: str) -> dict[str, Any]:
    chosen = tried[-1]
    rows = []
    whole = known.problem.noise({})
    sources = {node.output.name: node for node in known.base.graph.nodes}
    for name, kind in chosen.kinds.items():
        place, node = known.problem.places[name], sources[name]
        kept = known.problem.rounded(place, chosen.kinds)
        gone = place.own_noise(INT8) - place.own_noise(kind) + (0.0 if kept else place.result)
        rows.append(
            {
                "module": node.source,
                "op": node.op,
                "precision": kind,
                "noise_share": gone / whole if whole > 0 else 0.0,
                "ms": place.prices[kind] - place.prices[INT8],
            }
        )
    everything = uniform(known.problem, FLOAT)
    points = [
        {"name": INT8, "ms": known.int8_ms, "sqnr_db": known.sqnr_db({})},
        {"name": MIXED, "ms": chosen.measured_ms, "sqnr_db": chosen.sqnr_db},
        {"name": FLOAT, "ms": known.float_ms, "sqnr_db": known.sqnr_db(everything)},
    ]
    asked = {name: value for name, value in vars(demand).items() if value is not None}
    return {
        "asked": asked,
        "points": points,
        "tries": [one.row() for one in tried],
        "nodes": rows,
        "why": why,
        "images": len(known.wanted),
    }
