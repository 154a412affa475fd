"""A sweep's report as pages: the content of sweep.json in, HTML with a chart and Markdown out.

One file in the look of the build report: it asks for nothing over a network and runs no script. The chart is
a box whose marks stand at percent positions, accuracy upwards, milliseconds (or bytes, where nothing was
timed) to the right; intervals are bars, the front a line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.report import template, units
from edgekit.report.facts import METRICS
from edgekit.report.markdown import code, table, text
from edgekit.sweep.report import failed

_COLOURS = 6  # of the page's style sheet
_MARGIN = 0.06  # of the axes, beyond the outermost marks
HEAD = ("", "what", "target", "accuracy", "median", "against the original", "bytes", "MACs", "gates")
Report = Mapping[str, Any]


def render_html(report: Report) -> str:
    """The page as text."""
    page = template.environment("edgekit.sweep").get_template("sweep.html.j2")
    return str(
        page.render(
            report=report,
            css=template.style("edgekit.sweep", "sweep.css"),
            title=title(report),
            sentence=sentence(report),
            chart=chart(report["rows"]),
            head=HEAD,
            rows=[(row, cells(i, row)) for i, row in enumerate(report["rows"], 1)],
            failed=failed(report),
        )
    )


def render_markdown(report: Report) -> str:
    """The same in Markdown."""
    rows = []
    for i, row in enumerate(report["rows"], 1):
        number, what, target, *rest = cells(i, row)
        mark = f"**{number}**" if row["front"] else number
        rows.append([mark, text(what), code(target), *map(text, rest)])
    lines = [f"# {text(title(report))}", "", text(sentence(report)), ""]
    lines += table(HEAD, rows, right=(3, 4, 5, 6, 7))
    if problems := failed(report):
        lines += ["", "## Not built", ""]
        lines += [f"- {text(p['label'])}: {text(p['status'])}, {text(p['reason'] or '')}" for p in problems]
    return "\n".join(lines) + "\n"


def title(report: Report) -> str:
    return f"{report['model']}: {units.plural(len(report['points']), 'point')}"


def sentence(report: Report) -> str:
    """What the table says and how it was come by."""
    on_front = sum(row["front"] for row in report["rows"])
    parts = [
        f"{on_front} of {units.plural(len(report['rows']), 'file')} on the front: no other is at least as"
    ]
    parts.append("accurate, as fast and as small, and better in one of these; their numbers are bold.")
    if any(row["p50_ms"] is not None for row in report["rows"]):
        parts.append(
            "Each was timed by itself in turns with the original's file; its median is the original's times "
            "their ratio in that run. Intervals are 95 %."
        )
    if report.get("weights") == "UNTRAINED":
        parts.append("The weights are untrained: accuracy means nothing.")
    return " ".join(parts)


def cells(number: int, row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the table in words."""
    ratio = units.NONE
    if row.get("ratio") is not None:
        ratio = f"{row['ratio']:.3f}{units.TIMES} ({row['ratio_low']:.3f} to {row['ratio_high']:.3f})"
    return (
        str(number),
        row["label"],
        row["target"],
        accuracy(row),
        units.NONE if row["p50_ms"] is None else units.said(units.milliseconds(row["p50_ms"])),
        ratio,
        units.said(units.size(row["size_bytes"])),
        units.said(units.count(row["macs"])),
        row["verdict"],
    )


def accuracy(row: Mapping[str, Any]) -> str:
    """'top-1 93.1 % (92.5 to 93.6)'; agreement or SQNR where nothing was labelled."""
    if row["accuracy"] is None:
        return units.NONE
    if row["metric"] == "sqnr":
        return units.decibels(row["accuracy"])
    name = METRICS.get(row["metric"], row["metric"])
    spread = ""
    if row["accuracy_low"] is not None:
        spread = f" ({row['accuracy_low']:.2f} to {row['accuracy_high']:.2f})"
    return f"{name} {units.said(units.percent(row['accuracy'], 2))}{spread}"


def chart(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Positions in percent of everything drawn; None where there is nothing to draw."""
    timed = all(row["p50_ms"] is not None for row in rows)
    key = "p50_ms" if timed else "size_bytes"
    shown = [(i, row) for i, row in enumerate(rows, 1) if row["accuracy"] is not None]
    if len(shown) < 2:
        return None
    lows = [_or(row["accuracy_low"], row["accuracy"]) for _, row in shown]
    highs = [_or(row["accuracy_high"], row["accuracy"]) for _, row in shown]
    left, right = _span([row[key] for _, row in shown])
    bottom, top = _span([*lows, *highs])
    targets = list(dict.fromkeys(row["target"] for _, row in shown))

    def x(value: float) -> float:
        return round(100 * (value - left) / (right - left), 2)

    def y(value: float) -> float:
        return round(100 * (top - value) / (top - bottom), 2)

    marks: list[dict[str, Any]] = [
        {
            "number": i,
            "row": row,
            "x": x(row[key]),
            "y": y(row["accuracy"]),
            "low": y(low),
            "high": y(high),
            "colour": targets.index(row["target"]) % _COLOURS,
            "words": f"{row['label']}, {row['target']}: {accuracy(row)}",
        }
        for (i, row), low, high in zip(shown, lows, highs, strict=True)
    ]
    line = sorted((mark["x"], mark["y"]) for mark in marks if mark["row"]["front"])
    said = units.milliseconds if timed else units.size
    metric = METRICS.get(shown[0][1]["metric"], shown[0][1]["metric"])
    unit = "dB" if metric == "sqnr" else "%"
    return {
        "marks": marks,
        "path": "M" + " L".join(f"{a} {b}" for a, b in line) if len(line) > 1 else "",
        "targets": [(name, i % _COLOURS) for i, name in enumerate(targets)],
        "across": [{"at": x(v), "text": units.said(said(v))} for v in _ticks(left, right)],
        "up": [{"at": y(v), "text": f"{v:.4g} {unit}"} for v in _ticks(bottom, top)],
        "x_name": "median latency" if timed else "size",
        "y_name": metric,
    }


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = _MARGIN * ((high - low) or abs(high) or 1.0)
    return low - margin, high + margin


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    return [low + (high - low) * (i + 0.5) / count for i in range(count)]
