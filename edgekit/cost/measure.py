"""Units on a board -> its table: what is not in it yet is timed there, as `edgekit.device.parts` does."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.cost.table import Entry, Table, Whole, tables
from edgekit.cost.units import Unit
from edgekit.device.inventory import Device
from edgekit.device.parts import Part, PartTime, Timer, on_board
from edgekit.lower.tflite.copies import reference, side_by_side

DIFFERENCE_NS = 100_000.0  # what the further copies should take together
MOST_COPIES = 12
PASSES = 2
_NEAR = 1.25  # times of one unit in other processes differ by less
_MOST_BYTES = 16 << 20  # of constants in a file
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Model:
    """A whole network to time beside its units. name: what its time is kept under."""

    name: str
    target: str
    data: bytes
    units: tuple[Unit, ...]


def measure(
    device: Device,
    models: Sequence[Model] = (),
    units: Sequence[Unit] = (),
    *,
    threads: int = 1,
    delegate: str | None = None,
    again: bool = False,
    wait_s: float = 0.0,
    root: Path | None = None,
    progress: Progress | None = None,
) -> Table:
    """Time what the board's table lacks and keep it there.

    Args:
        device: a board of an inventory.
        models: networks whose units and whose p50 are timed.
        units: further units.
        again: time also what it has.
        root: where tables lie; default the cache.
    Returns: the board's table, with all of these.
    Raises: as `edgekit.device.parts.on_board`.
    """
    say = progress or (lambda _: None)
    wanted = {unit.key: unit for unit in (*units, *(unit for model in models for unit in model.units))}

    def work(timer: Timer) -> Table:
        table = _table(timer, device.id, threads, root)
        missing = [unit for key, unit in wanted.items() if again or key not in table.units]
        wholes = [model for model in models if again or model.name not in table.models]
        if missing or wholes:
            say(f"{len(missing)} of {len(wanted)} units, {len(wholes)} of {len(models)} models")
            _time(timer, table, missing, wholes, say)
            table.write(root)
        return table

    return on_board(
        device, reference(), work, delegate=delegate, threads=threads, wait_s=wait_s, progress=progress
    )


def _table(timer: Timer, device: str, threads: int, root: Path | None) -> Table:
    """The board's table as it is kept, or an empty one."""
    new = Table(
        device,
        timer.fingerprint,
        timer.runtime.name,
        timer.runtime.version,
        timer.task.delegate,
        threads,
        0.0,
        dict(timer.facts),
    )
    same = [table for table in tables(root) if table.path(Path()) == new.path(Path())]
    return same[0] if same else new


def _time(timer: Timer, table: Table, units: Sequence[Unit], models: Sequence[Model], say: Progress) -> None:
    """Passes over all of it; from the second on with as many copies as the first one's times ask for.

    Whole networks, which have no difference to cancel what a process owes to its luck, run in one more.
    """
    names = {f"u{i}": unit for i, unit in enumerate(units)}
    wholes = {f"m{i}": model for i, model in enumerate(models)}
    parts = {name: _part(name, unit, _copies(unit, _guess_ns(unit))) for name, unit in names.items()}
    parts |= {name: Part(name, model.data) for name, model in wholes.items()}
    passes: list[dict[str, PartTime]] = []
    for order in range(PASSES):
        say(f"pass {order + 1} of {PASSES}")
        passes.append(timer.time(parts.values(), order))
        for name, unit in names.items():
            better = _copies(unit, passes[-1][name].ns)
            if not 0.4 <= (better - 1) / (parts[name].copies - 1) <= 2.5:
                parts[name] = _part(name, unit, better)
    alone = timer.time([parts[name] for name in wholes], PASSES) if wholes else {}
    if not table.reference_ns:
        table.reference_ns = statistics.median(time.reference_ns for time in passes[0].values())
    for name, unit in names.items():
        times = tuple(_at_one_clock(found[name], table) for found in passes)
        table.units[unit.key] = Entry(agreed(times), times, unit.kind, dict(unit.sizes))
    for name, model in wholes.items():
        times = tuple(_at_one_clock(found[name], table) / 1e6 for found in (*passes, alone))
        together = sum(table.units[unit.key].ns for unit in model.units) / 1e6
        table.models[model.name] = Whole(model.target, statistics.median(times), together)


def _at_one_clock(time: PartTime, table: Table) -> float:
    return max(time.ns, 0.0) * table.reference_ns / time.reference_ns


def agreed(times: Sequence[float]) -> float:
    """The mean; of times far apart, of those near the smallest: something else ran during the others."""
    return statistics.mean(time for time in times if time <= _NEAR * min(times))


def _part(name: str, unit: Unit, copies: int) -> Part:
    once, often = (side_by_side(unit.operators, unit.inputs, unit.outputs, n) for n in (1, copies))
    return Part(name, once, often, copies)


def _copies(unit: Unit, ns: float) -> int:
    """Copies in the larger file, the first included."""
    constants = {t: t.data.nbytes for op in unit.operators for t in op.inputs if t and t.data is not None}
    room = max(1, _MOST_BYTES // max(sum(constants.values()), 1))
    return 1 + max(1, min(MOST_COPIES, room, round(DIFFERENCE_NS / max(ns, 1.0))))


def _guess_ns(unit: Unit) -> float:
    """Good enough to choose a number of copies, which the second pass puts right."""
    sizes: Mapping[str, int] = unit.sizes
    if "pixels" not in sizes:
        return 500.0 + 0.1 * (sizes["read"] + sizes["written"])
    groups, taps = sizes.get("groups", 1), sizes["taps"]
    each = sizes.get("in", 1) * taps * groups
    gathered = 3.0 * sizes["pixels"] * groups * taps if groups > 1 else 0.0  # by pointers
    weights = 0.05 * sizes["out"] * each
    return 500.0 + sizes["pixels"] * sizes["out"] * (0.05 + each * 0.003) + gathered + weights
