"""Artifacts beside each other: which runtime is fastest, and whether the artifacts answer alike.

In: `runtimes` and `agreement` of a report. Out: rows and sentences for the HTML page, the Markdown page and
the terminal; bars and whiskers in percent of the slowest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekit.report import formats, units

PAIRS_SHOWN = 12
_THREADS = ("threads", "num_threads", "intra_op_threads", "intra_op_num_threads", "inference_num_threads")
_PRECISION = ("precision_hint", "inference_precision_hint")
_PINNING = ("pinning", "cpu_pinning", "enable_cpu_pinning")
_DISAGREEMENT = (0.0, 0.5, 1.0, 2.0, 5.0)  # percent: upper ends of the colours of the grid


@dataclass(frozen=True)
class Row:
    """One runtime with one file. `bar`, `low` and `high` are percent of the chart's width."""

    target: str
    runtime: str
    precision: str
    artifact: bool
    p50: str
    p90: str
    p99: str
    interval: str
    relative: str
    bar: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Speeds:
    """`slower`: a sentence for each int8 artifact that loses against its own float."""

    rows: tuple[Row, ...]
    fastest: str
    held: str
    differing: str
    slower: tuple[str, ...]
    others: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Cell:
    """`level` is the colour: 0 no answer differs, 5 more than 5 percent do; None on the diagonal."""

    agreement: str
    sqnr: str
    level: int | None
    below: bool


@dataclass(frozen=True)
class Agreement:
    targets: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    sentence: str
    ok: bool | None
    differing: tuple[tuple[str, str, str], ...]  # two targets and what is known of them
    more: int


def speeds(report: dict[str, Any]) -> Speeds | None:
    """The runtimes, fastest first; None unless there are two to compare."""
    found = sorted(report.get("runtimes") or (), key=lambda row: (row["p50_ms"], row["target"]))
    if len({row["runtime"] for row in found}) < 2:
        return None
    widest = max(max(row["p50_ms"], row.get("p50_high_ms") or 0.0) for row in found) or 1.0
    held, differing, others = _settings(found)
    rows = tuple(_row(row, found[0], widest) for row in found)
    slower = tuple(text for row in found for text in (_loses(row, found),) if text)
    return Speeds(rows, _fastest(found), held, differing, slower, others)


def _row(row: dict[str, Any], fastest: dict[str, Any], widest: float) -> Row:
    low, high = row.get("p50_low_ms"), row.get("p50_high_ms")
    relative = row["p50_ms"] / (fastest["p50_ms"] or 1.0)
    return Row(
        row["target"],
        formats.runtime_name(row["runtime"]),
        row["precision"],
        row["artifact"],
        _ms(row["p50_ms"]),
        _ms(row["p90_ms"]),
        _ms(row["p99_ms"]),
        "" if low is None or high is None else f"{_ms(low).split(' ')[0]} to {_ms(high)}",
        "fastest" if row is fastest else f"{units.digits(relative, 3)}{units.TIMES}",
        round(100 * row["p50_ms"] / widest, 2),
        None if low is None else round(100 * low / widest, 2),
        None if high is None else round(100 * high / widest, 2),
    )


def _ms(value: float | None) -> str:
    return units.NONE if value is None else units.said(units.milliseconds(value))


def _fastest(rows: list[dict[str, Any]]) -> str:
    first, second = rows[:2]
    who = f"{formats.runtime_name(first['runtime'])} with {first['target']}"
    said = f"{who} is fastest: {_ms(first['p50_ms'])} median"
    if not first["artifact"]:
        said += " (a float baseline, not one of the artifacts)"
    ratio = second["p50_ms"] / (first["p50_ms"] or 1.0)
    then = f"{second['target']} takes {units.digits(ratio, 3)}{units.TIMES} as long"
    if _overlap(first, second):
        then = f"{second['target']} cannot be told apart from it, the intervals overlap"
    return f"{said}; {then}."


def _overlap(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether the intervals of two medians overlap; without intervals they do not."""
    low_a, high_a, low_b, high_b = (r.get(k) for r in (a, b) for k in ("p50_low_ms", "p50_high_ms"))
    if low_a is None or high_a is None or low_b is None or high_b is None:
        return False
    return bool(low_a <= high_b and low_b <= high_a)


def _loses(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """That an int8 file is slower than the float file beside it in the same runtime; '' when it is not."""
    if row["precision"] != "int8":
        return ""
    floats = [r for r in rows if r["precision"] in formats.FLOAT and r["runtime"] == row["runtime"]]
    base = min(floats, key=lambda r: formats.FLOAT.index(r["precision"]), default=None)
    if base is None or row["p50_ms"] <= base["p50_ms"]:
        return ""
    ratio = units.digits(row["p50_ms"] / (base["p50_ms"] or 1.0), 3)
    unsure = ", though the intervals overlap" if _overlap(row, base) else ""
    return (
        f"{row['target']} is slower than its own float in {formats.runtime_name(row['runtime'])}: "
        f"{_ms(row['p50_ms'])} against {_ms(base['p50_ms'])} of {base['target']} "
        f"({ratio}{units.TIMES}){unsure}."
    )


def _settings(rows: list[dict[str, Any]]) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    """What was equal in every row that has it, what was not, and the other settings of each runtime."""
    known = [{meaning: v for k, v in _of(row) for meaning in (_meaning(k),) if meaning} for row in rows]
    held: list[str] = []  # in every row, and of one value
    partly: list[str] = []  # of one value in the rows that have it
    differing: list[str] = []
    for meaning in ("threads", "precision hint", "pinning"):
        values = [k[meaning] for k in known if meaning in k]
        words = list(dict.fromkeys(_spoken(meaning, value) for value in values))
        if len(words) == 1:
            (held if len(values) == len(rows) else partly).append(words[0])
        elif words:
            differing.append(f"{meaning} ({', '.join(words)})")
    if partly:
        held.append(f"and where a runtime can be told: {', '.join(partly)}")
    others: dict[str, dict[str, str]] = {}
    for row in rows:
        rest = {k: formats.setting(v) for k, v in _of(row) if _meaning(k) is None}
        others.setdefault(formats.runtime_name(row["runtime"]), {}).update(rest)
    return (
        ", ".join(held),
        ", ".join(differing),
        tuple(
            (name, ", ".join(f"{k} {v}" for k, v in rest.items())) for name, rest in others.items() if rest
        ),
    )


def _of(row: dict[str, Any]) -> list[tuple[str, Any]]:
    return list((row.get("settings") or {}).items())


def _meaning(key: str) -> str | None:
    plain = key.lower().replace(" ", "_")
    names = {"threads": _THREADS, "precision hint": _PRECISION, "pinning": _PINNING}
    return next((meaning for meaning, keys in names.items() if plain in keys), None)


def _spoken(meaning: str, value: Any) -> str:
    if meaning == "threads" and isinstance(value, int) and not isinstance(value, bool):
        return units.plural(value, "thread")
    if meaning == "pinning":
        off = str(value).lower() in ("false", "no", "off", "0")
        return "threads not pinned to cores" if off else "threads pinned to cores"
    return f"{meaning} {formats.setting(value)}"


def agreement(report: dict[str, Any]) -> Agreement | None:
    """Who answers like whom; None unless two artifacts were compared."""
    found = report.get("agreement")
    if not found or len(found["targets"]) < 2:
        return None
    limit, n = found.get("min_agreement"), len(found["targets"])
    rows = tuple(
        tuple(
            _cell(found["top1"][i][j], found["sqnr_db"][i][j], limit) if i != j else Cell("", "", None, False)
            for j in range(n)
        )
        for i in range(n)
    )
    worst = min((found["top1"][i][j], i, j) for i in range(n) for j in range(i))
    pairs = sorted((p for p in found["pairs"] if p["differ"]), key=lambda p: -p["differ"])
    differing = tuple((p["a"], p["b"], _parts(p, found["n"])) for p in pairs[:PAIRS_SHOWN])
    a, b = found["targets"][worst[2]], found["targets"][worst[1]]
    sentence = f"All {n} artifacts give the same answer on all {found['n']:,} images."
    if worst[0] < 100:
        said = units.said(units.percent(worst[0], 2))
        sentence = f"The two that agree least, {a} and {b}, agree on {said} of {found['n']:,} images."
    if limit is not None:
        sentence += f" At least {units.said(units.percent(limit, 2))} is asked."
    ok = None if limit is None else worst[0] >= limit
    return Agreement(tuple(found["targets"]), rows, sentence, ok, differing, max(0, len(pairs) - PAIRS_SHOWN))


def _cell(percent: float, sqnr_db: float | None, limit: float | None) -> Cell:
    apart = 100 - percent
    level = next((i for i, end in enumerate(_DISAGREEMENT) if apart <= end), len(_DISAGREEMENT))
    below = limit is not None and percent < limit
    return Cell(units.said(units.percent(percent, 2)), units.decibels(sqnr_db), level, below)


def _parts(pair: dict[str, Any], n: int) -> str:
    """'3 of 2,000 answers differ, SQNR 44.0 dB; they part first at a.b (conv2d)', with the SQNR around it."""
    said = f"{pair['differ']:,} of {n:,} answers {'differs' if pair['differ'] == 1 else 'differ'}"
    if pair["sqnr_db"] is not None:
        said += f", SQNR {units.decibels(pair['sqnr_db'])}"
    first = pair.get("divergence")
    if not first:
        return said
    before, after = first.get("sqnr_db_before"), first.get("sqnr_db")
    fall = f", SQNR {units.decibels(after)} after it" if after is not None else ""
    if before is not None and after is not None:
        fall = f", SQNR {units.decibels(before)} before and {units.decibels(after)} after it"
    return f"{said}; they part first at {first.get('module') or first['value']} ({first['op']}){fall}"
