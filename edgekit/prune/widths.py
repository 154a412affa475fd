"""Which units of one graph go under a budget: the plan of one round.

Scores, ladders and the fitted price are made once; every target after that is a search, a cut and its exact
price, so that a measured time can correct the aim without judging anything anew.

Enters: a graph, scores of its units, an exact price of graphs. Leaves: the units that go, and the cut graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from edgekit.errors import PruneError
from edgekit.graph.ir import Graph
from edgekit.prune import price as prices
from edgekit.prune.cut import cut
from edgekit.prune.groups import Analysis
from edgekit.prune.search import Ladder, ladder, search

LEAST = 0.125  # of a group stays, whatever it costs
TOLERANCE = {"keep": 0.02, "macs": 0.01, "params": 0.01, "latency_ms": 0.03}
_CORRECTIONS = 10  # of a budget by the exact price of what was found
# (units of a group, multiples that its widths are); kernels work in tiles of 16 channels, where time is asked
_STEPS = {False: ((96, 16), (32, 8), (16, 4), (8, 2)), True: ((32, 16), (16, 8), (8, 4))}


@dataclass(frozen=True, eq=False)
class Plan:
    """budget: its name. exact: what a graph costs of it. parts: the same by node; None counts units.

    relative: scores compare within groups alone. step, protect: as in prune_graph.
    """

    analysis: Analysis
    scores: Mapping[int, float]
    budget: str
    exact: Callable[[Graph], float]
    parts: prices.Parts | None
    relative: bool
    step: int | None
    protect: frozenset[str]
    seed: int

    @cached_property
    def ladders(self) -> dict[str, Ladder]:
        """Widths of every group that may lose units. Raises: PruneError where there is none."""
        found = {}
        whole = {unit for unit, _ in self.analysis.coupling.derived}
        for group in self.analysis.groups:
            full = len(group.units)
            if group.name in self.protect or full < 2 or set(group.units) <= whole:
                continue
            step = self.step or self._step(full)
            least = max(step if full > step else 1, math.ceil(LEAST * full))
            relative = max(1, len(group.consumes)) if self.relative else 0
            one = ladder([self.scores[unit] for unit in group.units], step, least, relative)
            if len(one.widths) > 1:
                found[group.name] = one
        if not found:
            closed = [f"{closed.name}: {closed.reason}" for closed in self.analysis.closed[:3]]
            reasons = "; ".join(closed) or "the graph has no layer with weights"
            raise PruneError(f"[prune] nothing can be removed: {reasons}")
        return found

    def _step(self, full: int) -> int:
        steps = _STEPS[self.budget == "latency_ms"]
        return next((step for least, step in steps if full >= least), 1)

    def removal(self, counts: Mapping[str, int]) -> set[int]:
        """That many units of each group, as they can be removed."""
        return self.analysis.allowed(dict(self.scores), dict(counts))

    def same_share(self, target: float) -> tuple[set[int], Graph]:
        """Every group at the same share of its widths, the largest that meets the target."""
        low, high = 0.0, 1.0
        found: tuple[set[int], Graph] | None = None
        for _ in range(9):
            share = (low + high) / 2
            removed, made = self._cut({key: _nearest(one, share) for key, one in self.ladders.items()})
            if self.exact(made) <= target * (1 + 1e-9):
                found, low = (removed, made), share
            else:
                high = share
        if found is None:
            raise PruneError(f"[prune] {self.budget}: no share of every group meets {target:.4g}: more of it")
        return found

    def by_price(self, target: float, *, once: bool = False) -> tuple[set[int], Graph]:
        """The widths of least error under the target, corrected by the exact price of what was found.

        once: as the fitted price has it, for a round that is not the last.
        """
        aim, best, got = target, None, math.inf
        for _ in range(_CORRECTIONS):
            widths, _price = search(self.ladders, self.fitted, aim)
            removed, made = self._cut(widths)
            got = self.exact(made)
            met = got <= target * (1 + 1e-9)
            if once or (met and (best is None or got > best[2])):
                best = (removed, made, got)
            if once or (met and got >= target * (1 - TOLERANCE[self.budget] / 2)):
                break
            if not met and all(widths[key] == one.widths[-1] for key, one in self.ladders.items()):
                raise PruneError(
                    f"[prune] {self.budget}: {target:.4g}: the narrowest form has {got:.4g}: at least that"
                )
            aim *= min(1.02, target / got) if met else min(0.99, target / got)
        if best is None:
            raise PruneError(f"[prune] {self.budget}: {got:.4g} is the nearest to {target:.4g}: ask for less")
        return best[0], best[1]

    def _cut(self, widths: Mapping[str, int]) -> tuple[set[int], Graph]:
        removed = self.removal({key: one.full - widths[key] for key, one in self.ladders.items()})
        return removed, cut(self.analysis, removed)

    @cached_property
    def fitted(self) -> prices.Price:
        """What other widths cost."""
        if self.parts is None:
            return prices.units_price(self.analysis, [group.name for group in self.analysis.groups])
        return prices.fit_price(self.analysis, list(self.ladders), self.parts, self.removal, seed=self.seed)


def _nearest(one: Ladder, share: float) -> int:
    return min(one.widths, key=lambda width: (abs(width - share * one.full), -width))
