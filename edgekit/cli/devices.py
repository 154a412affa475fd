"""`edgekit devices ...` and `edgekit bench`: arguments and printing; edgekit.cli.main mounts them by name.

Imports nothing but typer until a command runs.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.errors import DeviceError, GateError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekit.device.bench import Model, Outcome
    from edgekit.device.drift import Evaluation

app = typer.Typer(rich_markup_mode=None)
devices = typer.Typer(
    help="The boards of the inventory: list, ask, check, reserve.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(devices, name="devices")

InventoryOption = Annotated[
    Path | None, typer.Option("--inventory", help="devices.toml; default $EDGEKIT_DEVICES or the user's.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@devices.command()
def init(inventory: InventoryOption = None, debug: DebugOption = False) -> None:
    """Write a first inventory, with an example of every kind."""
    from edgekit.device.inventory import init_inventory

    print(init_inventory(inventory))


@devices.command("list")
def list_devices(
    inventory: InventoryOption = None, as_json: JsonOption = False, debug: DebugOption = False
) -> None:
    """List the boards: kind, way, tags, who holds them on this machine, health."""
    from edgekit.device.inventory import load_inventory
    from edgekit.device.kinds import find_kind
    from edgekit.device.reservation import bad_reason, host_owner

    rows = []
    for device in load_inventory(inventory).devices.values():
        owner = host_owner(device.id)
        rows.append(
            {
                "id": device.id,
                "kind": find_kind(device.kind).name,
                "transport": device.transport["type"],
                "address": device.transport.get("host") or device.transport.get("serial") or "",
                "tags": list(device.tags),
                "held_by": f"{owner.who}, run {owner.run}" if owner else None,
                "health": bad_reason(device) or "ok",
                "emulated": device.emulated,
            }
        )
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        way = f"{row['transport']} {row['address']}".strip()
        marks = [*(row["tags"]), *(["emulated"] if row["emulated"] else [])]
        state = (
            row["health"]
            if row["health"] != "ok"
            else f"held by {row['held_by']}"
            if row["held_by"]
            else "free"
        )
        print(f"{row['id']:<16} {row['kind']:<13} {way:<28} {' '.join(marks):<16} {state}")


@devices.command()
def probe(
    device: Annotated[list[str], typer.Argument(help="Ids, or tag:NAME.")],
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Ask boards what they are and how they feel."""
    from edgekit.device import doctor
    from edgekit.device.inventory import load_inventory

    found, errors = {}, []
    for chosen in load_inventory(inventory).select(device):
        try:
            found[chosen.id] = doctor.probe(chosen)
        except DeviceError as error:
            errors.append(error)
            print(f"edgekit: {error}", file=sys.stderr)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        for name, parts in found.items():
            print(name)
            for part in parts.values():
                for key, value in part.items():  # type: ignore[attr-defined]
                    print(f"  {key:<16} {value}")
    if errors:
        raise typer.Exit(2)


@devices.command("doctor")
def examine(
    device: Annotated[list[str] | None, typer.Argument(help="Ids, or tag:NAME; default all.")] = None,
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", help="An artifact's directory: is the runtime new enough for it?"),
    ] = None,
    inventory: InventoryOption = None,
    debug: DebugOption = False,
) -> None:
    """Say what is missing on boards and how to install it."""
    from edgekit.bundle import check_bundle
    from edgekit.device.doctor import doctor
    from edgekit.device.inventory import load_inventory

    least = check_bundle(bundle).manifest.get("min_runtime_version") if bundle is not None else None
    boards = load_inventory(inventory)
    usable = True
    for chosen in boards.select(device or list(boards.devices)):
        print(chosen.id)
        for finding in doctor(chosen, least):
            usable &= finding.ok or not finding.needed
            print(f"  {'ok     ' if finding.ok else 'MISSING'} {finding.what:<16} {finding.detail}")
            if not finding.ok and finding.cure:
                print(f"          {'':<16} install: {finding.cure}")
    if not usable:
        raise GateError("devices doctor: a board cannot measure: see MISSING above")


@devices.command()
def lock(
    device: Annotated[str, typer.Argument(help="The board.")],
    command: Annotated[list[str] | None, typer.Argument(help="-- COMMAND: hold it while this runs.")] = None,
    wait: Annotated[float, typer.Option("--wait", help="Seconds to wait for a board that is held.")] = 0.0,
    inventory: InventoryOption = None,
    debug: DebugOption = False,
) -> None:
    """Hold a board until Ctrl-C, or while a command runs."""
    import os
    import signal

    from edgekit.device.inventory import load_inventory
    from edgekit.device.reservation import reserve

    chosen = load_inventory(inventory).device(device)
    if command and shutil.which(command[0]) is None:
        raise UsageError(f"devices lock: {command[0]!r}: a command of this machine")
    with reserve(chosen, f"lock-{os.getpid()}", wait):
        print(f"{chosen.id}: held", flush=True)
        if command:
            code = subprocess.run(command, check=False).returncode
            raise typer.Exit(code)
        signal.pause()


@devices.command()
def unlock(
    device: Annotated[str, typer.Argument(help="The board.")],
    force: Annotated[bool, typer.Option("--force", help="End the run that holds it.")] = False,
    inventory: InventoryOption = None,
    debug: DebugOption = False,
) -> None:
    """Remove locks that nobody holds; with --force any."""
    from edgekit.device import reservation
    from edgekit.device.inventory import load_inventory

    print(reservation.unlock(load_inventory(inventory).device(device), force))


@app.command()
def bench(
    paths: Annotated[list[Path], typer.Argument(help="Build directories, bundles or model files.")],
    device: Annotated[
        list[str] | None, typer.Option("--device", help="Ids, or tag:NAME; default host.")
    ] = None,
    profile: Annotated[str, typer.Option(help="quick, publish or sustained.")] = "quick",
    minutes: Annotated[float | None, typer.Option(help="Length of a sustained run; default 10.")] = None,
    runtime: Annotated[
        str | None, typer.Option(help="litert, onnxruntime, benchmark_model, trtexec ...")
    ] = None,
    delegate: Annotated[
        str | None, typer.Option(help="What must run the model, e.g. xnnpack or none.")
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of the runtime.")] = 1,
    images: Annotated[int, typer.Option(help="Evaluation images to compare answers on; 0 for none.")] = 32,
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory for the results.")] = Path("bench"),
    wait: Annotated[float, typer.Option("--wait", help="Seconds to wait for a board that is held.")] = 0.0,
    history: Annotated[
        Path | None, typer.Option(help="Where runs are kept; default $EDGEKIT_HISTORY, else the user's data.")
    ] = None,
    inventory: InventoryOption = None,
    debug: DebugOption = False,
) -> None:
    """Measure models on boards: latency, memory, heat, and whether the answers are the same.

    Every run is kept: edgekit history lists them, edgekit compare holds two against each other.
    """
    from edgekit.device.bench import bench as measure_all
    from edgekit.device.bench import find_models
    from edgekit.device.inventory import HOST, load_inventory

    models = find_models(paths)
    chosen = load_inventory(inventory).select(device or [HOST])
    evaluations = {model.name: found for model in models if (found := _evaluation(model, images))}
    outcomes: list[Outcome] = []
    for kind in dict.fromkeys(model.path.suffix for model in models):  # what one runtime takes runs in turns
        files = {model.name: model.path for model in models if model.path.suffix == kind}
        outcomes += measure_all(
            chosen,
            files,
            out,
            progress=lambda board, text: print(f"{board}: {text}", file=sys.stderr, flush=True),
            profile=profile,
            minutes=minutes,
            runtime=runtime,
            delegate=delegate,
            threads=threads,
            wait_s=wait,
            evaluations={name: found for name, found in evaluations.items() if name in files},
        )
    _remember(outcomes, models, history)
    for outcome in outcomes:
        _print_outcome(outcome)
    failed = [o.device.id for o in outcomes if o.result is None]
    invalid = [o.device.id for o in outcomes if o.result is not None and not o.result.valid]
    if len(failed) == 1 == len(outcomes) and outcomes[0].error is not None:
        raise outcomes[0].error
    if failed or invalid:
        parts = [f"failed: {', '.join(failed)}"] * bool(failed) + [f"INVALID: {', '.join(invalid)}"] * bool(
            invalid
        )
        raise GateError(f"bench: {'; '.join(parts)}")


def _remember(outcomes: Sequence[Outcome], models: Sequence[Model], path: Path | None) -> None:
    """Put every result into the history under its model's and target's names."""
    from edgekit.bundle.check import read_manifest
    from edgekit.history import History, records_of

    names = {}
    for model in models:
        if model.bundle is not None:
            manifest = read_manifest(model.bundle)
            names[model.name] = (manifest["name"], manifest["target"])
    with History(path) as history:
        for outcome in outcomes:
            if outcome.result is not None:
                for record in records_of(outcome.result.content, outcome.result.samples, names):
                    history.add(record)


def _evaluation(model: Model, count: int) -> Evaluation | None:
    """A slice of the evaluation set the bundle was judged on, or its golden vectors."""
    from edgekit.bundle.check import read_manifest
    from edgekit.device.drift import golden_evaluation
    from edgekit.device.evaluation import slice_evaluation

    if model.bundle is None or not count:
        return None
    manifest = read_manifest(model.bundle)
    return slice_evaluation(manifest, count, Path(model.bundle)) or golden_evaluation(model.bundle)


def _print_outcome(outcome: Outcome) -> None:
    name = outcome.device.id
    if outcome.result is None:
        print(f"{name}: FAILED: {outcome.error}")
        return
    content = outcome.result.content
    runtime = content["runtime"]
    print(f"{name}: {content['validity']['status']}, {runtime['name']} {runtime['version']}, {outcome.path}")
    for reason in content["validity"]["reasons"]:
        print(f"  INVALID: {reason}")
    for note in content["validity"]["notes"]:
        print(f"  note: {note}")
    for file, row in content["files"].items():
        print(f"  {file:<24} {_line(row)}")
    for ratio in content["ratios"]:
        between = " ({:.3f} - {:.3f})".format(*ratio["interval"]) if ratio["interval"] else ""
        print(f"  {ratio['file']} takes {ratio['p50']:.3f}{between} of {ratio['reference']}'s time")


def _line(row: dict[str, Any]) -> str:
    """One file: p50 with its interval, p90, first inference, memory, delegate, answers."""
    figures, parts = row["figures"], []
    if figures is None:
        return "no figures"
    between = " ({:.3f} - {:.3f})".format(*figures["p50_interval"]) if figures["p50_interval"] else ""
    if figures["p50_ms"] is not None:
        parts.append(f"p50 {figures['p50_ms']:.3f} ms{between}")
    parts += [
        f"{key} {figures[f'{key}_ms']:.3f}" for key in ("p90", "first") if figures[f"{key}_ms"] is not None
    ]
    if row["memory"] and row["memory"]["peak_bytes"] is not None:
        parts.append(f"{row['memory']['peak_bytes'] / 2**20:.1f} MiB")
    parts.append(f"{row['delegate']}" + (f" x{row['partitions']}" if row["partitions"] is not None else ""))
    if drift := row["drift"]:
        parts.append(f"answers {drift['identical']}/{drift['inputs']} bit for bit")
        if drift["top1_device"] is not None:
            parts.append(f"top-1 {drift['top1_device']:.1%} (reference {drift['top1_reference']:.1%})")
    if heat := row["sustained"]:
        ends = [heat["first_minute_ms"], heat["last_minute_ms"]]
        parts += [f"minute {minute}: {ms:.3f} ms" for minute, ms in zip((1, "N"), ends, strict=True) if ms]
    return ", ".join(parts)
