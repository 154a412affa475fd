"""A graph with fewer channels: what goes, the widths under a budget, the cut, and the closed-form recovery.

    done = prune_graph(graph, macs=0.5, images=calibration)

    rounds times: analyse -> score -> price -> search widths -> cut -> exact price, corrected -> refit

Enters: a captured graph, before batch norm is folded; a budget; images. Leaves: `Pruned`, the new graph and a
record of what was done, as JSON takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import reduce
from typing import Any

import numpy as np
import torch

from edgekit.cost.static import count
from edgekit.errors import PruneError
from edgekit.graph.ir import Graph
from edgekit.prune import price as prices
from edgekit.prune import rows
from edgekit.prune.cut import cut
from edgekit.prune.dead import dead_units
from edgekit.prune.groups import Analysis, analyse
from edgekit.prune.refit import Left
from edgekit.prune.refit import refit as refit_layers
from edgekit.prune.scores import WITH_IMAGES, Loss
from edgekit.prune.scores import score as score_units
from edgekit.prune.widths import TOLERANCE, Plan

Tensor = torch.Tensor
Measure = Callable[[Graph], float]  # the p50 of a graph as it is built for the device, in milliseconds

SCOPES = ("global", "layer")
BUDGETS = ("keep", "macs", "params", "latency_ms")
_MEASUREMENTS = 4


@dataclass(frozen=True)
class Pruned:
    """record: asked, groups (name, units, kept), closed (name, channels, reason), macs and params before and
    after, and what the budget became: predicted and, where it was measured, measured.
    kept: name of a layer's output -> which of the original's places are left of it along each dimension, None
    where they are no block.
    """

    graph: Graph
    record: dict[str, Any]
    kept: dict[str, Left | None] = field(default_factory=dict)


def prune_graph(
    graph: Graph,
    *,
    keep: float | None = None,
    macs: float | None = None,
    params: float | None = None,
    latency_ms: float | None = None,
    dead: bool = False,
    score: str | None = None,
    scope: str = "global",
    rounds: int = 1,
    refit: bool | None = None,
    images: Tensor | Sequence[Tensor] | None = None,
    loss: Loss | None = None,
    cost: prices.Cost | None = None,
    measure: Measure | None = None,
    step: int | None = None,
    protect: Sequence[str] = (),
    seed: int = 0,
) -> Pruned:
    """Remove channels of a captured graph until a budget is met; the given graph stays as it is.

    Args:
        keep, macs, params: share of the channels that can go, of the MACs, of the parameters that may stay.
        latency_ms: of the form that `cost` prices. One of these four at most.
        dead: remove what is zero for every input, first; alone it changes no answer.
        score: see edgekit.prune.scores; obs where there are images, else l2.
        scope: "global" lets groups compete by error for price; "layer" takes the same share of each.
        rounds: in how many goes the budget is approached; each scores and refits anew.
        refit: whether layers behind a cut are fitted to what the original makes there; where there are
            images.
        images: (N, ...), one tensor a graph input. loss: see edgekit.prune.scores.score.
        cost: predicts the milliseconds of graphs. measure: measures those of a graph that was found, and the
            budget is corrected until the measured figure is met.
        step: multiples of units that widths are; else 16, 8, 4, 2, 1 by the size of the group, 16 in groups
            of 32 and more for milliseconds, 96 else.
        protect: names of groups that stay whole.
    Raises: PruneError for settings that exclude each other, missing images or costs, and a budget that the
        narrowest form does not meet.
    """
    given = dict(zip(BUDGETS, (keep, macs, params, latency_ms), strict=True))
    asked = {name: value for name, value in given.items() if value is not None}
    score = score or ("l2" if images is None else "obs")
    refit = images is not None if refit is None else refit
    _check(asked, dead, score, scope, rounds, refit, images, cost)
    made = _Pruning(graph, score, scope, refit, images, loss, cost, step, frozenset(protect), seed)
    if dead:
        made.remove_dead()
    if asked:
        ((name, budget),) = asked.items()
        made.to_budget(name, budget, rounds, measure)
    record = {
        "asked": {**asked, "dead": dead, "score": score, "scope": scope, "rounds": rounds, "refit": refit},
        **made.record(),
    }
    return Pruned(made.now, record, made.kept)


def _check(
    asked: Mapping[str, float],
    dead: bool,
    score: str,
    scope: str,
    rounds: int,
    refit: bool,
    images: Any,
    cost: Any,
) -> None:
    if len(asked) > 1 or not (asked or dead):
        said = " and ".join(asked) or "no budget"
        raise PruneError(f"[prune] {said}: one of {', '.join(BUDGETS)}, or dead=True")
    if scope not in SCOPES:
        raise PruneError(f"[prune] scope '{scope}': one of {', '.join(SCOPES)}")
    if rounds < 1:
        raise PruneError(f"[prune] rounds {rounds}: at least 1")
    for name, value in asked.items():
        if name == "latency_ms":
            if cost is None:
                raise PruneError("[prune] latency_ms needs the costs of a device: cost=cost_for(device)")
            if not value > 0:
                raise PruneError(f"[prune] latency_ms {value:g}: more than 0")
        elif not 0 < value <= 1:
            raise PruneError(f"[prune] {name} {value:g}: a share, above 0 and at most 1")
    if asked and images is None and (refit or score in WITH_IMAGES):
        what = "the refit" if refit else f"score '{score}'"
        raise PruneError(f"[prune] {what} looks at what images do: give calibration images, or do without")


@dataclass
class _Pruning:
    """The graph as it is now, and how it came from the original."""

    original: Graph
    score: str
    scope: str
    refit: bool
    images: Tensor | Sequence[Tensor] | None
    loss: Loss | None
    cost: prices.Cost | None
    step: int | None
    protect: frozenset[str]
    seed: int

    def __post_init__(self) -> None:
        self.now = self.original
        self.kept: dict[str, Left | None] = {}
        self.first = analyse(self.original)
        names = {group.name for group in self.first.groups}
        if unknown := sorted(self.protect - names):
            raise PruneError(f"[prune] no group is called {unknown[0]!r}: one of {', '.join(sorted(names))}")
        self.notes: dict[str, Any] = {}
        self.layers: list[dict[str, Any]] = []

    # steps
    def remove_dead(self) -> None:
        """What is zero for every input, until nothing is."""
        removed = 0
        while True:
            analysis = analyse(self.now, exact=True)
            gone = _all_dead(analysis, dead_units(analysis), self.protect)
            if not gone:
                break
            removed += len(gone)
            self.take(analysis, gone, cut(analysis, gone), refit=False)
        self.notes["dead"] = removed

    def to_budget(self, name: str, budget: float, rounds: int, measure: Measure | None) -> None:
        """Cut and refit in rounds, the last of which meets the budget."""
        whole = self.exact(name, self.original)
        target = budget if name == "latency_ms" else budget * whole
        start = self.exact(name, self.now)
        self.notes["budget"] = {"name": name, "target": target, "original": whole}
        if start <= target:
            self.notes["budget"] |= {"predicted": start, "why": "met before anything is cut"}
            return
        for turn in range(1, rounds):
            self.round(name, start * (target / start) ** (turn / rounds), last=False)
        if measure is None:
            self.round(name, target)
        else:
            self.measured_round(name, target, measure)

    def measured_round(self, name: str, target: float, measure: Measure) -> None:
        """The last round, its aim corrected until the measured figure is met; then the refit."""
        plan, budget = self.plan(name), self.notes["budget"]
        tries: list[dict[str, float]] = []
        aim, best = target, None
        for _ in range(_MEASUREMENTS):
            try:
                found = self.chosen(plan, aim)
            except PruneError as reason:
                if best is None:
                    raise
                budget["why"] = f"a form nearer to it than {best[2]:.4g} ms was not found: {reason}"
                break
            predicted = self.exact(name, found[1])
            if any(predicted == before["predicted"] for before in tries):
                break  # the same widths again
            got = measure(found[1])
            tries.append({"aimed": aim, "predicted": predicted, "measured": got})
            off = abs(got / target - 1)
            if best is None or off < best[0]:
                best = (off, found, got)
            if off <= TOLERANCE[name]:
                break
            aim *= target / got
        assert best is not None
        self.take(plan.analysis, *best[1])
        budget |= {"tries": tries, "measured": best[2]}
        if best[0] > TOLERANCE[name] and "why" not in budget:
            budget["why"] = (
                f"{best[2]:.4g} ms is the nearest of {len(tries)} measured forms: widths come in steps"
            )

    def round(self, name: str, target: float, *, last: bool = True) -> None:
        """One cut to the target and one refit."""
        plan = self.plan(name)
        self.take(plan.analysis, *self.chosen(plan, target, last=last))

    def plan(self, name: str) -> Plan:
        """What can go of the graph as it is, judged and priced."""
        analysis = analyse(self.now)
        scores = score_units(analysis, self.score, self.images, self.loss, seed=self.seed)
        relative = self.score not in WITH_IMAGES
        parts = self.parts(name)
        return Plan(
            *(analysis, scores, name, lambda graph: self.exact(name, graph), parts, relative),
            *(self.step, self.protect, self.seed),
        )

    def chosen(self, plan: Plan, target: float, *, last: bool = True) -> tuple[set[int], Graph]:
        return plan.same_share(target) if self.scope == "layer" else plan.by_price(target, once=not last)

    def take(self, analysis: Analysis, removed: set[int], made: Graph, *, refit: bool = True) -> None:
        """The cut graph, which of the original's channels its weights hold, and the refit."""
        gone = np.array(sorted(analysis.complete(removed)))
        coupling = analysis.coupling
        for node in analysis.graph.nodes:
            if rows.weight_of(node) is not None:
                there = ~np.isin(coupling.labels[coupling.tags[node.output]], gone)
                name = node.output.name
                self.kept[name] = _within(self.kept.get(name, {}), _left(there))
        self.now = made
        if refit and self.refit:
            assert self.images is not None
            done = refit_layers(self.original, self.now, self.images, kept=self.kept, seed=self.seed)
            self.now = done.graph
            self.layers = [asdict(layer) for layer in done.layers]

    def parts(self, name: str) -> prices.Parts | None:
        """The price by node; none for a number of units."""
        if name == "latency_ms":
            assert self.cost is not None
            return prices.milliseconds_of(self.cost)
        return {"keep": None, "macs": prices.macs_of, "params": prices.params_of}[name]

    def exact(self, name: str, graph: Graph) -> float:
        """What a graph costs of a budget."""
        if name == "latency_ms":
            assert self.cost is not None
            return self.cost.graph_ms(graph)
        if name == "keep":
            return float(sum(len(group.units) for group in analyse(graph).groups))
        counts = count(graph)
        return float(counts.macs if name == "macs" else counts.params)

    def record(self) -> dict[str, Any]:
        """What became of the original, as JSON takes it."""
        left = {group.name: len(group.units) for group in analyse(self.now).groups}
        before, after = count(self.original), count(self.now)
        if "budget" in self.notes:
            budget = self.notes["budget"]
            budget["predicted"] = self.exact(budget["name"], self.now)
        return {
            "groups": [
                {"name": group.name, "units": len(group.units), "kept": left.get(group.name, 1)}
                for group in self.first.groups
            ],
            "closed": [asdict(closed) for closed in self.first.closed],
            "macs": [before.macs, after.macs],
            "params": [before.params, after.params],
            "refitted": self.layers,
            **self.notes,
        }


def _all_dead(analysis: Analysis, dead: set[int], protect: frozenset[str]) -> set[int]:
    """As many of the dead as can go while only dead ones go."""
    scores = {unit: 0.0 if unit in dead else 1e9 for unit in analysis.units}
    counts = {
        group.name: min(len(dead & set(group.units)), len(group.units) - 1)
        for group in analysis.groups
        if group.name not in protect
    }
    counts = {name: number for name, number in counts.items() if number}
    while counts:
        gone = analysis.complete(analysis.allowed(scores, counts))
        living = {analysis.units[unit].name for unit in gone - dead if unit in analysis.units}
        if not living:
            return gone
        for name in living:  # lines that must lose equally many: fewer of them
            counts[name] = counts.get(name, 1) - 1
        counts = {name: number for name, number in counts.items() if number > 0}
    return set()


def _left(there: np.ndarray) -> Left | None:
    """The places that are left, along each dimension that lost some; None where they are no block."""
    along = [there.any(tuple(d for d in range(there.ndim) if d != dim)) for dim in range(there.ndim)]
    if not (there == reduce(np.multiply.outer, along)).all():
        return None
    return {dim: torch.from_numpy(np.flatnonzero(line)) for dim, line in enumerate(along) if not line.all()}


def _within(before: Left | None, left: Left | None) -> Left | None:
    """Places of what was left before, as places of the original."""
    if before is None or left is None:
        return None
    return {**before, **{dim: before[dim][at] if dim in before else at for dim, at in left.items()}}
