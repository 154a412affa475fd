"""A section of the report that is one table: what every page can typeset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Section:
    """A title, what the table says, and its rows in words; columns from the `numbers`-th on are figures.

    picture: geometry that the page with pictures draws above the table, see `ladder.Picture`.
    """

    title: str
    sentence: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: int = 1
    picture: Any = None
