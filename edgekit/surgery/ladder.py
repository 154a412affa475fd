"""`auto`: the steps of lite surgery by what they win for what they lose, on one device.

A rung is one step on one part of the network: its modules in program order, cut into parts, so that early and
late layers, whose errors weigh differently, are judged apart. A rung that wins no time on the device is not
made. Every other one is made alone, fitted and judged: its price is the milliseconds won for each point lost.
They are then taken together in order of price, until what is lost is more than is allowed. The first rung
that cannot be afforded ends the climb.

Whatever is taken is made anew from the original, in the order of `STEPS`: a layer is fitted once, to the
original's values, and the order in which rungs were taken leaves no trace.

With something that recovers a rung is given up only after it had its share of that, an equal one for each.
What was recovered once is not made anew: the next rung is made on it, fitted to its values. What is left of
the recovery is spent on what was taken in the end.

Enters: a graph, images, what counts milliseconds, what judges, and what recovers. Leaves: `Lite`, whose
`climb` holds every rung, taken or not, and why.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import torch

from edgekit.errors import UsageError
from edgekit.graph.ir import Graph
from edgekit.surgery.lite import STEPS, Images, Lite, known, movable, reshaped, step
from edgekit.surgery.record import Climb, Rung, StepRecord

Tensor = torch.Tensor
Judge = Callable[[Graph], float]
Recover = Callable[[Graph, float], Graph]  # (the changed graph, share of all recovery that it may take)
Chosen = dict[str, tuple[str, ...]]  # step -> modules
LADDER = ("no-se", "3x3", "fuse", "relu6")
PARTS = 3
_EACH = ("fuse",)  # steps of which single modules may cost time: each is asked for by itself
_LEAST_DROP = 1e-3  # what is lost counts as at least this: less cannot be told from nothing
_LEAST_SHARE = 1e-3  # of the original's milliseconds, of recovery: less is nothing


class Cost(Protocol):
    """What counts milliseconds, of one device."""

    def graph_ms(self, graph: Graph) -> float: ...


def ladder(
    graph: Graph,
    images: Images | Tensor,
    *,
    cost: Cost,
    judge: Judge,
    recover: Recover | None = None,
    max_drop: float = 0.01,
    steps: Sequence[str] = LADDER,
    fixed: Collection[str] = (),
    parts: int = PARTS,
) -> Lite:
    """Take the steps that pay, in order of milliseconds won for each point lost.

    Args:
        graph: as captured, not optimized; it stays as it is.
        images: calibration inputs, one tensor a graph input, (N, ...), or the one of the one input.
        cost: gives the milliseconds of a captured graph.
        judge: gives the accuracy of a captured graph, a fraction.
        recover: (changed, share) -> the changed one, nearer to the original, for a share of what recovery
            may take in all; asked where the budget is exceeded, and at the end.
        max_drop: accuracy that may be lost in all, a fraction.
        steps: names of STEPS that may be made.
        fixed: paths of modules whose form stays.
        parts: into how many rungs a step is cut.
    Raises: UsageError for an unknown step or path, a budget out of range.
    """
    known(steps)
    if not 0.0 <= max_drop < 1.0:
        raise UsageError(f"[lite] max_drop = {max_drop:g}: a fraction, from 0 to under 1")
    given = [images] if isinstance(images, Tensor) else list(images)
    climber = _Climber(graph, given, cost, judge, recover, max_drop)
    rungs = climber.priced(climber.found(steps, movable(graph, fixed), parts))
    return climber.climbed(rungs)


@dataclass(frozen=True)
class _Made:
    graph: Graph
    record: tuple[StepRecord, ...]
    accuracy: float
    recovered: bool = False


class _Climber:
    def __init__(
        self,
        graph: Graph,
        images: list[Tensor],
        cost: Cost,
        judge: Judge,
        recover: Recover | None,
        max_drop: float,
    ) -> None:
        self.graph, self.images, self.cost = graph, images, cost
        self.judge, self.recover, self.max_drop = judge, recover, max_drop
        self.ms, self.accuracy = cost.graph_ms(graph), judge(graph)
        self.spent = 0.0  # of recovery

    def found(self, steps: Sequence[str], only: Collection[str], parts: int) -> list[Rung]:
        """What could be made, with the milliseconds it wins by itself."""
        rungs = []
        for name in (name for name in STEPS if name in steps):
            modules = reshaped(name, self.graph, self.images, only)[1]
            lost: dict[str, float] = {}
            if name in _EACH:
                won = {module: self.ms - self._ms({name: (module,)}) for module in modules}
                lost = {module: ms for module, ms in won.items() if ms <= 0.0}
            rungs += [Rung(name, (module,), ms, outcome="wins no time") for module, ms in lost.items()]
            for part in _cut([module for module in modules if module not in lost], parts):
                rungs.append(Rung(name, part, self.ms - self._ms({name: part})))
        return rungs

    def priced(self, rungs: Sequence[Rung]) -> list[Rung]:
        """The dearest last: those that win time with what they lose by themselves, then the others."""
        priced, worthless = [], []
        for rung in rungs:
            if rung.ms_won <= _LEAST_SHARE * self.ms:
                worthless.append(replace(rung, outcome="wins no time"))
                continue
            drop = self.accuracy - self._made({rung.step: rung.modules}).accuracy
            price = rung.ms_won / (100.0 * max(drop, _LEAST_DROP))
            priced.append(replace(rung, drop=drop, price=price))
        return [*sorted(priced, key=lambda rung: -(rung.price or 0.0)), *worthless]

    def climbed(self, rungs: Sequence[Rung]) -> Lite:
        """Take rungs in their order until the budget is spent."""
        chosen: Chosen = {}
        kept = _Made(self.graph, (), self.accuracy)
        ms, table, over = self.ms, list[Rung](), False
        share = 1.0 / max(1, sum(not rung.outcome for rung in rungs))
        for rung in rungs:
            if rung.outcome:
                table.append(rung)
                continue
            if over:
                table.append(replace(rung, outcome="dearer than what could not be afforded"))
                continue
            if self.recover is None and rung.drop is not None and rung.drop > self.max_drop:
                table.append(replace(rung, outcome="loses more than is allowed by itself"))
                continue
            tried = {**chosen, rung.step: (*chosen.get(rung.step, ()), *rung.modules)}
            now = self._ms(tried)
            if now >= ms:
                table.append(replace(rung, outcome="wins no time beside what was taken"))
                continue
            made = self._onto(kept, rung) if kept.recovered else self._made(tried)
            if self.accuracy - made.accuracy > self.max_drop:
                made = self._recovered(made, share)
            said = replace(rung, ms=now, accuracy=made.accuracy, recovered=made.recovered)
            over = self.accuracy - made.accuracy > self.max_drop
            if over:
                table.append(replace(said, outcome="loses more than is left of the budget"))
                continue
            table.append(replace(said, outcome="taken", taken=True))
            chosen, kept, ms = tried, made, now
        if chosen:
            kept = self._recovered(kept, 1.0 - self.spent)
        climb = Climb(self.ms, self.accuracy, self.max_drop, ms, kept.accuracy, tuple(table))
        return Lite(kept.graph if chosen else self.graph.copy(), kept.record, climb)

    def _recovered(self, made: _Made, share: float) -> _Made:
        """What recovery makes of it, where that is better."""
        if self.recover is None or share < _LEAST_SHARE:
            return made
        graph = self.recover(made.graph, share)
        self.spent += share
        accuracy = self.judge(graph)
        if accuracy <= made.accuracy:
            return made
        return replace(made, graph=graph, accuracy=accuracy, recovered=True)

    def _onto(self, kept: _Made, rung: Rung) -> _Made:
        """A rung made on what was recovered, fitted to what that computes."""
        graph, record = step(rung.step, kept.graph, self.images, only=rung.modules)
        return _Made(graph, (*kept.record, record), self.judge(graph), kept.recovered)

    def _ms(self, chosen: Mapping[str, tuple[str, ...]]) -> float:
        """Milliseconds of a form, which do not depend on what is fitted."""
        graph = self.graph
        for name in (name for name in STEPS if name in chosen):
            graph, _ = reshaped(name, graph, self.images, chosen[name], reference=self.graph)
        return self.cost.graph_ms(graph)

    def _made(self, chosen: Mapping[str, tuple[str, ...]]) -> _Made:
        graph, records = self.graph, []
        for name in (name for name in STEPS if name in chosen):
            graph, record = step(name, graph, self.images, reference=self.graph, only=chosen[name])
            records.append(record)
        return _Made(graph, tuple(records), self.judge(graph))


def _cut(modules: Sequence[str], parts: int) -> list[tuple[str, ...]]:
    """At most `parts` runs of about equal length."""
    count = min(parts, len(modules))
    ends = [round(len(modules) * i / count) for i in range(count + 1)] if count else []
    return [tuple(modules[a:b]) for a, b in pairwise(ends)]
