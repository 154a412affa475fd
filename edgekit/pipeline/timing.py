"""Model files of any kind -> Latency on this machine: what opens them here tells `edgekit.device` how."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgekit.device.host import HostFile, Latency, measure_here
from edgekit.device.profiles import Profile
from edgekit.errors import ArtifactError
from edgekit.runtimes.audit import partitions
from edgekit.runtimes.registry import opening
from edgekit.runtimes.sources import ModelFile, Source, open_source


def latency(
    files: Mapping[str, Source],
    *,
    profile: str | Profile = "quick",
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
    properties: Mapping[str, Mapping[str, Any]] | None = None,
) -> Latency:
    """Measure every file in fresh processes, interleaved.

    Args:
        files: name -> path, bytes or files of a model; typically {"float": ..., "int8": ...}.
        profile: "quick", "publish" or a Profile.
        properties: name -> OpenVINO properties in place of the runtime's settings, to measure a file under
            two precisions.
        progress: called with (processes done, processes in all).
    Raises: ArtifactError when a file does not run, or runs with another delegate than in this process.
    """
    with tempfile.TemporaryDirectory(prefix="edgekit-latency-") as folder:
        asked, expected = {}, {}
        for i, (name, source) in enumerate(files.items()):
            file = open_source(source)
            told = dict((properties or {}).get(name, {}))
            runtime = opening(file.kind)
            asked[name] = HostFile(
                path=_write(file, Path(folder, str(i))),
                harness=runtime.name,
                runtime=runtime.version(),
                settings=runtime.settings(threads) | told,
                properties=told,
            )
            expected[name] = partitions(file, threads)
        measured = measure_here(asked, profile, threads=threads, progress=progress)
    for name, wanted in expected.items():
        if measured.files[name].partitions != wanted:
            raise ArtifactError(
                f"latency of {name}: {measured.files[name].partitions} delegate partitions in a fresh "
                f"process, {wanted} in this one: a machine whose runtime applies its delegate every time"
            )
    return measured


def _write(file: ModelFile, folder: Path) -> str:
    """The file in a folder of its own; returns the path its runtime opens."""
    folder.mkdir()
    for name, data in file.files.items():
        Path(folder, name).write_bytes(data)
    return str(Path(folder, next(iter(file.files))))
