"""The section on variants: what was made of the original, and what that saves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekit.report import units

KEYS = ("params", "macs")


@dataclass(frozen=True)
class Row:
    """A variant in words; `params` and `macs` of the original stand without a comparison."""

    step: str
    name: str
    params: str
    macs: str


def rows(report: dict[str, Any]) -> list[Row]:
    """From the original on; empty where nothing was changed."""
    found = report.get("variants") or []
    return [
        Row(row["step"], row["name"], *(_beside(row[key], found[0][key], row is found[0]) for key in KEYS))
        for row in found
    ]


def _beside(value: int, original: int, first: bool) -> str:
    share = "" if first or not original else f" ({value / original:.2f}×)"
    return f"{units.said(units.count(value))}{share}"
