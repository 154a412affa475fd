"""The commands `history` and `compare`: arguments and printing. edgekit.cli.main mounts them by name.

Imports nothing heavy: it is loaded by `edgekit --help`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.errors import GateError, UsageError

if TYPE_CHECKING:
    from edgekit.history.compare import Comparison
    from edgekit.history.record import Record
    from edgekit.history.store import History

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

Model = Annotated[str | None, typer.Option("--model", help="Only runs of this model.")]
Target = Annotated[str | None, typer.Option("--target", "-t", help="Only runs of this target.")]
Device = Annotated[str | None, typer.Option("--device", help="Only runs on this device.")]
File = Annotated[
    Path | None,
    typer.Option("--history", help="The SQLite file; default $EDGEKIT_HISTORY, else the user's data folder."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.command()
def history(
    model: Model = None,
    target: Target = None,
    device: Device = None,
    sha256: Annotated[str | None, typer.Option(help="Only this artifact; a beginning is enough.")] = None,
    since: Annotated[str | None, typer.Option(help="Only runs from this time on, as 2026-03-01.")] = None,
    limit: Annotated[int, typer.Option(help="The newest so many runs.")] = 50,
    add: Annotated[
        list[Path] | None, typer.Option("--add", help="First store these result files; repeat for several.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Records without raw samples, newest first.")
    ] = False,
    file: File = None,
    debug: Debug = False,
) -> None:
    """List stored measurements by series, with the course of p50."""
    from edgekit.history.results import load
    from edgekit.history.store import History, series_of

    with History(file, create=bool(add)) as store:
        for record in [record for path in add or () for record in load(path)]:
            store.add(record)
        found = store.query(
            model=model, target=target, device=device, sha256=sha256, since=since, limit=limit
        )
        where = store.path
    if as_json:
        print(json.dumps(found, indent=2))
    elif not found:
        print(f"{where}: no such run")
    else:
        from edgekit.history.table import print_series

        print_series(series_of(found))


@app.command()
def compare(
    a: Annotated[
        str, typer.Argument(metavar="A", help="Before: run id, its beginning, FILE.json, previous.")
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="After: run id, its beginning, FILE.json, latest.")],
    model: Model = None,
    target: Target = None,
    device: Device = None,
    across: Annotated[
        list[str] | None,
        typer.Option("--across", help="What may differ on purpose: runtime, target or model; repeatable."),
    ] = None,
    min_change: Annotated[
        float, typer.Option("--min-change", help="The smallest change of p50 worth calling, in percent.")
    ] = 3.0,
    fail_on_invalid: Annotated[
        bool, typer.Option("--fail-on-invalid", help="Exit 1, not 2, when a run is INVALID.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The verdict and its evidence as JSON.")] = False,
    file: File = None,
    debug: Debug = False,
) -> None:
    """Say whether run B is slower than run A.

    `latest` is the newest run that --model, --target and --device leave, `previous` the newest valid run of
    the same series before it.

    A regression is a p50 that grew by more than max(--min-change, 3 x the device's noise) and a permutation
    test over the medians of fresh processes with p < 0.05; it needs at least 4 processes a side. Runs that
    differ in device, fingerprint, threads, delegate, power mode, runtime, harness or profile are refused, as
    are emulated and INVALID ones.

    Exit codes: 0 no regression; 1 regression; 2 no answer (refused, too few processes, unusable arguments).
    """
    from edgekit.history.compare import RefusedError
    from edgekit.history.compare import compare as judge
    from edgekit.history.store import History

    with History(file, create=False) as store:
        filters = {"model": model, "target": target, "device": device}
        before, after = (_resolve(store, name, filters) for name in (a, b))
        repeats = store.query(
            model=before["artifact"]["name"],
            target=before["artifact"]["target"],
            device=before["device"]["id"],
            limit=500,
        )
    try:
        result = judge(before, after, repeats, across=across or (), min_change_percent=min_change)
    except RefusedError as error:
        if as_json:
            print(json.dumps({"verdict": "refused", "differences": error.differences}, indent=2))
        if error.invalid and fail_on_invalid:
            raise GateError(str(error)) from error
        raise
    print(json.dumps(result.as_dict(), indent=2) if as_json else _said(result))
    if result.verdict == "regression":
        raise GateError(f"compare {result.a} {result.b}: {result.words}")
    if result.verdict == "no verdict":
        raise UsageError(f"compare {result.a} {result.b}: {result.words}")


def _resolve(store: History, name: str, filters: dict[str, str | None]) -> Record:
    """A run by id or its beginning, by file, or by its place in the series that the options name."""
    if name in ("latest", "previous"):
        return _by_place(store, name, filters)
    if Path(name).is_file() or name.endswith(".json"):
        return _from_file(name, filters)
    return store.get(name)


def _from_file(name: str, filters: dict[str, str | None]) -> Record:
    from edgekit.history.results import load

    model, target = filters["model"], filters["target"]
    found = [
        record
        for record in load(name)
        if model in (None, record["artifact"]["name"]) and target in (None, record["artifact"]["target"])
    ]
    if len(found) != 1:
        names = ", ".join(f"{one['artifact']['name']} {one['artifact']['target']}" for one in load(name))
        raise UsageError(
            f"{name}: {len(found)} measurements to choose from ({names}): --model that leaves one"
        )
    return found[0]


def _by_place(store: History, place: str, filters: dict[str, str | None]) -> Record:
    found = store.series(**filters)
    names = list(dict.fromkeys(f"{s.model} {s.target} on {s.device}" for s in found))
    if len(names) > 1:
        more = ", ..." if len(names) > 4 else ""
        raise UsageError(
            f"compare: '{place}' of {len(names)} series ({', '.join(names[:4])}{more}): "
            "--model, --target and --device that leave one"
        )
    if not found:
        raise UsageError(
            f"{store.path}: no run for '{place}': --model, --target and --device of a stored run"
        )
    *earlier, latest = found[0].runs
    if place == "latest":
        return store.get(latest["run"])
    valid = [record for record in earlier if record["validity"]["ok"]]
    if not valid:
        raise UsageError(f"{store.path}: no valid run before {latest['run']}: two runs of {names[0]}")
    return store.get(valid[-1]["run"])


def _said(result: Comparison) -> str:
    low, high = result.interval_percent
    lines: list[tuple[str, Any]] = [
        ("A", f"{result.a}: p50 {result.a_p50_ms:.4g} ms"),
        ("B", f"{result.b}: p50 {result.b_p50_ms:.4g} ms"),
        ("change", f"{result.change_percent:+.2f} % (95 % over processes: {low:+.2f} to {high:+.2f} %)"),
        ("noise", f"{result.noise.percent:.2f} % ({result.noise.source})"),
        *(("note", note) for note in result.notes),
        ("verdict", result.words),
    ]
    return "\n".join(f"{name:<8} {text}" for name, text in lines)
