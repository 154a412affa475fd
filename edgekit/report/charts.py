"""The geometry of the pictures: numbers in, paths and positions in percent out. The templates draw them.

Every plot is drawn in a box of 100 x 100 that is stretched to whatever room there is, with strokes that do
not scale and labels set as text at percent positions: sharp and readable on a phone and in print alike.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgekit.report import facts, units

Span = tuple[float, float]
Box = tuple[float, float, float, float]  # x, y, width, height
OPS = {  # the colour family of an operator in the maps
    "conv2d": "conv",
    "conv_2d": "conv",
    "depthwise_conv2d": "depthwise",
    "depthwise_conv_2d": "depthwise",
    "linear": "linear",
    "fully_connected": "linear",
    "conv": "conv",  # ONNX Runtime's and OpenVINO's executed operators
    "qlinearconv": "conv",
    "convolution": "conv",
    "groupconvolution": "depthwise",
    "gemm": "linear",
    "qgemm": "linear",
    "fullyconnected": "linear",
}


@dataclass(frozen=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True)
class Mark:
    at: float
    name: str
    text: str


@dataclass(frozen=True)
class Band:
    """One distribution: a step histogram, marks at p50, p90 and p99, the medians of single processes."""

    name: str
    reference: bool
    histogram: str
    marks: tuple[Mark, ...]
    processes: tuple[float, ...]
    ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class Curve:
    reference: bool
    path: str


@dataclass(frozen=True)
class Distributions:
    bands: tuple[Band, ...]
    curves: tuple[Curve, ...]
    ticks: tuple[Tick, ...]
    levels: tuple[Tick, ...]
    beyond: int
    unit: str


@dataclass(frozen=True)
class Tile:
    x: float
    y: float
    width: float
    height: float
    name: str
    label: str
    op: str
    family: str
    text: str
    share: str


@dataclass(frozen=True)
class Culprit:
    rank: int
    name: str
    op: str
    share: str
    bar: float
    sqnr: str
    x: float
    y: float


@dataclass(frozen=True)
class Profile:
    """Signal to noise through depth, the error each layer brings in, and the worst layers."""

    line: str
    dots: str
    stems: str
    ticks: tuple[Tick, ...]
    culprits: tuple[Culprit, ...]
    depth: int


@dataclass
class Run:
    """Neighbouring operators that run in the same place."""

    where: str
    cells: list[dict[str, Any]] = field(default_factory=list)


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers from `low` to `high`."""
    if not high > low:
        return [low]
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def _tick_text(value: float, step: float) -> str:
    places = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    if step * 10**places % 1 > 1e-6:
        places += 1
    return f"{value:.{places}f}".replace("-", units.MINUS)


def latency(
    ours: Sequence[Any], floats: Sequence[Any], name: str, baseline: str = "float32"
) -> Distributions | None:
    """Histograms whose axes span the same share of each median, so that widths compare, and both tails.

    The tails share one axis in milliseconds; up the side run the nines (50, 90, 99, 99.9 %), evenly.
    """
    series = [(name, False, ours), (baseline, True, floats)]
    series = [(n, r, s) for n, r, s in series if len(facts.flat(s)) >= 2]
    if not series:
        return None
    arrays = [np.sort(np.asarray(facts.flat(s), dtype=np.float64)) for _, _, s in series]
    medians = [max(float(np.median(a)), 1e-9) for a in arrays]
    unit, factor = units.time_unit(min(medians))
    before = max(1 - a[0] / m for m, a in zip(medians, arrays, strict=True))
    after = max(float(np.percentile(a, 99)) / m - 1 for m, a in zip(medians, arrays, strict=True))
    before, after = before * 1.15 + 0.005, after * 1.15 + 0.01
    low = min(a[0] for a in arrays)
    high = max(min(a[-1], 1.2 * float(np.percentile(a, 99))) for a in arrays)
    low, high = low - 0.03 * (high - low + 1e-9), high + 0.01 * (high - low + 1e-9)
    nines = max(math.log10(2 * len(a)) for a in arrays)
    bands = tuple(
        _band(label, reference, samples, values, (median * (1 - before), median * (1 + after)), factor)
        for (label, reference, samples), values, median in zip(series, arrays, medians, strict=True)
    )
    curves = tuple(
        Curve(reference, _tail(values, low, high, nines))
        for (_, reference, _), values in zip(series, arrays, strict=True)
    )
    levels = tuple(
        Tick(round(100 + 100 * math.log10(1 - p / 100) / nines, 2), f"{p:g} %")
        for p in (50, 90, 99, 99.9)
        if -math.log10(1 - p / 100) < nines
    )
    beyond = sum(int((values > high).sum()) for values in arrays)
    return Distributions(bands, curves, _ticks(low, high, factor), levels, beyond, unit)


def _band(
    label: str, reference: bool, samples: Sequence[Any], values: np.ndarray, span: Span, factor: float
) -> Band:
    low, high = span
    bins = 90
    heights = np.histogram(values, np.linspace(low, high, bins + 1))[0]
    tops = 100 - 96 * heights / max(int(heights.max()), 1)
    steps = "".join(f"V{top:.1f}H{100 * (i + 1) / bins:.2f}" for i, top in enumerate(tops))

    def x(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    processes = [float(np.median(s)) for s in samples if isinstance(s, list) and s]
    marks = [(p, float(np.percentile(values, p))) for p in (50, 90, 99)]
    return Band(
        label,
        reference,
        f"M0 100{steps}V100Z",
        tuple(Mark(x(v), f"p{p}", units.said(units.milliseconds(v))) for p, v in marks),
        tuple(x(v) for v in processes if low <= v <= high),
        _ticks(low, high, factor),
    )


def _tail(values: np.ndarray, low: float, high: float, nines: float) -> str:
    """The share of runs at most so long, in nines; at most 160 points, denser towards the tail."""
    n = len(values)
    ranks = np.unique(np.round(n - np.geomspace(n, 1, 160)).astype(int))
    path = "M0 100"
    for i in ranks:
        if values[i] > high:
            return f"{path}H100"
        y = 100 + 100 * math.log10(1 - (i + 0.5) / n) / nines
        path += f"H{100 * (values[i] - low) / (high - low):.2f}V{y:.2f}"
    return path


def _ticks(low: float, high: float, factor: float) -> tuple[Tick, ...]:
    """Round numbers in the unit of which `factor` make one of the axis."""
    low, high = low * factor, high * factor
    at = nice_ticks(low, high, 5)
    step = at[1] - at[0] if len(at) > 1 else high - low
    return tuple(Tick(round(100 * (v - low) / (high - low), 2), _tick_text(v, step)) for v in at)


def error_profile(layers: Sequence[dict[str, Any]], worst: int = 6) -> Profile | None:
    """None when no layer carries an SQNR or an error share."""
    sqnr: list[Any] = [row.get("sqnr_db") for row in layers]
    share = [row.get("introduced_error_share") or 0.0 for row in layers]
    known = [s for s in sqnr if s is not None]
    if len(known) < 2 and not any(share):
        return None
    low, high = (math.floor(min(known) - 1), math.ceil(max(known) + 1)) if known else (0, 1)
    depth = len(layers)

    def x(i: int) -> float:
        return round(100 * (i + 0.5) / depth, 3)

    def y(value: float) -> float:
        return round(100 * (high - value) / (high - low), 2)

    points = [(x(i), y(s)) for i, s in enumerate(sqnr) if s is not None]
    line = "M" + "L".join(f"{a} {b}" for a, b in points) if points else ""
    dots = "".join(f"M{a} {b}h0" for a, b in points)
    top = max(share) or 1.0
    stems = "".join(f"M{x(i)} 0V{100 * s / top:.2f}" for i, s in enumerate(share) if s > 0)
    order = sorted((i for i in range(depth) if share[i] > 0), key=lambda i: (-share[i], i))[:worst]
    culprits = tuple(
        Culprit(
            rank,
            facts.place(layers[i]),
            layers[i]["op"],
            units.share(min(share[i], 1.0)),
            round(100 * share[i] / top, 2),
            units.decibels(sqnr[i]),
            x(i),
            0.0 if sqnr[i] is None else y(sqnr[i]),
        )
        for rank, i in enumerate(order, start=1)
    )
    at = nice_ticks(low, high, 4) if known else []
    return Profile(line, dots, stems, tuple(Tick(y(v), f"{v:.0f}") for v in at), culprits, depth)


def treemap(layers: Sequence[dict[str, Any]], key: str, limit: int = 160) -> list[Tile]:
    """Squarified tiles of a box 100 x 100 (laid out as 2.4:1), largest first; the smallest as one."""
    total = sum(row.get(key) or 0 for row in layers)
    if not total:
        return []
    rows = sorted((r for r in layers if r.get(key)), key=lambda r: -r[key])
    items = [(r[key], facts.place(r), r["op"], OPS.get(r["op"].lower(), "other")) for r in rows[:limit]]
    rest = sum(r[key] for r in rows[limit:])
    if rest:
        items.append((rest, f"{len(rows) - limit} smaller", "", "other"))
    boxes = _squarify([value / total * 240 for value, *_ in items], 0.0, 0.0, 24.0, 10.0)
    say = {
        "bytes": lambda v: units.said(units.size(v)),
        "ms": lambda v: units.said(units.milliseconds(v)),
        "macs": lambda v: units.said(units.count(v)) + "MAC",
    }[key]
    stem = _common_stem(layers)
    tiles = []
    for (value, name, op, family), (x, y, w, h) in zip(items, boxes, strict=True):
        place = (round(x / 0.24, 3), round(y * 10, 3), round(w / 0.24, 3), round(h * 10, 3))
        label = (name.replace(stem, "") if stem else name) or name
        tiles.append(Tile(*place, name, label, op, family, say(value), units.share(value / total)))
    return tiles


def _common_stem(layers: Sequence[dict[str, Any]]) -> str:
    """The first component that most layers share ('features.'), or an empty string."""
    stems = Counter(name.split(".", 1)[0] + "." for name in map(facts.place, layers) if "." in name)
    stem, n = max(stems.items(), key=lambda item: item[1], default=("", 0))
    return stem if 2 * n > len(layers) else ""


def _squarify(areas: list[float], x: float, y: float, w: float, h: float) -> list[Box]:
    """Bruls, Huizing and van Wijk, Squarified Treemaps (2000): rows that keep tiles near square."""
    boxes: list[Box] = []
    start = 0
    while start < len(areas):
        side, stop, best = min(w, h), start + 1, math.inf
        while stop <= len(areas):
            row = areas[start:stop]
            total = sum(row)
            ratio = max(side**2 * max(row) / total**2, total**2 / (side**2 * min(row)))
            if ratio > best:
                break
            best, stop = ratio, stop + 1
        row = areas[start : stop - 1]
        thick, at = sum(row) / side if side else 0.0, 0.0
        for area in row:
            length = area / thick if thick else 0.0
            boxes.append((x, y + at, thick, length) if w >= h else (x + at, y, length, thick))
            at += length
        if w >= h:
            x, w = x + thick, max(w - thick, 0.0)
        else:
            y, h = y + thick, max(h - thick, 0.0)
        start = stop - 1
    return boxes


def placement(layers: Sequence[dict[str, Any]]) -> list[Run]:
    """The operators in order, cut where the place changes; empty when no place is known."""
    if not any(row.get("where") for row in layers):
        return []
    runs: list[Run] = []
    for row in layers:
        where = row.get("where") or "unknown"
        if not runs or runs[-1].where != where:
            runs.append(Run(where))
        runs[-1].cells.append(row)
    return runs


def interval(drift: dict[str, Any] | None) -> dict[str, Any] | None:
    """The drop with its interval and the limit on one axis, in percent of its width; None without both."""
    if not drift or not facts.labelled(drift) or None in (drift["drop"], drift["ci_low"], drift["ci_high"]):
        return None
    limit = drift.get("max_drop_points")
    values = [0.0, drift["drop"], drift["ci_low"], drift["ci_high"], *([limit] if limit else [])]
    low, high = min(values), max(values)
    margin = max((high - low) * 0.08, 0.01)
    low, high = low - margin, high + margin

    def x(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    at = x(limit) if limit else None
    return {
        "low": x(drift["ci_low"]),
        "high": x(drift["ci_high"]),
        "drop": x(drift["drop"]),
        "zero": x(0.0),
        "limit": at,
        "limit_left": at is not None and at > 72,  # the label would not fit on the right of its mark
        "limit_text": units.points(limit) if limit else "",
        "over": bool(limit) and drift["drop"] > limit,
    }
