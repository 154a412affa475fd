"""The p50 of a whole model from the times of its units, without building it.

    cost = cost_for("pi4-a", "tflite-int8")
    cost.graph_ms(graph)          a captured graph -> milliseconds
    cost.units(graph)             where they go
    cost.calibrate(graph, ms)     a cost whose constant comes from a measured relative

A unit that was measured takes what was measured; another takes what its kind's form says (`forms`), and says
so. The sum is multiplied by one constant: units are timed warm, a whole begins each with what the one before
left in the cache. It is the median over the models in the table, or of a relative that is known exactly, and
between variants of one model it cancels.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgekit.cost.forms import Form, fit
from edgekit.cost.shapes import operators_of
from edgekit.cost.table import Table, tables
from edgekit.cost.units import Unit, family_of, units_of
from edgekit.device.inventory import HOST, Device, load_inventory
from edgekit.device.kinds import find_kind
from edgekit.device.probe import fingerprint_id
from edgekit.device.reservation import look
from edgekit.errors import UsageError, did_you_mean
from edgekit.graph.ir import Graph
from edgekit.targets import Target, get_target

MEASURED, FITTED, POOLED = "measured", "fitted", "pooled"
_FEW = 4  # points of a kind below which its relatives are asked too


@dataclass(frozen=True)
class UnitCost:
    """One fused unit of a model.

    ms: as part of the whole, the constant included. how: "measured", "fitted" (from units of its kind) or
    "pooled" (from kinds like it: a guess). outputs: the graph's values it makes. source: its module.
    """

    key: str
    kind: str
    ms: float
    how: str
    outputs: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class Cost:
    """One board, runtime, target and number of threads.

    constant: of the whole over the sum of its units; None takes the table's.
    """

    table: Table
    target: Target
    constant: float | None = None
    _forms: dict[str, tuple[Form, str]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def factor(self) -> float:
        """What the sum of units is multiplied by."""
        return self.table.constant(self.target.name) if self.constant is None else self.constant

    def graph_ms(self, graph: Graph) -> float:
        """The p50, in milliseconds, of the target's file of a captured graph.

        Raises: UnsupportedError for what the target cannot take; UsageError when nothing like one of its
            units was measured.
        """
        return sum(unit.ms for unit in self.units(graph))

    def units(self, graph: Graph) -> list[UnitCost]:
        """The fused units of the file of a captured graph, in its order. Raises: as `graph_ms`."""
        operators, signature, prepared = operators_of(graph, self.target)
        names = [tuple(value.name for value in node.outputs) for node in prepared.nodes]
        return [
            replace(self.unit_cost(unit), outputs=tuple(name for i in unit.nodes for name in names[i]))
            for unit in units_of(operators, signature)
        ]

    def unit_cost(self, unit: Unit) -> UnitCost:
        """One unit, of a file or a graph. Raises: UsageError when nothing like it was measured."""
        ns, how = self.unit_ns(unit)
        outputs = tuple(tensor.name for tensor in unit.outputs)
        return UnitCost(unit.key, unit.kind, ns / 1e6 * self.factor, how, outputs, unit.source)

    def calibrate(self, graph: Graph, measured_ms: float) -> Cost:
        """The same with the constant of a graph whose p50 is known, for its variants."""
        together = replace(self, constant=1.0).graph_ms(graph)
        if not measured_ms > 0.0:
            raise UsageError(f"calibrate: {measured_ms:g} ms: a measured p50")
        return replace(self, constant=measured_ms / together)

    def unit_ns(self, unit: Unit) -> tuple[float, str]:
        """(nanoseconds of a unit by itself, how they are known)."""
        known = self.table.units.get(unit.key)
        if known is not None:
            return known.ns, MEASURED
        if unit.kind not in self._forms:
            self._forms[unit.kind] = self._fitted(unit)
        form, how = self._forms[unit.kind]
        return form.ns(unit.sizes), how

    def _fitted(self, unit: Unit) -> tuple[Form, str]:
        """The form of a unit's kind, or of the kinds of its family where there is little of its own."""
        own = [entry for entry in self.table.units.values() if entry.kind == unit.kind]
        how, points = FITTED, own
        if len(own) < _FEW:
            how = FITTED if own else POOLED
            points = [e for e in self.table.units.values() if family_of(e.kind, e.sizes) == unit.family]
        if not points:
            device = self.table.device
            raise UsageError(
                f"cost: nothing like {unit.kind} ({unit.source or unit.key[:60]}) was measured on {device}: "
                f"`edgekit cost measure --device {device} --models ...` with it"
            )
        return fit(unit.kind, [(entry.sizes, entry.ns) for entry in points]), how


def cost_for(
    device: str = HOST,
    target: str = "tflite-int8",
    threads: int = 1,
    cache: Path | None = None,
    inventory: Path | None = None,
) -> Cost:
    """The costs of a board as `edgekit cost measure` left them.

    Args:
        device: id of the inventory; "host" is this machine.
        cache: folder of the tables; default cost/ in edgekit's cache.
    Raises: UsageError when the board has no table. The board itself is not asked; this machine is, what it
        is now.
    """
    wanted = get_target(target)
    found = [table for table in tables(cache) if table.threads == threads]
    if device == HOST:
        here = fingerprint(load_inventory(inventory).device(device))
        matching = [table for table in found if table.fingerprint == here]
    else:
        matching = [table for table in found if table.device == device]
    if not matching:
        known = sorted({table.device for table in found})
        raise UsageError(
            f"cost: no times of {device} with {threads} thread{'s' * (threads > 1)}: "
            f"`edgekit cost measure --device {device} --models ...`{did_you_mean(device, known)}"
        )
    return Cost(matching[0], wanted)


def fingerprint(device: Device) -> str:
    """The short name of what a board is now. Raises: InfrastructureError when it cannot be reached."""
    with look(device, f"cost-{secrets.token_hex(3)}") as transport:
        return fingerprint_id(find_kind(device.kind).probe.fingerprint(transport))
