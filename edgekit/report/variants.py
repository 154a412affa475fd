"""The section on variants: what was made of the original, and what that saves."""

from __future__ import annotations

from typing import Any

from edgekit.report import units
from edgekit.report.section import Section

_COUNTS = ("params", "macs")


def section(report: dict[str, Any]) -> Section | None:
    """From the original on; none where nothing was changed."""
    found = report.get("variants") or []
    if not found:
        return None
    rows = tuple(
        (row["step"], row["name"], *(_beside(row[key], found[0][key], row is found[0]) for key in _COUNTS))
        for row in found
    )
    return Section(
        "What was made of the original",
        "Accuracy, agreement and noise on this page are against the first row.",
        ("step", "model", "parameters", "MACs"),
        rows,
        numbers=2,
    )


def _beside(value: int, original: int, first: bool) -> str:
    share = "" if first or not original else f" ({value / original:.2f}{units.TIMES})"
    return f"{units.said(units.count(value))}{share}"
