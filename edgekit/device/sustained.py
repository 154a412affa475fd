"""A sustained run: what minutes of work do to a board, as a curve and as its first minute beside its last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.device.harness import FileRun
from edgekit.device.probe import Sample
from edgekit.device.profiles import Profile

_BUCKET_S = 10.0


def sustained(profile: Profile, run: FileRun, during: Sequence[Sample]) -> dict[str, Any]:
    """The `sustained` section of one file; each point has the temperature and clock of the nearest sample."""
    minutes = profile.seconds / 60
    points: list[dict[str, Any]] = [dict(point) for point in curve(run)]
    began = run.began_at_s
    if began is not None and during:
        times = np.array([sample.at_s - began for sample in during])
        for point in points:
            nearest = during[int(np.abs(times - point["t_s"]).argmin())]
            point["temperature_c"] = nearest.hottest_c
            point["clock_mhz"] = max(nearest.clock_mhz.values(), default=None)
    return {
        "minutes": minutes,
        "first_minute_ms": at_minute(run, 1),
        "last_minute_ms": at_minute(run, max(1, int(minutes))),
        "curve": points,
    }


def curve(run: FileRun, bucket_s: float = _BUCKET_S) -> list[dict[str, float]]:
    """Median latency of every `bucket_s` seconds of a sustained run."""
    starts = np.array(run.starts_ns or [], np.float64) / 1e9
    samples = np.array(run.samples_ns or [], np.float64) / 1e6
    rows = []
    for bucket in np.unique(starts // bucket_s):
        inside = samples[starts // bucket_s == bucket]
        rows.append(
            {"t_s": float(bucket * bucket_s), "p50_ms": float(np.median(inside)), "n": int(inside.size)}
        )
    return rows


def at_minute(run: FileRun, minute: int) -> float | None:
    """Median latency of the `minute`-th minute of a sustained run (1 is the first), milliseconds."""
    starts = np.array(run.starts_ns or [], np.float64) / 60e9
    inside = (starts >= minute - 1) & (starts < minute)
    return float(np.median(np.array(run.samples_ns)[inside])) / 1e6 if inside.any() else None
