"""What a report says about a model's outputs: the task that reads them, and the error of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgekit.report import units

HEAD = ("output", "shape", "SQNR", "5 % of images below", "largest error")


def task_sentence(report: dict[str, Any]) -> str:
    """'tensors: without labels ...', or nothing for a report without a task."""
    task = report.get("task")
    return f"{task['name']}: {task['reason']}" if task else ""


def rows(drift: dict[str, Any] | None) -> list[tuple[str, str, str, str, str]]:
    """Every output, where there are several or where the outputs are all that is judged; see HEAD."""
    found: Sequence[dict[str, Any]] = (drift or {}).get("outputs") or ()
    if drift is None or (len(found) < 2 and drift["metric"] != "sqnr"):
        return []
    return [
        (
            row["name"],
            " x ".join(map(str, row["shape"])) or "one number",
            _share(row) or units.decibels(row["sqnr_db"]),
            units.NONE if _share(row) else units.decibels(row["sqnr_p5_db"]),
            _error(row),
        )
        for row in found
    ]


def figures(drift: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What else the task tells: 'pixel agreement', '98.2 %'."""
    found = (drift or {}).get("figures") or {}
    return [(name, units.said(units.percent(value))) for name, value in found.items() if value is not None]


def _share(row: dict[str, Any]) -> str:
    """An output of whole numbers is judged by how many are equal."""
    share = row.get("equal_share")
    return "" if share is None else f"{units.share(share)} equal"


def _error(row: dict[str, Any]) -> str:
    error, peak = row.get("max_error"), row.get("peak")
    if error is None or peak is None:
        return units.NONE
    return f"{error:.3g} of {peak:.3g}"
