"""Kinds of boards: what each file in devices/ exports, and how others register theirs.

A kind is found through the entry point group `edgekit.devices`; our own are registered there too. In a source
tree that is not installed they are read from devices/.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from edgekit.device.harness import Harness
from edgekit.device.probe import Probe
from edgekit.errors import UsageError, did_you_mean

GROUP = "edgekit.devices"
SHIPPED = ("host", "raspberry_pi", "jetson", "android", "coral")


@dataclass(frozen=True)
class Kind:
    """What a file in devices/ exports as KIND.

    Args:
        transports: types the inventory may give it.
        harnesses: what can measure there, the preferred first.
        probe: its facts, telemetry and clocks.
        base: directory to work under; None for the transport's own.
        install: harness name -> the command that installs what it needs, for `doctor`.
        delegate: the delegate of each harness that a figure must prove, unless the caller asks for another.
        compiled: delegate -> what a file compiled for it holds, and what to do with one that does not: for a
            delegate that takes nothing else.
    """

    name: str
    title: str
    transports: tuple[str, ...]
    harnesses: tuple[Harness, ...]
    probe: Probe
    base: str | None = None
    install: Mapping[str, str] = field(default_factory=dict)
    delegate: Mapping[str, str] = field(default_factory=dict)
    compiled: Mapping[str, tuple[bytes, str]] = field(default_factory=dict)

    def unfit(self, path: Path, delegate: str) -> str | None:
        """Why the delegate can take nothing of a file, where the file alone says so."""
        if delegate not in self.compiled:
            return None
        holds, cure = self.compiled[delegate]
        if holds in path.read_bytes():
            return None
        return f"not compiled for {delegate} (no {holds.decode()} in it): {cure}"

    def harness(self, name: str) -> Harness:
        """Raises: UsageError for one this kind does not have."""
        for harness in self.harnesses:
            if harness.name == name:
                return harness
        known = [harness.name for harness in self.harnesses]
        raise UsageError(f"runtime {name!r}: {self.name} has {', '.join(known)}{did_you_mean(name, known)}")


@cache
def kinds() -> Mapping[str, Kind]:
    """Every kind by name. Raises: UsageError for two of one name, or a plugin that gives none."""
    found: dict[str, Kind] = {}
    for name in SHIPPED:
        found[name] = _shipped(name)
    for point in entry_points(group=GROUP):
        if point.value.startswith("edgekit_devices."):
            continue
        kind = point.load()
        if not isinstance(kind, Kind) or kind.name != point.name:
            raise UsageError(
                f"{GROUP}: {point.name} = {point.value}: an edgekit.device.kinds.Kind of that name"
            )
        if point.name in found:
            raise UsageError(f"{GROUP}: {point.name} = {point.value}: a name that no other kind has")
        found[point.name] = kind
    return found


def find_kind(name: str) -> Kind:
    """Raises: UsageError for a kind that is not registered."""
    known = kinds()
    if name not in known:
        raise UsageError(f"kind {name!r}: not registered: {', '.join(known)}{did_you_mean(name, known)}")
    return known[name]


def _shipped(name: str) -> Kind:
    try:
        module = importlib.import_module(f"edgekit_devices.{name}")
    except ModuleNotFoundError as error:
        path = Path(__file__).parents[2] / "devices" / f"{name}.py"  # a source tree that is not installed
        spec = importlib.util.spec_from_file_location(f"edgekit_devices.{name}", path)
        if not path.exists() or spec is None or spec.loader is None:
            raise UsageError(f"kind {name!r}: its file is missing: a complete installation") from error
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    kind: Kind = module.KIND
    return kind
