"""The terminal: progress while a build runs, the table at its end, the list of models. Plain data in."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from edgekit.report import compare, facts, formats, outputs, units

_COLUMNS = 2  # so many targets stand side by side; more of them are rows
_PAIRS = 3
_WHOLE_ROW = 160
_WORTH_SAYING_S = 10.0
_MARKS = {True: ("✓", "green"), False: ("✗", "red"), None: ("-", "dim")}


class Line:
    """A running stage. Set `cached` when its result came from the store; `advance` shows how far it is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cached = False
        self.began = time.perf_counter()
        self._spinner = Spinner("dots")
        self._share: float | None = None
        self._first: tuple[float, float] | None = None  # the share it began with, and when

    def advance(self, done: int, total: int) -> None:
        """`done` of `total` pieces are finished."""
        before, self._share = self._share, done / total if total else None
        if self._share is not None and (before is None or self._share < before):
            self._first = self._share, time.perf_counter()

    def left(self, now: float) -> float | None:
        """Seconds until the end at the pace so far; None while there is none, and below ten seconds."""
        if self._share is None or self._first is None or self._share <= self._first[0]:
            return None
        start, began = self._first
        left = (now - began) * (1.0 - self._share) / (self._share - start)
        return left if left >= _WORTH_SAYING_S else None

    def __rich_console__(self, _console: Console, _options: Any) -> Iterator[Any]:
        took = time.perf_counter() - self.began
        row = Text.assemble(
            self._spinner.render(time.perf_counter()),  # type: ignore[arg-type]
            " ",
            f"{self.name:<24}",
            (f"{units.seconds(took):>8}", "dim"),
        )
        if self._share is not None:
            row.append(f"  {self._share:4.0%}", "cyan")
            left = self.left(time.perf_counter())
            if left is not None:
                row.append(f"  {units.seconds(left)} left", "dim")
        yield row


class Progress:
    """Stages as they run and as they finish, each with its seconds and whether it was cached.

    with Progress() as progress:
        with progress.stage("capture") as line:
            line.advance(3, 10)

    On a terminal the running stage is live; in a file or a pipe only finished stages are printed.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._running: list[Line] = []
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(
                console=self.console, transient=True, refresh_per_second=8, get_renderable=self._render
            )
            self._live.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _render(self) -> Group:
        return Group(*self._running)

    @contextmanager
    def stage(self, name: str) -> Iterator[Line]:
        """A stage: printed when it ends, marked when it raised."""
        line = Line(name)
        self._running.append(line)
        ok = False
        try:
            yield line
            ok = True
        finally:
            self._running.remove(line)
            if self._live is not None:
                self._live.refresh()
            mark, colour = _MARKS[ok]
            took = units.seconds(time.perf_counter() - line.began)
            row = Text.assemble((mark, colour), " ", f"{name:<24}", (f"{took:>8}", "dim"))
            if line.cached:
                row.append("  cached", "cyan")
            if not ok:
                row.append("  stopped", "red")
            self.console.print(row)


def print_summary(report: dict[str, Any], directory: str | Path, console: Console | None = None) -> None:
    """The end of a build: size, accuracy, latency, partitions, every gate, where the files are.

    Args:
        report: as in report.json.
        directory: where report.json lies; printed paths start with it.
    """
    console = console or Console(highlight=False)
    console.print()
    if facts.untrained(report):
        console.print(Text(" UNTRAINED weights: accuracy means nothing ", "bold black on yellow"))
    console.print(_figures(report))
    for part in (_runtimes(report), _agreement(report)):
        if part is not None:
            console.print(Padding(part, (1, 0, 0, 0)))
    console.print(Padding(_gates(report), (1, 0)))
    for line in facts.about_data(report):
        console.print(Text(line, "yellow"))
    if said := outputs.task_sentence(report):
        console.print(Text(f"task {said}", "dim"))
    verdict = facts.verdict(report)
    mark, colour = _MARKS[verdict.ok]
    console.print(Text.assemble((f"{mark} {verdict.word}. ", f"bold {colour}"), verdict.sentence))
    root = Path(directory)
    for artifact in report["artifacts"].values():
        console.print(Text(f"  {root / artifact['path']}"), soft_wrap=True)
    console.print(Text(f"  {root / 'report.html'}"), soft_wrap=True)


def _figures(report: dict[str, Any]) -> Table:
    """One column a target, figures down the side; with many targets one row each."""
    if len(report["artifacts"]) > _COLUMNS:
        return _figure_rows(report)
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_header=True)
    table.add_column(Text(report["model"], "bold"), style="dim", max_width=32, overflow="fold")
    targets = list(report["artifacts"])
    for name in targets:
        table.add_column(Text(name, "bold"), overflow="fold")
    for label, say in _ROWS:
        cells = [say(report, name) for name in targets]
        if any(cells):
            table.add_row(label, *(Text(cell or units.NONE) for cell in cells))
    return table


def _figure_rows(report: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(Text(report["model"], "bold"), max_width=32, overflow="fold")
    for title in ("size", "accuracy", "drop", "p50 / p90 / p99", "against float", "int8"):
        table.add_column(Text(title, "dim"), justify="right")
    for name, artifact in report["artifacts"].items():
        drift, latency = artifact.get("drift"), artifact.get("latency")
        accuracy, speed = facts.accuracy_figure(report, name), facts.latency_figure(report, name)
        drop = drift["drop"] if drift and facts.labelled(drift) else None
        table.add_row(
            Text(name),
            facts.size_figure(report, name).text,
            accuracy.text if accuracy else units.NONE,
            units.NONE if drop is None else units.points(drop),
            facts.percentiles(latency) if latency else units.NONE,
            (speed.comparison if speed else "").split(" than ")[0] or units.NONE,
            _int8(report, name),
        )
    return table


def _size(report: dict[str, Any], name: str) -> str:
    figure = facts.size_figure(report, name)
    return f"{figure.text}, {figure.comparison}"


def _float_accuracy(report: dict[str, Any], name: str) -> str:
    drift = report["artifacts"][name].get("drift")
    if not drift or not facts.labelled(drift) or drift["reference"] is None:
        return ""
    return f"{facts.metric(drift)} {units.said(units.percent(drift['reference']))} ({drift['n']:,} images)"


def _accuracy(report: dict[str, Any], name: str) -> str:
    drift = report["artifacts"][name].get("drift")
    figure = facts.accuracy_figure(report, name)
    if not drift or figure is None:
        return ""
    if not facts.labelled(drift):
        return f"{figure.text} {figure.comparison}"
    spread = facts.interval(drift)
    drop = "" if drift["drop"] is None else f", drop {units.points(drift['drop'])} points"
    return f"{facts.metric(drift)} {figure.text}{drop}" + (f" ({spread})" if spread else "")


def _latency(report: dict[str, Any], name: str) -> str:
    latency = report["artifacts"][name].get("latency")
    figure = facts.latency_figure(report, name)
    if not latency or figure is None:
        return ""
    return ", ".join(part for part in (facts.percentiles(latency), figure.comparison) if part)


def _float_latency(report: dict[str, Any], name: str) -> str:
    latency = report["artifacts"][name].get("latency")
    if not latency or latency["float_p50_ms"] is None or facts.is_baseline(report, name):
        return ""
    return facts.percentiles(latency, "float_")


def _partitions(report: dict[str, Any], name: str) -> str:
    audit = report["artifacts"][name]["audit"]
    if audit["partitions"] is None or not formats.words(name).delegates:
        return ""
    outside = facts.tally(audit["undelegated_ops"])
    rest = f", {units.plural(outside, 'operator')} outside" if outside else ""
    return f"{audit['partitions']}{rest}"


def _calibration(report: dict[str, Any], name: str) -> str:
    quantize = report["artifacts"][name].get("quantize") or {}
    if not quantize.get("chosen"):
        return ""
    gain = (quantize.get("gain_db") or {}).get("median")
    unseen = units.plural(quantize["judged_images"], "unseen image")
    if gain is None or quantize["chosen"] == quantize["plain"]:
        return f"{quantize['chosen']} ({unseen})"
    return f"{quantize['chosen']}: {units.decibels(gain, signed=True)} over {quantize['plain']} ({unseen})"


def _int8(report: dict[str, Any], name: str) -> str:
    return units.share(report["artifacts"][name]["audit"]["int8_ops_share"])


_ROWS = (
    ("size", _size),
    ("accuracy", _accuracy),
    ("  float", _float_accuracy),
    ("calibration", _calibration),
    ("p50 / p90 / p99", _latency),
    ("  float", _float_latency),
    ("int8 operators", _int8),
    ("partitions", _partitions),
)


def _runtimes(report: dict[str, Any]) -> Group | None:
    """Fastest first: median, tails, times the fastest."""
    found = compare.speeds(report)
    if found is None:
        return None
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(Text("runtimes", "bold"), overflow="fold")
    table.add_column("", style="dim", overflow="fold")
    for title in ("p50", "p90", "p99", ""):
        table.add_column(Text(title, "dim"), justify="right", no_wrap=title == "p50")
    for row in found.rows:
        table.add_row(
            Text(row.target, "" if row.artifact else "dim"),
            Text(row.runtime),
            Text(row.p50),
            Text(row.p90),
            Text(row.p99),
            Text(row.relative, "green" if row is found.rows[0] else ""),
        )
    said = [Text(f"held equal: {found.held}", "dim")] if found.held else []
    if found.differing:
        said.append(Text(f"not held equal: {found.differing}", "yellow"))
    return Group(table, *said, *(Text(line, "yellow") for line in found.slower))


def _agreement(report: dict[str, Any]) -> Group | None:
    """Percent of images with the same answer; columns are numbered as the rows are."""
    found = compare.agreement(report)
    if found is None:
        return None
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(Text("agreement", "bold"), overflow="fold")
    for i in range(len(found.targets)):
        table.add_column(Text(str(i + 1), "dim"), justify="right")
    for i, (name, row) in enumerate(zip(found.targets, found.rows, strict=True), start=1):
        cells = [
            Text("·", "dim") if cell.level is None else Text(cell.agreement, "red" if cell.below else "")
            for cell in row
        ]
        table.add_row(Text.assemble((f"{i} ", "dim"), name), *cells)
    said = [Text(f"{a} and {b}: {words}", "dim") for a, b, words in found.differing[:_PAIRS]]
    return Group(table, Text(found.sentence, "yellow" if found.ok is False else "dim"), *said)


def _gates(report: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(width=1)
    table.add_column(max_width=24, overflow="fold")
    several = len(report["artifacts"]) > 1
    if several:
        table.add_column(style="dim", max_width=24, overflow="fold")
    table.add_column(overflow="fold")
    for gate in report["gates"]:
        mark, colour = _MARKS[gate["ok"] if facts.judged(gate) else None]
        detail = Text(gate["detail"])
        if not gate["ok"] and gate.get("hint"):
            detail.append(f"\ntry: {gate['hint']}", "yellow")
        target = [Text(gate.get("target") or "")] if several else []
        table.add_row(Text(mark, colour), Text(gate["name"]), *target, detail)
    return table


def models_table(models: Iterable[Any], console: Console | None = None) -> None:
    """The catalogue for `edgekit models`: rows with name, source, params, gmacs, resolution, weights."""
    console = console or Console(highlight=False)
    # In a file or a pipe a line holds a whole row, for those who search it.
    whole = not console.is_terminal and "COLUMNS" not in os.environ
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("model", overflow="fold", no_wrap=whole)
    table.add_column("source", no_wrap=True)
    for title in ("params", "GMACs", "input"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("weights", no_wrap=True)
    for row in models:
        table.add_row(
            Text(row.name),
            Text(row.source, "dim"),
            units.said(units.count(row.params)),
            f"{row.gmacs:.3f}",
            str(row.resolution),
            Text(row.weights, "green" if row.weights == "reference" else ""),
        )
    console.print(table, width=max(console.width, _WHOLE_ROW) if whole else None)
