"""Raw nanoseconds of several fresh processes -> percentiles with intervals over processes.

Samples of one process share its memory layout and its luck, so intervals resample whole processes. Tools that
give only summaries have their medians over processes, and the same intervals over those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.device.harness import FileRun

P99_SAMPLES = 1000
_RESAMPLES = 2000


def figures(runs: Sequence[FileRun]) -> dict[str, Any]:
    """p50, p90, p99 in milliseconds with 95 % intervals, init, first inference, and what they rest on."""
    raw = all(run.samples_ns for run in runs)
    points, low, high = _raw(runs) if raw else _summaries(runs)
    count = sum(run.count for run in runs)
    dropped = [run.preempted for run in runs]
    content: dict[str, Any] = {
        "n": count,
        "raw": raw,
        "p99_supported": raw and count >= P99_SAMPLES,
        "preempted": None if None in dropped else sum(dropped),
    }
    for i, name in enumerate(("p50", "p90", "p99")):
        content[f"{name}_ms"] = _number(points[i])
        known = content[f"{name}_ms"] is not None and len(runs) > 1
        content[f"{name}_interval"] = [float(low[i]), float(high[i])] if known else None
    for name in ("init", "first"):
        times = [value for run in runs if (value := getattr(run, f"{name}_ns")) is not None]
        content[f"{name}_ms"] = float(np.median(times)) / 1e6 if times else None
    if not raw:
        medians = [_median(run) for run in runs]
        content |= {"process_p50_ms": medians} if np.isfinite(medians).all() else {}
    return content


def ratio(runs: Sequence[FileRun], reference: Sequence[FileRun]) -> dict[str, Any]:
    """p50 over the reference's p50, process by process: below 1 is faster; a 95 % interval over processes."""
    pairs = np.array([_median(a) / _median(b) for a, b in zip(runs, reference, strict=True)])
    content: dict[str, Any] = {"p50": float(np.median(pairs)), "interval": None}
    if len(pairs) > 1:
        low, high = np.percentile(np.median(pairs[_draws(len(pairs))], axis=1), [2.5, 97.5])
        content["interval"] = [float(low), float(high)]
    return content


def disturbed(name: str, runs: Sequence[FileRun]) -> list[str]:
    """Why the figures of a file mean little: too few of its samples ran without being preempted."""
    taken = [run for run in runs if not run.undisturbed]
    if not taken:
        return []
    lost, count = sum(run.preempted or 0 for run in taken), sum(run.count for run in taken)
    return [f"{name}: {lost} of {count} samples were preempted by other work, too many to drop"]


def _raw(runs: Sequence[FileRun]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    samples = [np.array(run.samples_ns, np.int64) for run in runs]
    points = np.percentile(np.concatenate(samples), [50, 90, 99]) / 1e6
    shortest = min(len(run) for run in samples)
    equal = np.stack([run[:shortest] for run in samples])
    # a handful of processes has few multisets: each is computed once, however often it is drawn
    sets, drawn = np.unique(np.sort(_draws(len(samples)), axis=1), axis=0, return_inverse=True)
    each = np.array([np.percentile(equal[rows].reshape(-1), [50, 90, 99]) / 1e6 for rows in sets])
    low, high = np.percentile(each[drawn.reshape(-1)], [2.5, 97.5], axis=0)
    return points, low, high


def _summaries(runs: Sequence[FileRun]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = np.array([[run.summary_ms.get(name, np.nan) for name in ("p50", "p90", "p99")] for run in runs])
    points = np.median(table, axis=0)
    low, high = np.percentile(np.median(table[_draws(len(runs))], axis=1), [2.5, 97.5], axis=0)
    return points, low, high


def _median(run: FileRun) -> float:
    return float(np.median(run.samples_ns)) / 1e6 if run.samples_ns else run.summary_ms.get("p50", np.nan)


def _draws(processes: int) -> np.ndarray:
    """(resamples, processes) indices: which processes each resample consists of."""
    return np.random.default_rng(0).integers(0, processes, (_RESAMPLES, processes))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
