"""The sections about a whole build, in the order of the page; a new kind is one file and its name here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgekit.report import mixed, variants
from edgekit.report.section import Section

SECTIONS: tuple[Callable[[dict[str, Any]], list[Section]], ...] = (variants.sections, mixed.sections)


def sections(report: dict[str, Any]) -> list[Section]:
    """Those for which the report has something to say."""
    return [section for make in SECTIONS for section in make(report)]
