"""Measured times of one board's units, on disk: one file for each board, runtime, version, delegate, threads.

A board is known by the fingerprint of its facts, so that a table outlives its name in the inventory and is
not taken for another board's that has the name now. Times are of fused units by key; beside them stand whole
models, with what their units add up to, for the constant between the two.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgekit.errors import StoreError
from edgekit.files import default_root, write_atomic

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Entry:
    """A unit's time, nanoseconds. ns: what `passes` agree on; kind, sizes: as in `Unit`."""

    ns: float
    passes: tuple[float, ...]
    kind: str
    sizes: Mapping[str, int]


@dataclass(frozen=True)
class Whole:
    """A model's measured p50 beside the sum of its units."""

    target: str
    p50_ms: float
    units_ms: float


@dataclass
class Table:
    """What one board's units take, all at the clock at which the reference takes `reference_ns`."""

    device: str
    fingerprint: str
    runtime: str
    version: str
    delegate: str
    threads: int
    reference_ns: float
    facts: Mapping[str, str] = field(default_factory=dict)
    measured: str = ""
    units: dict[str, Entry] = field(default_factory=dict)
    models: dict[str, Whole] = field(default_factory=dict)

    def constant(self, target: str) -> float:
        """What a whole takes over the sum of its units: the median over the models measured; 1 without any.

        Measured units are warm, in a whole they begin with what the one before left in the cache.
        """
        ratios = [w.p50_ms / w.units_ms for w in self.models.values() if w.target == target]
        return statistics.median(ratios) if ratios else 1.0

    def path(self, root: Path) -> Path:
        name = f"{self.fingerprint}-{self.runtime}-{self.version}-{self.delegate}-{self.threads}"
        return root / f"{name.replace('/', '_')}.json"

    def write(self, root: Path | None = None) -> Path:
        """Keep it, with what another process has added meanwhile. Raises: StoreError."""
        path = self.path(root or tables_root())
        before = _read(path)
        if before is not None and before.reference_ns == self.reference_ns:
            self.units = before.units | self.units
            self.models = before.models | self.models
        self.measured = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        content = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        write_atomic(path, json.dumps(content, indent=0) + "\n")
        return path


def tables_root() -> Path:
    """Where tables lie: cost/ in edgekit's cache."""
    return default_root() / "cost"


def tables(root: Path | None = None) -> list[Table]:
    """Every table that can be read, the newest first; files of another schema are passed over."""
    folder = root or tables_root()
    found = [table for path in sorted(folder.glob("*.json")) if (table := _read(path)) is not None]
    return sorted(found, key=lambda table: table.measured, reverse=True)


def _read(path: Path) -> Table | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("schema_version", None) != SCHEMA_VERSION:
            return None
        units = {
            key: Entry(row["ns"], tuple(row["passes"]), row["kind"], row["sizes"])
            for key, row in content.pop("units").items()
        }
        models = {name: Whole(**row) for name, row in content.pop("models").items()}
        return Table(**content, units=units, models=models)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path}: cannot be read ({error}): delete it, and measure again") from error
