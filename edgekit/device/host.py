"""Measuring on this machine while something is built: files of any runtimes in turns -> Latency.

The host is a device: its fresh processes are the boards' script, its profiles and figures are theirs. Unlike
`measure` it takes files of several runtimes at once, since a build holds its artifacts against each other,
and nobody needs to reserve it.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.device import statistics
from edgekit.device.harness import SEED, FileRun, load_order
from edgekit.device.harness.script import SCRIPTS, file_runs, measuring
from edgekit.device.probe.validity import UNCOUNTED, busy_notes
from edgekit.device.profiles import Profile, find_profile
from edgekit.errors import ArtifactError, UsageError

_TIMEOUT_S = 900
_DELEGATES = {harness.name: harness.delegates[0] for harness in SCRIPTS}


@dataclass(frozen=True)
class HostFile:
    """A file to measure. harness: "litert", "onnxruntime" or "openvino", with its default delegate.

    runtime, settings: how the report names what ran and what it was told; properties: OpenVINO's, instead of
    ours.
    """

    path: str
    harness: str
    runtime: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FileLatency:
    """One file. Percentiles over all samples, intervals (low, high) 95 % over processes; milliseconds.

    preempted: samples that were dropped, see FileRun.
    """

    p50_ms: float
    p90_ms: float
    p99_ms: float
    p50_interval: tuple[float, float]
    p90_interval: tuple[float, float]
    p99_interval: tuple[float, float]
    p99_supported: bool
    n: int
    init_ms: float
    first_ms: float
    partitions: int
    preempted: int | None = None
    runtime: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def delegated(self) -> bool:
        return self.partitions > 0


@dataclass(frozen=True)
class Latency:
    """Every file's figures and raw nanoseconds: `samples_ns[name]` has one array per process."""

    files: dict[str, FileLatency]
    samples_ns: dict[str, list[np.ndarray]]
    profile: str
    processes: int
    threads: int
    runtime: str
    machine: dict[str, Any]

    def ratio(self, artifact: str, reference: str) -> tuple[float, float, float]:
        """(p50 of artifact / p50 of reference, low, high): below 1 the artifact is faster."""
        first, second = (
            [FileRun(samples_ns=run.tolist()) for run in self.samples_ns[name]]
            for name in (artifact, reference)
        )
        found = statistics.ratio(first, second)
        low, high = found["interval"] or (found["p50"], found["p50"])
        return found["p50"], low, high

    def samples_json(self) -> str:
        """Raw nanoseconds: {file: [[ns, ...] per process]} with what is needed to judge them."""
        content = {
            "profile": self.profile,
            "threads": self.threads,
            "runtime": self.runtime,
            "machine": self.machine,
            "samples_ns": {k: [run.tolist() for run in runs] for k, runs in self.samples_ns.items()},
        }
        return json.dumps(content) + "\n"

    def as_dict(self, artifact: str, reference: str | None = None) -> dict[str, Any]:
        """One artifact's section of report.json, with the float model's median beside it."""
        content = asdict(self.files[artifact])
        content |= {
            "delegated": self.files[artifact].delegated,
            "profile": self.profile,
            "processes": self.processes,
            "threads": self.threads,
            "runtime": self.files[artifact].runtime or self.runtime,
            "machine": self.machine,
        }
        if reference is not None:
            ratio, low, high = self.ratio(artifact, reference)
            content |= {
                "float_p50_ms": self.files[reference].p50_ms,
                "ratio": ratio,
                "ratio_interval": (low, high),
            }
        return content


def measure_here(
    asked: Mapping[str, HostFile],
    profile: str | Profile = "quick",
    *,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Latency:
    """Measure every file in fresh processes of this machine, interleaved.

    Args:
        profile: "quick", "publish" or a Profile.
        progress: called with (processes done, processes in all).
    Raises: ArtifactError when a file does not run, or runs in other parts in another process.
    """
    plan = find_profile(profile)
    if not asked:
        raise UsageError("latency: no file given: at least one model file")
    told = {
        name: {
            "path": file.path,
            "runtime": file.harness,
            "delegate": _DELEGATES[file.harness],
            "properties": dict(file.properties),
        }
        for name, file in asked.items()
    }
    job = measuring(plan) | {"threads": threads, "seed": SEED}
    before = machine()
    runs: dict[str, list[FileRun]] = {name: [] for name in asked}
    for process in range(plan.processes):
        one = job | {"files": load_order(told, process), "process": process}
        for name, run in _fresh_process(one).items():
            runs[name].append(run)
        if progress:
            progress(process + 1, plan.processes)
    after = machine()
    for name, of_file in runs.items():
        counts = {run.partitions for run in of_file}
        if len(counts) > 1:
            raise ArtifactError(
                f"latency of {name}: {sorted(map(str, counts))} delegate partitions in different processes: "
                "a machine whose runtime applies its delegate every time"
            )
    return Latency(
        files={name: _figures(runs[name], file) for name, file in asked.items()},
        samples_ns={name: [np.array(run.samples_ns, np.int64) for run in runs[name]] for name in asked},
        profile=plan.name,
        processes=plan.processes,
        threads=threads,
        runtime=", ".join(dict.fromkeys(file.runtime for file in asked.values())),
        machine=before | {"load_after": after["load"], "note": _note(before, after, threads, runs)},
    )


def machine() -> dict[str, Any]:
    """What a latency figure depends on: processor, cores, governor, load."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(errors="replace").splitlines()
        model = next(
            (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model
        )
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "cpu": model,
        "architecture": platform.machine(),
        "cores": os.cpu_count() or 1,
        "governor": governor.read_text().strip() if governor.exists() else None,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.system(),
    }


def _fresh_process(job: dict[str, Any]) -> dict[str, FileRun]:
    with as_file(files("edgekit.device.harness") / "runner.py") as script:
        # -P: the script's folder must not shadow other modules; by path: nothing of edgekit is imported
        command = [sys.executable, "-P", str(script), json.dumps(job)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise ArtifactError(
                f"latency: no result after {_TIMEOUT_S} s: a model that runs faster, or profile 'quick'"
            ) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1][:300]
        raise ArtifactError(
            f"latency: the measuring process ended with {done.returncode} ({last}): files that run"
        )
    return file_runs(json.loads(done.stdout.strip().splitlines()[-1]))


def _figures(runs: list[FileRun], file: HostFile) -> FileLatency:
    found = statistics.figures(runs)
    taken = ("p50_ms", "p90_ms", "p99_ms", "p99_supported", "n", "init_ms", "first_ms", "preempted")
    content = {name: found[name] for name in taken}
    for name in ("p50", "p90", "p99"):
        low, high = found[f"{name}_interval"] or 2 * [found[f"{name}_ms"]]
        content[f"{name}_interval"] = (low, high)
    partitions = runs[0].partitions
    return FileLatency(
        **content,
        partitions=1 if partitions is None else partitions,
        runtime=file.runtime,
        settings=dict(file.settings),
    )


def _note(
    before: dict[str, Any], after: dict[str, Any], threads: int, runs: Mapping[str, list[FileRun]]
) -> str:
    notes = [] if before["load"] is None else busy_notes(before["load"], before["cores"])
    notes += [reason for name, of_file in runs.items() for reason in statistics.disturbed(name, of_file)]
    if any(run.preempted is None for of_file in runs.values() for run in of_file):
        notes.append(UNCOUNTED)
    if threads > before["cores"]:
        notes.append(f"{threads} threads on {before['cores']} cores")
    if before["governor"] != after["governor"]:
        notes.append(f"the governor changed from {before['governor']} to {after['governor']}")
    elif before["governor"] not in (None, "performance"):
        notes.append(f"governor {before['governor']}: clocks may vary")
    return "; ".join(notes)
