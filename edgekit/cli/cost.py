"""`edgekit cost measure|show|predict`: arguments and printing; edgekit.cli.main mounts them by name.

Imports nothing but typer until a command runs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit.errors import UsageError

if TYPE_CHECKING:
    from edgekit.cost.measure import Model
    from edgekit.cost.predict import UnitCost

app = typer.Typer(rich_markup_mode=None)
cost = typer.Typer(
    help="What models take on a board: times of their fused units, timed once, and whole models from them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(cost, name="cost")

DeviceOption = Annotated[str, typer.Option("--device", help="Id of the inventory; host is this machine.")]
TargetOption = Annotated[str, typer.Option("--target", "-t", help="tflite-int8, tflite-float32 ...")]
ThreadsOption = Annotated[int, typer.Option("--threads", help="Threads of the runtime.")]
CacheOption = Annotated[
    Path | None, typer.Option("--cache", help="Folder of the tables; default cost/ in $EDGEKIT_CACHE.")
]
ResolutionOption = Annotated[int | None, typer.Option("--resolution", help="Input side in pixels.")]
InventoryOption = Annotated[
    Path | None, typer.Option("--inventory", help="devices.toml; default $EDGEKIT_DEVICES or the user's.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@cost.command()
def measure(
    models: Annotated[
        list[str],
        typer.Option("--models", help="Names (edgekit models) or .tflite files; repeat, or join by commas."),
    ],
    device: Annotated[
        list[str] | None, typer.Option("--device", help="Ids, or tag:NAME; default host.")
    ] = None,
    target: TargetOption = "tflite-int8",
    threads: ThreadsOption = 1,
    widths: Annotated[
        int, typer.Option(help="Thinner forms to time of each unit with weights, for narrower models.")
    ] = 2,
    resolution: ResolutionOption = None,
    delegate: Annotated[str | None, typer.Option(help="What must run the units; default the kind's.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Time also what the table has.")] = False,
    wait: Annotated[float, typer.Option("--wait", help="Seconds to wait for a board that is held.")] = 0.0,
    cache: CacheOption = None,
    inventory: InventoryOption = None,
    debug: DebugOption = False,
) -> None:
    """Time the fused units of models on boards, and the models themselves, and keep them.

    Units that are in the board's table are not timed again, so that a second model costs little. The table
    belongs to the board as it is now: its processor and system, the runtime's version, threads.
    """
    from edgekit.cost.measure import measure as measure_models
    from edgekit.cost.widths import narrower
    from edgekit.device.inventory import HOST, load_inventory

    boards = load_inventory(inventory).select(device or [HOST])
    found = [_model(name, target, resolution) for name in _names(models)]
    thin = narrower([unit for model in found for unit in model.units], widths)
    for board in boards:
        table = measure_models(
            board,
            found,
            thin,
            threads=threads,
            delegate=delegate,
            again=again,
            wait_s=wait,
            root=cache,
            progress=lambda text, board=board.id: print(f"{board}: {text}", file=sys.stderr, flush=True),  # type: ignore[misc]
        )
        print(f"{board.id}: {len(table.units)} units, {table.runtime} {table.version}, {table.path(Path())}")
        for model in found:
            whole = table.models[model.name]
            print(f"  {model.name:<28} p50 {whole.p50_ms:.3f} ms, units {whole.units_ms:.3f} ms")


@cost.command()
def show(
    device: DeviceOption = "host",
    target: TargetOption = "tflite-int8",
    threads: ThreadsOption = 1,
    cache: CacheOption = None,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show a board's table: its models, and per kind of unit how many are known and how well a form fits."""
    from edgekit.cost.forms import fit
    from edgekit.cost.predict import cost_for

    found = cost_for(device, target, threads, cache, inventory)
    table = found.table
    kinds: dict[str, list[tuple[dict[str, int], float]]] = {}
    for entry in table.units.values():
        kinds.setdefault(entry.kind, []).append((dict(entry.sizes), entry.ns))
    forms = [fit(kind, points) for kind, points in sorted(kinds.items())]
    if as_json:
        content = {
            "device": table.device,
            "fingerprint": table.fingerprint,
            "runtime": f"{table.runtime} {table.version}",
            "threads": table.threads,
            "measured": table.measured,
            "constant": found.factor,
            "models": {name: vars(whole) for name, whole in table.models.items()},
            "kinds": {
                form.kind: {"units": form.points, "tiles": form.tiles, "error": form.error} for form in forms
            },
        }
        print(json.dumps(content, indent=1))
        return
    print(
        f"{table.device}: {table.runtime} {table.version}, {table.delegate}, {table.threads} thread"
        f"{'s' * (table.threads > 1)}, {table.measured}; {target}: whole = {found.factor:.3f} x units"
    )
    for name, whole in table.models.items():
        print(f"  {name:<28} {whole.target:<16} p50 {whole.p50_ms:9.3f} ms   units {whole.units_ms:9.3f} ms")
    print(f"  {'kind of unit':<44} {'known':>5}  tiles out, in   left-out error")
    for form in forms:
        error = "-" if form.error is None else f"{form.error:.1%}"
        print(f"  {form.kind:<44} {form.points:>5}  {form.tiles[0]:>5}, {form.tiles[1]:<8} {error:>8}")


@cost.command()
def predict(
    model: Annotated[str, typer.Argument(help="A name (edgekit models) or a .tflite file.")],
    device: DeviceOption = "host",
    target: TargetOption = "tflite-int8",
    threads: ThreadsOption = 1,
    resolution: ResolutionOption = None,
    top: Annotated[int, typer.Option(help="How many of the slowest units to list.")] = 10,
    cache: CacheOption = None,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Predict a model's p50 on a board from what was measured there; nothing is run."""
    from edgekit.cost.predict import MEASURED, POOLED, cost_for

    found = cost_for(device, target, threads, cache, inventory)
    units = [found.unit_cost(unit) for unit in _model(model, target, resolution).units]
    total = sum(unit.ms for unit in units)
    if as_json:
        rows = [{**vars(unit), "outputs": list(unit.outputs)} for unit in units]
        print(json.dumps({"model": model, "device": device, "ms": total, "units": rows}, indent=1))
        return
    shares = {how: sum(u.ms for u in units if u.how == how) / total for how in (MEASURED, POOLED)}
    words = f"{shares[MEASURED]:.0%} of it measured units"
    if shares[POOLED]:
        words += f", {shares[POOLED]:.0%} guessed from other kinds"
    print(f"{model} on {device}, {target}: {total:.3f} ms ({len(units)} units, {words})")
    for unit in sorted(units, key=lambda unit: -unit.ms)[:top]:
        print(_line(unit, total))


def _line(unit: UnitCost, total: float) -> str:
    return f"  {unit.ms:8.4f} ms {unit.ms / total:5.1%}  {unit.how:<8}  {unit.kind:<36} {unit.source}"


def _names(given: list[str]) -> list[str]:
    return [name for words in given for name in words.split(",") if name]


def _model(name: str, target: str, resolution: int | None) -> Model:
    """What to time of a name or file; weights do not matter, so none are fetched."""
    from edgekit.cost.models import of_file, of_graph

    if name.endswith(".tflite"):
        return of_file(Path(name), target)
    if Path(name).is_dir():
        file = Path(name, target, "model.tflite")
        if not file.is_file():
            raise UsageError(f"cost: {name}: no {target} in it: a build directory, a name or a .tflite file")
        return of_file(file, target)
    import torch

    from edgekit.capture import capture
    from edgekit.zoo import resolve

    found = resolve(name, "random", resolution=resolution)
    label = name if resolution is None else f"{name}@{resolution}"
    return of_graph(label, capture(found.module, torch.rand(found.input_shape)), target)
