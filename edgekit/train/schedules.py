"""Schedules: training progress in 0..1 -> a rate or a stage; a length -> steps. Pure functions.

Progress may be steps done over steps planned or time spent over time allowed: a schedule does not care.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.errors import UsageError
from edgekit.train.settings import Settings, Stage


def cosine_rate(progress: float, peak: float, warmup: float = 0.05, floor: float = 0.0) -> float:
    """Linear from 0 to `peak` over the first `warmup` of the run, then half a cosine down to `floor`."""
    if warmup > 0 and progress < warmup:
        return peak * progress / warmup
    return floor + (peak - floor) * _fall(progress, warmup)


def _fall(progress: float, start: float) -> float:
    """Half a cosine from 1 at `start` to 0 at the end of the run."""
    rest = min(1.0, (progress - start) / (1.0 - start)) if start < 1 else 0.0
    return 0.5 * (1.0 + math.cos(math.pi * rest))


def step_rate(progress: float, peak: float, milestones: Sequence[float], factor: float = 0.1) -> float:
    """`peak` times `factor` for every milestone reached."""
    return peak * factor ** sum(progress >= milestone for milestone in milestones)


def progressive_stage(progress: float, shares: Sequence[float]) -> int:
    """The index of the stage that `progress` falls in; `shares` are the stages' parts of the run.

    Small, easy pictures first teach most of what there is to learn at a fraction of the cost; the last stage
    must be the resolution the network will be used at (Touvron et al. 2019, "Fixing the train-test
    resolution discrepancy"; Tan and Le 2021 on resolution and difficulty growing together).
    """
    total = sum(shares)
    if not shares or abs(total - 1.0) > 1e-6:
        raise UsageError(f"progressive resizing: the shares add up to {total:g}: they must add up to 1")
    end = 0.0
    for stage, share in enumerate(shares):
        end += share
        if progress < end - 1e-9:
            return stage
    return len(shares) - 1


def one_cycle_rate(progress: float, peak: float, warmup: float = 0.3, floor: float = 0.0) -> float:
    """Half a cosine from `peak` / 25 up to `peak` over `warmup` of the run, then one down to `floor`.

    Smith and Topin 2018, with the cosine and the 25 of torch's OneCycleLR.
    """
    start = peak / 25.0
    if warmup > 0 and progress < warmup:
        return peak + (start - peak) * 0.5 * (1.0 + math.cos(math.pi * progress / warmup))
    return floor + (peak - floor) * _fall(progress, warmup)


def rate_at(progress: float, settings: Settings) -> float:
    """What the schedule of `settings` makes of a rate of 1 at `progress`."""
    if settings.schedule == "one-cycle":
        return one_cycle_rate(progress, 1.0, settings.warmup, settings.final)
    if settings.schedule == "cosine":
        return cosine_rate(progress, 1.0, settings.warmup, settings.final)
    rise = progress / settings.warmup if progress < settings.warmup else 1.0
    if settings.schedule == "constant":
        return rise
    return rise * step_rate(progress, 1.0, settings.milestones, settings.factor)


@dataclass(frozen=True)
class Plan:
    """The stages of a run with the steps each takes: what a length becomes once it is known.

    stages: with their batches. steps: one number a stage.
    """

    stages: tuple[Stage, ...]
    steps: tuple[int, ...]

    @property
    def total(self) -> int:
        return sum(self.steps)

    def stage(self, step: int) -> int:
        """The index of the stage that `step` belongs to; of the last one from its end on."""
        end = 0
        for index, steps in enumerate(self.steps):
            end += steps
            if step < end:
                return index
        return len(self.steps) - 1

    def progress(self, step: int) -> float:
        """The share of the budget behind the middle of `step`; stages weigh by their share, not steps."""
        index = self.stage(step)
        before, inside = sum(self.steps[:index]), self.steps[index]
        shares = [stage.share for stage, steps in zip(self.stages, self.steps, strict=True) if steps]
        done = sum(s.share for s, n in zip(self.stages[:index], self.steps, strict=False) if n)
        return (done + self.stages[index].share * (step + 0.5 - before) / inside) / sum(shares)


def plan_steps(stages: Sequence[Stage], steps: int) -> Plan:
    """`steps` divided by the stages' shares; the rounding of one is made good by the next."""
    ends = [round(steps * sum(stage.share for stage in stages[: i + 1])) for i in range(len(stages))]
    return Plan(tuple(stages), tuple(end - start for start, end in zip([0, *ends], ends, strict=False)))


def plan_each(stages: Sequence[Stage], wanted: Sequence[float]) -> Plan:
    """So many steps a stage, rounded, at least one each."""
    return Plan(tuple(stages), tuple(max(1, round(steps)) for steps in wanted))
