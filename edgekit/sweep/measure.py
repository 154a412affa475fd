"""Finished points timed on this machine: one at a time, in turns with the original, once nothing is built.

Every point is held against the original's file in the same fresh processes: what the machine does meanwhile
meets both. What was measured stays with the point as long as its files are the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit.files import write_atomic
from edgekit.pipeline.recipe import Device
from edgekit.pipeline.timing import latency
from edgekit.runtimes.registry import RUNTIMES
from edgekit.sweep import lock
from edgekit.sweep.plan import Point
from edgekit.sweep.run import folder_of
from edgekit.targets import get_target

_MEASURED = "measured.json"
Report = Mapping[str, Any]


def measure(
    out: Path,
    points: Sequence[Point],
    reports: Mapping[str, Report],
    device: Device,
    on_point: Callable[[Point], None],
) -> dict[str, dict[str, Any]]:
    """Milliseconds of every built point, by its id and target.

    Args:
        points: the first is the original. reports: point id -> report.json of those that are built.
    """
    if device.profile == "off":
        return {}
    first = points[0]
    return {
        point.id: _measured(out, point, first if first.id in reports else None, reports, device, on_point)
        for point in points
        if point.id in reports
    }


def _measured(
    out: Path,
    point: Point,
    original: Point | None,
    reports: Mapping[str, Report],
    device: Device,
    on_point: Callable[[Point], None],
) -> dict[str, Any]:
    files = _files(out, point, reports[point.id], "")
    others = {}
    if original is not None and original is not point:
        known = _files(out, original, reports[original.id], "original ")
        others = {name: file for name, file in known.items() if name.removeprefix("original ") in files}
    key = {
        "files": {name: digest for name, (_, digest) in (files | others).items()},
        "device": repr(device),
    }
    path = folder_of(out, point) / _MEASURED
    try:
        kept = json.loads(path.read_text())
        if kept["key"] == key:
            return dict(kept["targets"])
    except (OSError, ValueError, KeyError):
        pass
    if not files:
        return {}
    on_point(point)
    with lock.machine(alone=True):
        found = latency(
            {name: file for name, (file, _) in (files | others).items()},
            profile=device.profile,
            threads=device.threads,
        )
    targets = {}
    for name in files:
        one = found.files[name]
        low, high = one.p50_interval
        targets[name] = {"p50_ms": one.p50_ms, "p50_low_ms": low, "p50_high_ms": high}
        if (beside := f"original {name}") in others:
            ratio, low, high = found.ratio(name, beside)
            targets[name] |= {"ratio": ratio, "ratio_low": low, "ratio_high": high}
    content = {"key": key, "targets": targets, "machine": found.machine, "profile": found.profile}
    write_atomic(path, json.dumps(content, indent=1) + "\n")
    return targets


def _files(out: Path, point: Point, report: Report, prefix: str) -> dict[str, tuple[Path, str]]:
    """Target -> its file and hash, of those that this machine has a runtime for."""
    folder = folder_of(out, point) / "build"
    return {
        prefix + name: (folder / artifact["path"], artifact["sha256"])
        for name, artifact in report["artifacts"].items()
        if RUNTIMES[get_target(name).runtime].host
    }
