"""What a sweep found, as data: a row for each point and target, and which rows nothing else beats.

A row is on the front when no other is at least as accurate, as fast and as small, and better in one of these.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from edgekit import __version__
from edgekit.sweep.plan import Point

SCHEMA_VERSION = 1
Row = dict[str, Any]


def build(
    points: Sequence[Point],
    results: Mapping[str, Mapping[str, Any]],
    reports: Mapping[str, Mapping[str, Any]],
    times: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> dict[str, Any]:
    """The content of sweep.json.

    Args:
        points: the first is the original. results: what came of each, by id. reports: report.json of those
            that were built. times: milliseconds by id and target, see `measure`.
    """
    rows = [row for point in points if point.id in reports for row in _rows(point, points[0], reports, times)]
    for row, on_front in zip(rows, front(rows), strict=True):
        row["front"] = on_front
    first = next(iter(reports.values()), None)
    machine = first["machine"] if first is not None else {}
    return {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "edgekit": __version__,
        "model": points[0].recipe.model,
        "data": points[0].recipe.data.source,
        "weights": first["weights"] if first is not None else None,
        "machine": {key: machine[key] for key in ("cpu", "cores", "os") if key in machine},
        "points": [
            {
                "point": point.id,
                "label": point.label,
                "values": point.values,
                **{key: results[point.id].get(key) for key in ("status", "reason", "seconds")},
            }
            for point in points
        ],
        "rows": rows,
    }


def failed(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Points that were not built."""
    return [point for point in report["points"] if point["status"] != "done"]


def _rows(
    point: Point,
    original: Point,
    reports: Mapping[str, Mapping[str, Any]],
    times: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> list[Row]:
    report, rows = reports[point.id], []
    for name, artifact in report["artifacts"].items():
        row: Row = {
            "point": point.id,
            "label": point.label,
            "values": point.values,
            "target": name,
            "size_bytes": artifact["size_bytes"],
            "params": report["cost"]["params"],
            "macs": report["cost"]["macs"],
            "verdict": report["verdict"],
            "build": f"points/{point.id}/build",
        }
        rows.append(row | _accuracy(artifact.get("drift")) | _latency(name, point, original, times))
    return rows


def _accuracy(drift: Mapping[str, Any] | None) -> Row:
    """The score, its interval from the paired one of the drop; agreement or SQNR without labels."""
    if drift is None:
        return {"metric": None, "accuracy": None, "accuracy_low": None, "accuracy_high": None}
    if drift["artifact"] is None:
        return {
            "metric": "sqnr",
            "accuracy": drift["sqnr_db"],
            "accuracy_low": None,
            "accuracy_high": None,
        }
    known = None not in (drift["reference"], drift["ci_low"], drift["ci_high"])
    return {
        "metric": drift["metric"],
        "accuracy": drift["artifact"],
        "accuracy_low": drift["reference"] - drift["ci_high"] if known else None,
        "accuracy_high": drift["reference"] - drift["ci_low"] if known else None,
        "drop": drift["drop"],
        "images": drift["n"],
    }


def _latency(
    name: str, point: Point, original: Point, times: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> Row:
    """The original's median times the ratio to it from one run; without one what was measured."""
    found = times.get(point.id, {}).get(name)
    if found is None:
        return {"p50_ms": None}
    row: Row = {"p50_ms": found["p50_ms"], "measured_p50_ms": found["p50_ms"]}
    base = times.get(original.id, {}).get(name)
    if base is not None and "ratio" in found:
        row["p50_ms"] = base["p50_ms"] * found["ratio"]
        row |= {key: found[key] for key in ("ratio", "ratio_low", "ratio_high")}
    return row


def front(rows: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Which rows no other one beats. What was not measured is left out of the comparison of a pair."""
    return [not any(_beats(other, row) for other in rows if other is not row) for row in rows]


def _beats(other: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    gains = []
    for key, sign in (("accuracy", 1), ("p50_ms", -1), ("size_bytes", -1)):
        if other.get(key) is not None and row.get(key) is not None:
            gains.append(sign * (other[key] - row[key]))
    return bool(gains) and min(gains) >= 0 and max(gains) > 0
