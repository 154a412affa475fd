"""Schedules: training progress in 0..1 -> a rate or a stage. Pure functions.

Progress may be steps done over steps planned or time spent over time allowed: a schedule does not care.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgekit.errors import UsageError


def cosine_rate(progress: float, peak: float, warmup: float = 0.05, floor: float = 0.0) -> float:
    """Linear from 0 to `peak` over the first `warmup` of the run, then half a cosine down to `floor`."""
    if warmup > 0 and progress < warmup:
        return peak * progress / warmup
    rest = min(1.0, (progress - warmup) / (1.0 - warmup))
    return floor + (peak - floor) * 0.5 * (1.0 + math.cos(math.pi * rest))


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
