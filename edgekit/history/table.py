"""History on a terminal: a sparkline and a table for each series. Series in, text out."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.text import Text

from edgekit.history.record import Record, timestamp
from edgekit.history.store import Series

BARS = "▁▂▃▄▅▆▇█"
INVALID = "×"
_POINTS = 60
_SMALLEST_SPAN = 0.03  # of the median: what is no regression must not look like a cliff
_NUMBERS = ("p50 ms", "change", "p90 ms", "p99 ms", "samples")
_COLUMNS = ("run", "created (UTC)", *_NUMBERS, "artifact", "valid")


def sparkline(runs: Sequence[Record]) -> str:
    """p50 of the last runs, oldest first, an INVALID run as ×."""
    runs = runs[-_POINTS:]
    valid = [record["latency"]["p50_ms"] for record in runs if record["validity"]["ok"]]
    if not valid:
        return INVALID * len(runs)
    low = min(valid)
    span = max(max(valid) - low, _SMALLEST_SPAN * statistics.median(valid))
    return "".join(
        BARS[min(len(BARS) - 1, int((record["latency"]["p50_ms"] - low) / span * len(BARS)))]
        if record["validity"]["ok"]
        else INVALID
        for record in runs
    )


def print_series(found: Iterable[Series], console: Console | None = None) -> None:
    """One heading with the conditions and the course of p50, and one row a run, newest first.

    Lines are never cut: half a run id is of no use.
    """
    console = console or Console()
    for i, series in enumerate(found):
        lines = _lines(series)
        console.print(Text("\n" if i else "").append_text(_heading(series)), soft_wrap=True)
        console.print(Text(lines[0], "dim"), soft_wrap=True)
        for line in lines[1:]:
            console.print(Text(line), soft_wrap=True)


def _heading(series: Series) -> Text:
    threads = "1 thread" if series.threads == 1 else f"{series.threads} threads"
    conditions = [threads, series.delegate or "no delegate", series.power_mode, series.profile]
    return Text.assemble(
        (f"{series.model} {series.target} on {series.device}", "bold"),
        f"  {', '.join(text for text in conditions if text)}  ",
        (sparkline(series.runs), "cyan"),
    )


def _lines(series: Series) -> list[str]:
    rows, previous = [], None
    for record in series.runs:
        latency, ok = record["latency"], record["validity"]["ok"]
        change = f"{100 * (latency['p50_ms'] / previous - 1):+.1f} %" if ok and previous else ""
        rows.append(
            (
                record["run"],
                timestamp(record["created"])[:16].replace("T", " "),
                f"{latency['p50_ms']:.4g}",
                change,
                *(f"{latency[key]:.4g}" if latency.get(key) else "" for key in ("p90_ms", "p99_ms")),
                f"{latency['n']} in {latency['processes']}",
                record["artifact"]["sha256"][:12],
                "yes" if ok else f"INVALID: {' '.join('; '.join(record['validity']['reasons']).split())}",
            )
        )
        previous = latency["p50_ms"] if ok else previous
    cells = [_COLUMNS, *reversed(rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(_COLUMNS))]
    return ["  ".join(map(_aligned, row, widths, _COLUMNS)).rstrip() for row in cells]


def _aligned(cell: str, width: int, column: str) -> str:
    return cell.rjust(width) if column in _NUMBERS else cell.ljust(width)
