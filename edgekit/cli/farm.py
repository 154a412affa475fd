"""`edgekit farm run|worker|status`: arguments and printing; edgekit.cli.main mounts them by name.

Imports nothing but typer until a command runs.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.errors import GateError, UsageError

if TYPE_CHECKING:
    from edgekit.farm.plan import Plan, Settings
    from edgekit.farm.run import Run

app = typer.Typer(rich_markup_mode=None)
farm = typer.Typer(
    help="Models x boards as a queue of jobs, and one report over all of them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(farm, name="farm")

_ROWS_SHOWN = 60
SchedulerOption = Annotated[
    str | None, typer.Option("--scheduler", help="tcp://HOST:PORT of a `dask scheduler` that has edgekit.")
]
InventoryOption = Annotated[
    Path | None, typer.Option("--inventory", help="devices.toml; default $EDGEKIT_DEVICES or the user's.")
]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", help="Directory of the run: journal, results, report.")
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@farm.command()
def run(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[DIR]...", help="Build directories, bundles or model files."),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option("--device", help="Ids, or tag:NAME; default this machine, or all of the scheduler's."),
    ] = None,
    profile: Annotated[str, typer.Option(help="quick, publish or sustained.")] = "quick",
    minutes: Annotated[float | None, typer.Option(help="Length of a sustained run; default 10.")] = None,
    runtime: Annotated[str | None, typer.Option(help="litert, onnxruntime, benchmark_model ...")] = None,
    delegate: Annotated[
        str | None, typer.Option(help="What must run the model, e.g. xnnpack or none.")
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of the runtime.")] = 1,
    images: Annotated[int, typer.Option(help="Evaluation images to compare answers on; 0 for none.")] = 32,
    wait: Annotated[float, typer.Option("--wait", help="Seconds to wait for a board someone holds.")] = 60.0,
    patience: Annotated[
        float,
        typer.Option("--patience", help="Seconds a board may be without a worker before it is given up."),
    ] = 60.0,
    scheduler: SchedulerOption = None,
    out: OutOption = Path("build/farm"),
    history: Annotated[
        Path | None,
        typer.Option("--history", help="The SQLite file; default $EDGEKIT_HISTORY or the user's."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Finish the run in --out: same models, boards and settings.")
    ] = False,
    inventory: InventoryOption = None,
    debug: DebugOption = False,
) -> None:
    """Measure every model on every board, then write one report.

    Without --scheduler the boards of this machine's inventory are used, in this process. Jobs that failed by
    themselves are not repeated; a lost link is tried again twice; three failures of a board in a row end its
    part of the run. What is finished is kept: Ctrl-C frees the boards and writes the report of what there is,
    a second one stops at once, and --resume goes on, with the same models, boards, settings and scheduler
    unless given.

    Exit codes: 0 all measured, valid and not slower than before; 1 otherwise; 2 unusable arguments; 130
    interrupted.
    """
    from edgekit.farm import plan, report, state
    from edgekit.farm.run import Run
    from edgekit.farm.scheduler import check_installed, connect, find_boards
    from edgekit.history import History

    check_installed()
    settings = plan.Settings(profile, minutes, runtime, delegate, threads, images, wait)
    asked: dict[str, Any] = {
        "paths": [str(path.resolve()) for path in paths or ()],
        "device": device or [],
        "scheduler": scheduler,
        "inventory": str(inventory.resolve()) if inventory else None,
        "history": str(history.resolve()) if history else None,
    }
    if resume and not paths:
        header, _ = state.read(out)
        given = {name: value for name, value in asked.items() if value}
        asked, settings = asked | header["asked"] | given, plan.Settings(**header["settings"])
    settings.check()
    artifacts = plan.find_artifacts(asked["paths"])
    devices, names = [], asked["device"]
    if not asked["scheduler"]:
        devices = _devices(asked["inventory"], names)
        names = [board.id for board in devices]
    with connect(asked["scheduler"], devices) as client, History(asked["history"]) as store:
        boards = find_boards(client, names)
        work = plan.plan(artifacts, boards, settings)
        with _journal(out, work, asked, settings, resume) as journal:
            with _Progress(len(work.jobs)) as display:
                going = Run(
                    client,
                    work.jobs,
                    boards,
                    journal,
                    store,
                    patience_s=patience,
                    on_row=display.row,
                    on_interrupt=display.interrupted,
                )
                display.kept(len(going.rows))
                with _interruptible(going):
                    going.go()
            about = {board.id: {**board.about, "bad": board.bad} for board in going.boards.values()}
            found = report.build(
                journal,
                list(going.rows.values()),
                about,
                store,
                work.skipped,
                _resume(out),
                going.interrupted,
            )
            page = report.write(out, found)
    _print_report(found)
    print(page)
    if going.interrupted:
        _say_interrupted(going, found)
        raise typer.Exit(130)
    if problem := report.complaint(found):
        raise GateError(f"farm run: {problem}")


@farm.command()
def worker(
    scheduler: Annotated[str, typer.Option("--scheduler", help="tcp://HOST:PORT of a `dask scheduler`.")],
    device: Annotated[
        list[str] | None, typer.Option("--device", help="Ids, or tag:NAME; default every board.")
    ] = None,
    inventory: InventoryOption = None,
    debug: DebugOption = False,
) -> None:
    """Offer the healthy boards of this host to a scheduler, each to one job at a time, until stopped.

    Nothing but the network is shared with the client: models travel here, results back. Where the pictures a
    bundle was evaluated on are not on this host, answers are compared on its golden vectors.

    Whoever reaches the scheduler can run code here: keep it on a network of your own, or give dask TLS
    certificates in its configuration.
    """
    from edgekit.farm.scheduler import check_installed

    check_installed()
    from edgekit.device.inventory import load_inventory
    from edgekit.farm.worker import serve

    boards = load_inventory(inventory)
    serve(
        scheduler,
        boards.select(device or list(boards.devices)),
        lambda text: print(text, file=sys.stderr, flush=True),
    )


@farm.command()
def status(
    scheduler: SchedulerOption = None,
    out: OutOption = Path("build/farm"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: DebugOption = False,
) -> None:
    """Show boards, what runs on each and since when, and how much is queued.

    With --scheduler the workers are asked; without, what the run in --out last said.
    """
    from edgekit.farm.run import read_status

    found = _of_scheduler(scheduler) if scheduler else _of_directory(read_status(out), out)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for line in found["runs"]:
        print(line)
    for board, row in found["boards"].items():
        doing = f"{row['job']} since {row['since']}" if row["job"] else "idle"
        if row.get("doing"):
            doing += f" ({row['doing']})"
        state = f"BAD: {row['bad']}" if row["bad"] else doing if row["workers"] else "no worker has it"
        print(f"{board:<16} {row['kind']:<13} {row['queued']:>4} queued  {state}")


def _of_directory(said: dict[str, Any] | None, out: Path) -> dict[str, Any]:
    if said is None:
        raise UsageError(f"farm status: {out}: no run there: --out of a run, or --scheduler")
    line = f"{said['run']} of {said['client']}: {said['ended']} jobs ended, {said['left']} left"
    if said["over"]:
        line += f", over: `{_resume(out)}` goes on" if said["left"] else ", over"
    elif not Path(f"/proc/{said['process']}").exists():
        line += f", its client is gone: `{_resume(out)}` goes on"
    else:
        line += f", as of {time.time() - said['time']:.0f} s ago"
    return {"runs": [line], "boards": said["boards"]}


def _of_scheduler(address: str) -> dict[str, Any]:
    """What the workers say, and the queues that the clients made known."""
    from edgekit.farm.run import METADATA
    from edgekit.farm.scheduler import connect
    from edgekit.farm.worker import describe

    lines: list[str] = []
    boards: dict[str, dict[str, Any]] = {}
    with connect(address, ()) as client:
        answers = client.run(describe)
        runs = client.get_metadata([METADATA], default={})

    def row_of(board: str, about: dict[str, Any]) -> dict[str, Any]:
        known = {"kind": about["kind"], "bad": about["bad"], "workers": [], "job": None, "since": None}
        return boards.setdefault(board, known | {"queued": 0})

    for answer in answers.values():
        for board, about in answer["boards"].items():
            row = row_of(board, about)
            place = f"{answer['host']}:{answer['process']}"
            row["workers"] = sorted({*row["workers"], place})
            row |= answer["running"].get(board, {})
    for said in runs.values():
        if said["over"]:
            continue
        lines.append(f"{said['run']} of {said['client']}: {said['ended']} jobs ended, {said['left']} left")
        for board, about in said["boards"].items():
            row = row_of(board, about)
            row["queued"] += about["queued"]
            row["bad"] = row["bad"] or about["bad"]
    return {"runs": lines or ["no run"], "boards": dict(sorted(boards.items()))}


def _resume(out: Path) -> str:
    return f"edgekit farm run --resume --out {shlex.quote(str(out))}"


@contextmanager
def _interruptible(going: Run) -> Iterator[None]:
    """The first Ctrl-C lets the run end by itself, the second is a KeyboardInterrupt."""

    def interrupt(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        going.interrupt()

    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:  # as a background job may want it
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _say_interrupted(going: Run, report: dict[str, Any]) -> None:
    for board in going.held:
        print(f"edgekit: {board}: not free yet: its job ends at its next step", file=sys.stderr)
    if left := report["unfinished"]:
        missing = f"{left['jobs']} of {len(report['jobs'])} jobs are missing"
        print(f"edgekit: interrupted: {missing}: `{left['command']}` goes on", file=sys.stderr)


def _devices(inventory: str | Path | None, names: list[str]) -> list[Any]:
    from edgekit.device.inventory import HOST, load_inventory

    return load_inventory(inventory).select(names or [HOST])


def _journal(out: Path, work: Plan, asked: dict[str, Any], settings: Settings, resume: bool) -> Any:
    from dataclasses import asdict

    from edgekit.farm import state

    jobs = [job.id for job in work.jobs]
    if not resume:
        return state.create(out, {"jobs": jobs, "asked": asked, "settings": asdict(settings)})
    journal = state.resume(out)
    if set(journal.header["jobs"]) != set(jobs):
        journal.close()
        raise UsageError(
            f"{out}: a run of other jobs ({len(journal.header['jobs'])}, now {len(jobs)}): the same models, "
            "boards and settings, or another --out"
        )
    return journal


class _Progress:
    """A bar on a terminal, a line a job elsewhere; both on standard error."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("jobs", total=total)

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._bar.stop()

    def kept(self, count: int) -> None:
        """Jobs that an earlier go has finished."""
        self._bar.update(self._task, completed=count)
        if count:
            self._console.print(f"{count} jobs are done already", markup=False)

    def row(self, row: dict[str, Any]) -> None:
        """A job has ended."""
        self._bar.advance(self._task)
        if not self._console.is_terminal or row["status"] != "valid":
            reason = f": {'; '.join(row['reasons'])}" if row["reasons"] else ""
            self._console.print(
                f"{row['device']}: {row['model']} {row['target']} {row['status']}{reason}",
                markup=False,
                soft_wrap=True,
            )

    def interrupted(self) -> None:
        """Boards are told to end their jobs."""
        self._console.print("interrupted: boards are being freed, Ctrl-C again stops at once", markup=False)


def _print_report(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from edgekit.farm import page

    said = page.verdict(report)
    jobs = report["jobs"]
    if len(jobs) <= _ROWS_SHOWN:
        table = Table(box=None, pad_edge=False)
        for column in ("model", "target", "board", "p50", "p90", "state", "against the last run"):
            table.add_column(column, justify="right" if column in ("p50", "p90") else "left")
        for job in jobs:
            row = page.table_row(job)
            change = " ".join(part for part in (row["percent"], row["verdict"]) if part)
            cells = [
                job["model"],
                job["target"],
                job["device"],
                row["p50"],
                row["p90"],
                job["status"],
                change,
            ]
            table.add_row(*map(Text, cells))
        width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "160"))
        Console(width=width, highlight=False).print(table)
    for problem in page.problems(report)["shown"]:
        print(f"{problem['tag']}: {problem['what']}: {problem['reason']}")
    print(f"{said['word']} {said['sentence']}")
