"""The section on variants: what was made of the original, and what that saves."""

from __future__ import annotations

from typing import Any

from edgekit.report import units
from edgekit.report.facts import METRICS
from edgekit.report.section import Section

_COUNTS = ("params", "macs")


def section(report: dict[str, Any]) -> Section | None:
    """From the original on; none where nothing was changed."""
    found = report.get("variants") or []
    if not found:
        return None
    rows = tuple(
        (
            row["step"],
            row["name"],
            *(_beside(row[key], found[0][key], row is found[0]) for key in _COUNTS),
            _accuracy(row),
        )
        for row in found
    )
    return Section(
        "What was made of the original",
        "Accuracy, agreement and noise on this page are against the first row.",
        ("step", "model", "parameters", "MACs", "in float"),
        rows,
        numbers=2,
    )


def _accuracy(row: dict[str, Any]) -> str:
    """Its figure where there are labels, and how far its outputs are from the original's."""
    said = []
    if row.get("metric") in METRICS and row.get("figure") is not None:
        said.append(f"{METRICS[row['metric']]} {units.said(units.percent(row['figure'], 2))}")
    if row.get("drop") and said:
        said.append(f"{units.points(-row['drop'])} points")
    if row.get("sqnr_db") is not None:
        said.append(units.decibels(row["sqnr_db"]))
    return ", ".join(said) or units.NONE


def _beside(value: int, original: int, first: bool) -> str:
    share = "" if first or not original else f" ({value / original:.2f}{units.TIMES})"
    return f"{units.said(units.count(value))}{share}"
