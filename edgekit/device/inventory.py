"""The user's list of boards: devices.toml in, Device out.

The file is the user's: `edgekit devices init` writes the first one and nothing writes it afterwards. It
holds no secrets: keys are the business of ssh and adb. Without a file there is one board, this machine.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from edgekit.errors import UsageError, did_you_mean
from edgekit.files import home, write_atomic

HOST = "host"
TEMPLATE = """\
# Boards that edgekit measures on. `edgekit devices doctor` says what a board lacks.
schema_version = 1

[devices.host]
kind = "host"
transport = { type = "local" }

# [devices.pi4-a]
# kind = "raspberry_pi"
# transport = { type = "ssh", host = "pi4-a.local", user = "pi" }   # or a Host of ~/.ssh/config
# tags = ["shelf"]
# clocks = "lock"                        # observe: leave the governor alone; lock: set it, and put it back
# limits = { max_temperature_c = 75, cool_down_s = 120, wall_time_s = 1800 }

# [devices.pixel]
# kind = "android"
# transport = { type = "adb", serial = "9A261FFAZ0012B" }           # or HOST:PORT
# tools = { benchmark_model = "/data/local/tmp/benchmark_model" }

# [devices.orin]
# kind = "jetson"
# transport = { type = "ssh", host = "orin" }
# runtimes = ["trtexec", "onnxruntime"]

# [devices.coral]
# kind = "coral"
# transport = { type = "ssh", host = "coral" }
"""


@dataclass(frozen=True)
class Limits:
    """max_temperature_c: hotter is invalid; cool_down_s: between attempts; wall_time_s: of a command."""

    max_temperature_c: float | None = None
    cool_down_s: float = 120.0
    wall_time_s: float = 1800.0


@dataclass(frozen=True)
class Device:
    """One board as the inventory describes it; the schema says what each field takes."""

    id: str
    kind: str
    transport: Mapping[str, Any]
    tags: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()
    python: str | None = None
    tools: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    base: str | None = None
    clocks: str = "observe"
    health: str = "ok"
    emulated: bool = False
    limits: Limits = Limits()

    @property
    def local(self) -> bool:
        return self.transport["type"] == "local"


@dataclass(frozen=True)
class Inventory:
    """Boards by id, and the file they come from (None: no file, this machine only)."""

    devices: Mapping[str, Device]
    path: Path | None = None

    def device(self, name: str) -> Device:
        """Raises: UsageError for a board the inventory does not have."""
        if name not in self.devices:
            where = self.path or "no inventory (`edgekit devices init` writes one)"
            raise UsageError(
                f"device {name!r}: not in {where}: {', '.join(self.devices)}"
                f"{did_you_mean(name, self.devices)}"
            )
        return self.devices[name]

    def select(self, names: Sequence[str]) -> list[Device]:
        """Boards by id or by tag:NAME, each once, in the order given."""
        chosen: dict[str, Device] = {}
        for name in names:
            if name.startswith("tag:"):
                found = [d for d in self.devices.values() if name[4:] in d.tags]
                if not found:
                    raise UsageError(f"device {name!r}: no board has this tag: tags of {self.path}")
                chosen |= {device.id: device for device in found}
            else:
                chosen[name] = self.device(name)
        return list(chosen.values())


def default_path() -> Path:
    """$EDGEKIT_DEVICES, or edgekit/devices.toml under the user's configuration."""
    if path := os.environ.get("EDGEKIT_DEVICES"):
        return Path(path)
    return Path(os.environ.get("XDG_CONFIG_HOME") or home() / ".config") / "edgekit" / "devices.toml"


def load_inventory(path: str | os.PathLike[str] | None = None) -> Inventory:
    """Read and check an inventory; without a file, this machine alone.

    Raises: UsageError naming the board and the setting that is wrong.
    """
    given = Path(path) if path is not None else default_path()
    if not given.exists() and path is None:
        return Inventory({HOST: Device(HOST, HOST, {"type": "local"})})
    try:
        content = tomllib.loads(given.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{given}: cannot be read ({error}): what `edgekit devices init` writes") from error
    _check(content, given)
    return Inventory({name: _device(name, row) for name, row in content["devices"].items()}, given)


def init_inventory(path: str | os.PathLike[str] | None = None) -> Path:
    """Write a first inventory. Raises: UsageError when there is one."""
    given = Path(path) if path is not None else default_path()
    if given.exists():
        raise UsageError(f"{given}: exists already: edit it, or name another with --inventory")
    write_atomic(given, TEMPLATE)
    return given


def _device(name: str, row: Mapping[str, Any]) -> Device:
    plain: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in row.items()
        if key != "limits"
    }
    return Device(id=name, limits=Limits(**row.get("limits", {})), **plain)


def _check(content: Mapping[str, Any], path: Path) -> None:
    from jsonschema import Draft202012Validator

    schema = json.loads((files("edgekit.device") / "inventory_schema.json").read_text())
    errors = sorted(Draft202012Validator(schema).iter_errors(content), key=lambda e: list(map(str, e.path)))
    if not errors:
        return
    error = errors[0]
    where = ".".join(str(part) for part in error.absolute_path) or "the file"
    if error.validator == "oneOf":
        raise UsageError(
            f'{path}: {where}: not a transport: {{ type = "local" }}, {{ type = "ssh", host = ... }} '
            '(user, port, config) or { type = "adb", serial = ... }'
        )
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        odd = [key for key in error.instance if key not in known]
        raise UsageError(
            f"{path}: {where}: {odd[0]!r} is not a setting: {', '.join(known)}{did_you_mean(odd[0], known)}"
        )
    raise UsageError(f"{path}: {where}: {error.message}: what {Path(str(path)).name}'s schema allows")
