"""What a runtime can say about where a file's milliseconds go: what it measured, or what to measure."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.runtimes.registry import opening
from edgekit.runtimes.sources import ModelFile

WARMUP_RUNS = 5
PROFILED_RUNS = 50


@dataclass(frozen=True)
class Profiled:
    """Mean milliseconds by the runtime's own profiler: (operator's index in the audit, milliseconds).

    Profilers cost time, so these are shares of the file's own latency.
    """

    operators: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Prefixes:
    """Files of the first k operators each, to be timed side by side; the last one is the whole.

    kept: k of each, ascending.
    """

    kept: tuple[int, ...]
    files: tuple[bytes, ...]


def times(file: ModelFile, threads: int, parts: int) -> Profiled | Prefixes:
    """What a file's runtime says of its operators' time, or the files to time for it.

    Args:
        parts: into how many a file is cut, for a runtime that does not tell.
    Raises: ArtifactError for a file it refuses.
    """
    return opening(file.kind).part("times").times(file, threads, parts)
