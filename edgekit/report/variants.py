"""The sections on variants: what was made of the original, what that saves, and what was changed where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgekit.report import ladder, units
from edgekit.report.facts import METRICS
from edgekit.report.section import Section

_COUNTS = ("params", "macs")
_ROWS_SHOWN = 60


def sections(report: dict[str, Any]) -> list[Section]:
    """From the original on; none where nothing was changed."""
    found = report.get("variants") or []
    if not found:
        return []
    trained = any(row["step"] == "train" for row in found)
    made = [section for row in found for section in _of_step(row, trained)]
    return [_chain(found), *_files(found), *made]


def _chain(found: Sequence[dict[str, Any]]) -> Section:
    rows = tuple(
        (
            row["step"],
            row["name"],
            *(_beside(row[key], found[0][key], row is found[0]) for key in _COUNTS),
            _bytes(row.get("peak_activation_bytes")),
            _accuracy(row),
        )
        for row in found
    )
    return Section(
        "What was made of the original",
        "Accuracy, agreement and noise on this page are against the first row.",
        ("step", "model", "parameters", "MACs", "peak activation, float", "in float"),
        rows,
        numbers=2,
    )


def _files(found: Sequence[dict[str, Any]]) -> list[Section]:
    """What each form takes of the machine, beside the original's files in the same run."""
    rows = [
        (
            row["step"],
            one["target"],
            _bytes(one.get("size_bytes")),
            *_predicted(one),
            *_timed(one, ""),
            *_timed(one, "float_"),
        )
        if "reason" not in one
        else (row["step"], one["target"], f"not built: {one['reason']}", *5 * [units.NONE])
        for row in found
        for one in row.get("targets") or ()
    ]
    if not rows:
        return []
    head = (
        "step", "target", "bytes", "predicted", "median", "against the original", "float median",
        "against the original",
    )  # fmt: skip
    sentence = (
        "Timed in turns with the original's files in the same processes, with 95 % intervals. A step "
        "that only changes weights takes what the step before it takes."
    )
    return [Section("What each form takes", sentence, head, tuple(rows), numbers=2)]


def _predicted(one: dict[str, Any]) -> tuple[str]:
    return (_milliseconds(one.get("predicted_ms")),)


def _timed(one: dict[str, Any], of: str) -> tuple[str, str]:
    """Median, and its ratio to the original's with the interval."""
    against, ratio = units.NONE, one.get(f"{of}ratio")
    if ratio is not None:
        low, high = one.get(f"{of}ratio_low"), one.get(f"{of}ratio_high")
        spread = f" ({low:.3f} to {high:.3f})" if low is not None and high is not None and low < high else ""
        against = f"{ratio:.3f}{units.TIMES}{spread}"
    return _milliseconds(one.get(f"{of}p50_ms")), against


def _of_step(row: dict[str, Any], trained: bool) -> list[Section]:
    """What a step says it changed, and what it left. trained: whether training is a step of this chain."""
    record = row.get("record") or {}
    lines = [*(record.get("notes") or ())]
    if (images := record.get("fitted")) and not trained and not record.get("recovered"):
        lines.append(
            f"Recovered in closed form alone, on {units.plural(images, 'image')}: no training followed."
        )
    step, notes = row["step"], " ".join(lines)
    found = []
    for key, title, sentence, head in (
        ("changed", f"What {step} changed", notes, ("module", "what")),
        ("left", f"What {step} left as it was", "Named with the reason.", ("module", "reason")),
    ):
        if rows := record.get(key):
            shown = [(line["module"] or "top level", line[head[1]]) for line in rows[:_ROWS_SHOWN]]
            if more := len(rows) - len(shown):
                shown.append((f"and {units.plural(more, 'more row')}", "in report.json"))
            found.append(Section(title, sentence, head, tuple(shown), numbers=2))
    if rungs := record.get("ladder"):
        found.insert(0, ladder.section(step, rungs, record.get("max_drop")))
    if notes and not record.get("changed"):
        said = tuple((note,) for note in lines)
        found.insert(0, Section(f"What {step} did", "In its own words.", ("",), said, numbers=1))
    return found


def _accuracy(row: dict[str, Any]) -> str:
    """Its figure where there are labels, and how far its outputs are from the original's."""
    said = []
    if row.get("metric") in METRICS and row.get("figure") is not None:
        said.append(f"{METRICS[row['metric']]} {units.said(units.percent(row['figure'], 2))}")
    if row.get("drop") and said:
        low, high = row.get("ci_low"), row.get("ci_high")
        spread = ""
        if low is not None and high is not None:
            spread = f" (95 % interval {units.points(-high)} to {units.points(-low)})"
        said.append(f"{units.points(-row['drop'])} points{spread}")
    if row.get("sqnr_db") is not None:
        said.append(units.decibels(row["sqnr_db"]))
    return ", ".join(said) or units.NONE


def _bytes(value: float | None) -> str:
    return units.NONE if value is None else units.said(units.size(value))


def _milliseconds(value: float | None) -> str:
    return units.NONE if value is None else units.said(units.milliseconds(value))


def _beside(value: int, original: int, first: bool) -> str:
    share = "" if first or not original else f" ({value / original:.2f}{units.TIMES})"
    return f"{units.said(units.count(value))}{share}"
