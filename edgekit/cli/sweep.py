"""`edgekit sweep`: arguments and printing; edgekit.cli.main mounts it by name.

Imports nothing but typer until the command runs.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.errors import GateError, UsageError

if TYPE_CHECKING:
    from edgekit.pipeline.recipe import Recipe
    from edgekit.sweep.plan import Point

app = typer.Typer(rich_markup_mode=None)


@app.callback()
def _root() -> None:
    """A group of one, as edgekit.cli.main mounts it."""


@app.command()
def sweep(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A TOML recipe, or a model's name.")],
    grid: Annotated[
        list[str] | None,
        typer.Option(
            "--grid",
            metavar="KEY=A,B,C",
            help="A setting of the recipe (quantize.profile=fast,thorough); repeat for every combination.",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", metavar="3ms,4ms", help="Pruned to each of these latencies."),
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", help="As in build; repeat for several.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help="As in build.")] = None,
    weights: Annotated[str | None, typer.Option("--weights", help="As in build.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Points and report; default build/sweep-MODEL.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option("--scheduler", help="tcp://HOST:PORT of a `dask scheduler`; default this machine."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Points at once here, sharing the cores; default half.")
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Minutes a point may take.")] = 240.0,
    latency: Annotated[
        str | None, typer.Option("--latency", help="As in build: quick, publish, off.")
    ] = None,
    trust: Annotated[bool, typer.Option("--trust", help="As in build.")] = False,
    cache: Annotated[Path | None, typer.Option(help="Stage results; default $EDGEKIT_CACHE.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Build a recipe in many forms, and say which are worth having: accuracy, latency, size.

    Points are built side by side and timed afterwards, one at a time, in turns with the original. A point
    that fails costs that point; the same command goes on where it was.
    """
    from edgekit.files import write_atomic
    from edgekit.pipeline.finished import read_report
    from edgekit.sweep import measure, page, plan, report, run

    base = _recipe(
        recipe, {"weights": weights, "data": {"source": data}, "target": {"names": target or None}}
    )
    if latency is not None:
        base = replace(base, device=replace(base.device, profile=_profile(latency)))
    points = plan.plan(base, grid or [], budget)
    if len(points) == 1:
        raise UsageError("edgekit sweep: nothing is varied: --grid KEY=a,b or --budget 3ms,4ms")
    out = out or Path("build", f"sweep-{Path(recipe).stem}")
    cores = len(os.sched_getaffinity(0))
    workers = workers or max(1, cores // 2)
    if workers < 1 or timeout <= 0:
        raise UsageError(
            f"edgekit sweep: --workers {workers}, --timeout {timeout:g}: at least 1, more than 0"
        )
    with run.held(out):
        display = _Lines(sum(run.finished(out, point) is None for point in points))
        results = run.run(
            points,
            out,
            workers=workers,
            scheduler=scheduler,
            timeout_s=60 * timeout,
            cache=str(cache) if cache else None,
            trust=trust,
            on_row=display.built,
        )
        done = [point for point in points if results[point.id]["status"] == "done"]
        reports = {point.id: read_report(run.folder_of(out, point) / "build") for point in done}
        times = measure.measure(out, points, reports, base.device, display.timing)
        found = report.build(points, results, reports, times)
        write_atomic(out / "sweep.json", json.dumps(found, indent=1) + "\n")
        write_atomic(out / "sweep.html", page.render_html(found))
        write_atomic(out / "sweep.md", page.render_markdown(found))
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        _print(found)
        print(out / "sweep.html")
    if problems := report.failed(found):
        said = "; ".join(f"{p['label']}: {p['reason']}" for p in problems[:3])
        raise GateError(f"sweep: {len(problems)} of {len(points)} points were not built: {said}")


def _recipe(given: str, flags: dict[str, Any]) -> Recipe:
    """A recipe's file, or what `edgekit build NAME` would start from."""
    from edgekit.pipeline import recipe as recipes

    if given.endswith(".toml"):
        return recipes.load(given, flags)
    settings = {"model": given, **flags}
    start = recipes.shipped_for(given)
    if start is not None:
        return recipes.load(start, settings)
    return recipes.from_dict(recipes.without_none(settings), "edgekit sweep")


def _profile(name: str) -> Any:
    if name not in ("quick", "publish", "off"):
        raise UsageError(f"--latency {name}: quick, publish or off")
    return name


class _Lines:
    """A line a point on standard error."""

    def __init__(self, total: int) -> None:
        self._total, self._built = total, 0

    def built(self, point: Point, row: dict[str, Any]) -> None:
        self._built += 1
        reason = f": {row['reason']}" if row["reason"] else f" in {row['seconds']:.0f} s"
        print(
            f"[{self._built}/{self._total}] {point.label}: {row['status']}{reason}",
            file=sys.stderr,
            flush=True,
        )

    def timing(self, point: Point) -> None:
        print(f"timing {point.label}", file=sys.stderr, flush=True)


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from edgekit.sweep import page

    table = Table(box=None, pad_edge=False)
    for i, column in enumerate(page.HEAD):
        table.add_column(column, justify="right" if 3 <= i <= 7 else "left")
    for i, row in enumerate(found["rows"], 1):
        cells = page.cells(i, row)
        table.add_row(*(Text(cell, "bold" if row["front"] else "") for cell in cells))
    width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "160"))
    console = Console(width=width, highlight=False)
    console.print(table)
    console.print(page.sentence(found), markup=False)
