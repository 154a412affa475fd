"""Where a file's milliseconds go: a model file -> LayerTimes, one row for every part that can be timed alone.

The file of a runtime that hides its operators is cut after the k-th one, for some two dozen k, and the
prefixes are timed as files are: in fresh processes, in turns. The time of the operators between two cuts is
the difference of the two neighbours' medians, process by process, so that what a process owes to its luck
hits both; of several processes, the median.

Other runtimes time every operator they execute themselves; their profilers cost time, so what they say is
taken as shares of the file's own latency.

In both cases negative differences count as nothing and the rows are scaled so that they add up to the whole:
`total_ms` is measured, a row is an estimate, and `raw_ms` is what it was before scaling. Differences of a few
microseconds are noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgekit.runtimes.audit import OpRecord, audit
from edgekit.runtimes.sources import Source, open_source
from edgekit.runtimes.times import Prefixes, times

if TYPE_CHECKING:
    from edgekit.device.host import Latency

CUTS = 24


class Measure(Protocol):
    """Files in turns, in fresh processes, as `edgekit.pipeline.timing.latency` measures them."""

    def __call__(self, files: Mapping[str, Source], *, threads: int) -> Latency: ...


@dataclass(frozen=True)
class LayerTime:
    """Operators timed together. operators: their indices in `Audit.ops`. share: 0..1 of the whole."""

    operators: tuple[int, ...]
    ops: tuple[str, ...]
    modules: tuple[str, ...]
    ms: float
    share: float
    raw_ms: float


@dataclass(frozen=True)
class LayerTimes:
    """total_ms: the whole file's median latency. method: "prefixes" or "profiler"."""

    total_ms: float
    method: str
    rows: tuple[LayerTime, ...]
    runtime: str
    profile: str

    def slowest(self, count: int = 5) -> list[LayerTime]:
        return sorted(self.rows, key=lambda row: -row.ms)[:count]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for report.json."""
        return asdict(self)


def layer_times(
    source: Source,
    modules: Mapping[str, str] | None = None,
    *,
    latency: Measure,
    threads: int = 1,
    cuts: int = CUTS,
) -> LayerTimes:
    """Time the parts of a model file on this machine.

    Args:
        modules: module path for each tensor or operator name, as in `audit`.
        latency: what measures; more samples make short operators visible.
        cuts: parts of a .tflite file; its number of operators at most. The others give one row an operator.
    Raises: ArtifactError for a file that does not run.
    """
    file = open_source(source)
    rows = audit(file.files, modules).ops
    timed = times(file, threads, cuts)
    if isinstance(timed, Prefixes):
        return _by_prefixes(timed, rows, latency, threads)
    whole = latency({"whole": file.files}, threads=threads)
    groups = [((index,), milliseconds) for index, milliseconds in timed.operators]
    return _scaled(groups, rows, whole.files["whole"].p50_ms, "profiler", whole.runtime, whole.profile)


def _by_prefixes(cut: Prefixes, rows: tuple[OpRecord, ...], latency: Measure, threads: int) -> LayerTimes:
    points = cut.kept
    files: dict[str, Source] = {str(k): data for k, data in zip(points, cut.files, strict=True)}
    found = latency(files, threads=threads)
    medians = np.array([[np.median(run) for run in found.samples_ns[str(k)]] for k in points])
    steps = np.median(np.diff(medians, axis=0, prepend=0), axis=1)  # of each process, then of all
    starts = [0, *points[:-1]]
    groups = [
        (tuple(range(start, end)), float(step) / 1e6)
        for start, end, step in zip(starts, points, steps, strict=True)
    ]
    whole = found.files[str(points[-1])].p50_ms
    return _scaled(groups, rows, whole, "prefixes", found.runtime, found.profile)


def _scaled(
    groups: Sequence[tuple[tuple[int, ...], float]],
    rows: tuple[OpRecord, ...],
    total_ms: float,
    method: str,
    runtime: str,
    profile: str,
) -> LayerTimes:
    clipped = [max(0.0, milliseconds) for _, milliseconds in groups]
    scale = total_ms / sum(clipped) if sum(clipped) else 0.0
    return LayerTimes(
        total_ms,
        method,
        tuple(
            LayerTime(
                indices,
                tuple(rows[i].op for i in indices),
                tuple(dict.fromkeys(rows[i].module for i in indices)),
                own * scale,
                own * scale / total_ms if total_ms else 0.0,
                raw,
            )
            for (indices, raw), own in zip(groups, clipped, strict=True)
        ),
        runtime,
        profile,
    )
