"""Model files on several boards at once: each board's result is written by itself, whatever the others do."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.bundle.check import read_manifest
from edgekit.bundle.names import inside
from edgekit.device.inventory import Device
from edgekit.device.measure import measure
from edgekit.device.result import Result
from edgekit.errors import ArtifactError, EdgekitError

FORMATS = (".tflite", ".onnx", ".xml")
_POLL_S = 0.2


@dataclass(frozen=True)
class Model:
    """A file to measure; `bundle` is the directory it came from when that has a manifest."""

    name: str
    path: Path
    bundle: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """One board: a result and where it was written, or what went wrong."""

    device: Device
    result: Result | None = None
    path: Path | None = None
    error: BaseException | None = None


def find_models(paths: Sequence[str | os.PathLike[str]]) -> list[Model]:
    """Models of files, bundles and build directories, each with a name of its own.

    Raises: ArtifactError for a path that holds none.
    """
    found: list[Model] = []
    for given in map(Path, paths):
        if given.is_file() and given.suffix in FORMATS:
            bundle = given.parent if (given.parent / "manifest.json").is_file() else None
            found.append(Model(given.stem, given, bundle))
            continue
        bundles = (
            [given]
            if (given / "manifest.json").is_file()
            else sorted(manifest.parent for manifest in given.glob("*/manifest.json"))
        )
        models = [_of_bundle(bundle) for bundle in bundles]
        models = [model for model in models if model.path.suffix in FORMATS]
        if not models:
            raise ArtifactError(f"{given}: no model in it: a {', '.join(FORMATS)} file or a build directory")
        found += models
    return [_named(model, i, found) for i, model in enumerate(found)]


def bench(
    devices: Sequence[Device],
    files: Mapping[str, str | Path],
    out: str | os.PathLike[str],
    *,
    progress: Callable[[str, str], None] | None = None,
    **options: Any,
) -> list[Outcome]:
    """Measure on every board, the boards at the same time, this machine last and alone.

    Args:
        out: directory for the results; each is written as soon as its board is done.
        progress: called with (board, what it is doing).
        options: of `measure`.
    Returns: an outcome a board, in the order given. An error of one board is in its outcome.
    """
    outcomes: dict[str, Outcome] = {}

    def one(device: Device) -> None:
        def say(text: str) -> None:
            if progress:
                progress(device.id, text)

        try:
            result = measure(device, files, progress=say, **options)
            outcomes[device.id] = Outcome(device, result, result.write(out))
        except Exception as error:
            outcomes[device.id] = Outcome(device, error=error)

    remote = [device for device in devices if not device.local]
    # daemons: when we are interrupted they end with us, and the boards clean up by themselves
    threads = [threading.Thread(target=one, args=(device,), daemon=True) for device in remote]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(_POLL_S)
    for device in devices:
        if device.local:
            one(device)
    for outcome in outcomes.values():
        if outcome.error is not None and not isinstance(outcome.error, EdgekitError):
            raise outcome.error
    return [outcomes[device.id] for device in devices]


def _of_bundle(bundle: Path) -> Model:
    manifest = read_manifest(bundle)
    return Model(str(manifest.get("target", bundle.name)), inside(bundle, manifest["file"]), bundle)


def _named(model: Model, i: int, models: Sequence[Model]) -> Model:
    """Two models of one name get the directory they lie in before it."""
    if sum(other.name == model.name for other in models) == 1:
        return model
    folder = (model.bundle or model.path).parent.name
    name = f"{folder}/{model.name}"
    taken = any((o.bundle or o.path).parent.name == folder and o.name == model.name for o in models[:i])
    return Model(f"{name}#{i}" if taken else name, model.path, model.bundle)
