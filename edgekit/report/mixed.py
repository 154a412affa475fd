"""The sections on mixed precision: what was asked, error against milliseconds, which nodes are not int8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.report import units
from edgekit.report.section import Section

_ROWS_SHOWN = 60
_BARS = 24  # characters that the longest bar takes
_BAR = "\N{BLACK SQUARE}"
_WORDS = {"int8": "int8 alone", "mixed": "mixed", "float": "float"}
_WHERE = "What leaves and enters the model stays int8."


def sections(report: dict[str, Any]) -> list[Section]:
    """Of every artifact whose precisions were chosen or named."""
    found = []
    for target, artifact in report["artifacts"].items():
        record = (artifact.get("quantize") or {}).get("mixed")
        if record is None:
            continue
        if record.get("points"):
            found.append(_curve(target, record))
        if record.get("nodes"):
            found.append(_nodes(target, record))
    return found


def _curve(target: str, record: Mapping[str, Any]) -> Section:
    """Error against milliseconds."""
    points = sorted(record["points"], key=lambda point: point["ms"])
    most = max(point["ms"] for point in points)
    rows = tuple(
        (
            _WORDS.get(point["name"], point["name"]),
            units.said(units.milliseconds(point["ms"])),
            units.decibels(point["sqnr_db"]),
            _BAR * max(1, round(_BARS * point["ms"] / most)),
        )
        for point in points
    )
    return Section(
        f"Mixed precision of {target}",
        _sentence(record),
        ("precision", "measured", "answers against float", "milliseconds"),
        rows,
        numbers=1,
    )


def _sentence(record: Mapping[str, Any]) -> str:
    (asked,) = record["asked"].items()
    name, value = asked
    wanted = {
        "latency_ms": f"at most {value:g} ms",
        "ratio": f"at most {value:g}{units.TIMES} the time of int8",
        "sqnr_db": f"{value:g} dB",
        "drop": f"at most {100 * value:g} points lost",
    }[name]
    last = record["tries"][-1]
    said = [
        f"Asked for {wanted} on {record.get('device', 'host')}. {units.plural(last['nodes'], 'node')} not in "
        f"int8: predicted {last['predicted_ms']:.3f} ms, measured {last['measured_ms']:.3f}, "
        f"{units.plural(len(record['tries']), 'file')} timed. "
        f"Decibels on {units.plural(record['images'], 'calibration image')} that nothing was fitted to."
    ]
    if record.get("why"):
        why = record["why"]
        said.append(f"{why[0].upper()}{why[1:]}.")
    return " ".join(said)


def _nodes(target: str, record: Mapping[str, Any]) -> Section:
    """Which nodes, and why: what each takes of the noise, and what it costs."""
    ordered: Sequence[dict[str, Any]] = sorted(record["nodes"], key=lambda row: -row.get("noise_share", 0.0))
    rows = [
        (
            row["module"] or "top level",
            row["op"],
            row["precision"],
            units.share(row["noise_share"]) if "noise_share" in row else units.NONE,
            _change(row["ms"]) if "ms" in row else units.NONE,
        )
        for row in ordered[:_ROWS_SHOWN]
    ]
    if more := len(ordered) - len(rows):
        rows.append((f"and {units.plural(more, 'more row')}", "in report.json", "", "", ""))
    return Section(
        f"What is not int8 in {target}",
        f"{_WHERE} Shares are of the noise that int8 alone leaves in the outputs; times are against int8.",
        ("module", "operator", "precision", "noise it takes", "time"),
        tuple(rows),
        numbers=3,
    )


def _change(ms: float) -> str:
    sign = units.MINUS if ms < 0 else "+"
    return f"{sign}{1000 * abs(ms):.1f} \N{MICRO SIGN}s"
