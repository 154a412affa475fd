"""The ladder of lite surgery: its table, and its picture beside it.

The picture is the climb: from rung to rung, in the order of their price, what each loses by itself to the
right and the milliseconds it wins upwards. The steeper a rung, the better its price.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.report import units
from edgekit.report.charts import Tick, nice_ticks
from edgekit.report.section import Section

_TICKS = 4
_ROOM = 1.06  # of what is drawn, so that no number is cut off


@dataclass(frozen=True)
class Pin:
    rank: int
    x: float
    y: float
    name: str


@dataclass(frozen=True)
class Picture:
    """Paths and places in percent. limit: where the budget ends, None where it is not known."""

    taken: str
    left: str
    pins: tuple[Pin, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    limit: float | None


def section(step: str, rungs: Sequence[dict[str, Any]], max_drop: float | None) -> Section:
    """What could be made, by its price: milliseconds won for each point lost."""
    ranks = _ranks(rungs)
    rows = tuple(
        (
            f"{ranks[i]}" if i in ranks else units.NONE,
            rung["step"],
            f"{units.plural(len(rung['modules']), 'module')} from {rung['modules'][0]}",
            rung["outcome"],
            f"{rung['ms_won']:.3f} ms".replace("-", units.MINUS),
            units.NONE if rung.get("drop") is None else f"{100 * rung['drop']:.2f}".replace("-", units.MINUS),
            units.NONE if rung.get("price") is None else f"{rung['price']:.3f}",
        )
        for i, rung in enumerate(rungs)
    )
    head = ("", "step", "part", "outcome", "wins", "points lost by itself", "ms a point")
    sentence = "Rungs are taken in the order of their price until the budget of accuracy is spent."
    return Section(f"The ladder of {step}", sentence, head, rows, 4, picture(rungs, max_drop))


def _ranks(rungs: Sequence[dict[str, Any]]) -> dict[int, int]:
    """Place in the list -> place among those that have a price."""
    priced = [i for i, rung in enumerate(rungs) if rung.get("price") is not None]
    return {i: rank for rank, i in enumerate(priced, start=1)}


def picture(rungs: Sequence[dict[str, Any]], max_drop: float | None) -> Picture | None:
    """None where no rung has a price."""
    ranks = _ranks(rungs)
    if not ranks:
        return None
    places = [(0.0, 0.0)]
    for i in ranks:
        lost, won = places[-1]
        places.append((lost + max(100 * rungs[i]["drop"], 0.0), won + rungs[i]["ms_won"]))
    limit = None if max_drop is None else 100 * max_drop
    wide = _ROOM * max(places[-1][0], limit or 0.0, 1e-9)
    high = _ROOM * places[-1][1]

    def at(place: tuple[float, float]) -> tuple[float, float]:
        return round(100 * place[0] / wide, 2), round(100 - 100 * place[1] / high, 2)

    paths = {True: "", False: ""}
    pins = []
    for (i, rank), start, end in zip(ranks.items(), places, places[1:], strict=False):
        (x0, y0), (x1, y1) = at(start), at(end)
        paths[bool(rungs[i]["taken"])] += f"M{x0} {y0}L{x1} {y1}"
        pins.append(Pin(rank, x1, y1, f"{rungs[i]['step']}, {rungs[i]['outcome']}"))
    across = tuple(Tick(at((v, 0.0))[0], f"{v:g}") for v in nice_ticks(0.0, wide, _TICKS))
    up = tuple(Tick(at((0.0, v))[1], f"{v:g}") for v in nice_ticks(0.0, high, _TICKS))
    return Picture(
        paths[True], paths[False], tuple(pins), across, up, None if limit is None else at((limit, 0.0))[0]
    )
