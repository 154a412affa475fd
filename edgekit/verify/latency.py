"""Latency on this machine: several model files side by side -> Latency, raw samples included.

Files of any kind may be mixed: each runs under its own runtime, whose version and settings stand beside the
figures.
Runs of one process share its memory layout and its luck, so a figure rests on several fresh processes; inside
each the files take turns (A B, B A, ...). Intervals resample whole processes: samples of one process are not
independent. p99 needs 1000 samples to mean anything: `p99_supported` says whether it has them.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import ArtifactError, UsageError
from edgekit.runtimes.audit import partitions
from edgekit.runtimes.runtime import settings
from edgekit.runtimes.sources import ModelFile, Source, open_source

_SEED = 0
_RESAMPLES = 2000
_P99_SAMPLES = 1000
_TIMEOUT_S = 900


@dataclass(frozen=True)
class Profile:
    """How long to measure. Per process: `samples` rounds and `seconds`, cut at `max_seconds`."""

    name: str
    processes: int
    samples: int
    seconds: float
    max_seconds: float
    warmup: int
    warmup_seconds: float


QUICK = Profile("quick", 2, 150, 0.0, 1.0, 5, 0.2)  # seconds in all: for development, not for quoting
PUBLISH = Profile("publish", 5, 205, 12.0, 60.0, 10, 1.0)  # 1025 samples and 60 s in 5 processes
PROFILES = {profile.name: profile for profile in (QUICK, PUBLISH)}


@dataclass(frozen=True)
class FileLatency:
    """One file. Percentiles over all samples, intervals (low, high) 95 % over processes; milliseconds."""

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
        a, b = self.samples_ns[artifact], self.samples_ns[reference]
        ratios = np.array([np.median(x) / np.median(y) for x, y in zip(a, b, strict=True)])
        draws = np.median(ratios[_process_draws(len(ratios))], axis=1)
        low, high = np.percentile(draws, [2.5, 97.5])
        return float(np.median(ratios)), float(low), float(high)

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
        properties: name -> OpenVINO properties in place of `openvino_runtime.settings`, to measure a file
            under two precisions.
        progress: called with (processes done, processes in all).
    Raises: ArtifactError when a file does not run, or runs with another delegate than in this process.
    """
    plan = _profile(profile)
    if not files:
        raise UsageError("latency: no file given: at least one model file")
    with tempfile.TemporaryDirectory(prefix="edgekit-latency-") as folder:
        jobs, expected = {}, {}
        for i, (name, source) in enumerate(files.items()):
            file = open_source(source)
            told = settings(file.kind, threads) | dict((properties or {}).get(name, {}))
            expected[name] = partitions(file, threads)
            jobs[name] = {"path": _write(file, Path(folder, str(i))), "kind": file.kind, "settings": told}
        job = asdict(plan) | {"threads": threads, "seed": _SEED}
        before = machine()
        runs = []
        for done in range(plan.processes):
            runs.append(_fresh_process(job | {"files": load_order(jobs, done)}))
            if progress:
                progress(done + 1, plan.processes)
        after = machine()
    for run in runs:
        for name, wanted in expected.items():
            if run["files"][name]["partitions"] != wanted:
                raise ArtifactError(
                    f"latency of {name}: {run['files'][name]['partitions']} delegate partitions in a fresh "
                    f"process, {wanted} in this one: a machine whose runtime applies its delegate every time"
                )
    samples = {name: [np.array(run["files"][name]["samples_ns"], np.int64) for run in runs] for name in files}
    return Latency(
        files={name: _figures(samples[name], [run["files"][name] for run in runs]) for name in files},
        samples_ns=samples,
        profile=plan.name,
        processes=plan.processes,
        threads=threads,
        runtime=", ".join(dict.fromkeys(one["runtime"] for one in runs[0]["files"].values())),
        machine=before | {"load_after": after["load"], "note": _note(before, after, threads)},
    )


def load_order(files: Mapping[str, Any], process: int) -> dict[str, Any]:
    """Files as a process loads them: forwards in every other one, backwards in those between.

    What is loaded later lies better in memory: the same OpenVINO file, loaded twice, ran up to 4 % faster as
    the fifth than as the first.
    """
    return dict(list(files.items())[:: -1 if process % 2 else 1])


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


def _profile(profile: str | Profile) -> Profile:
    if isinstance(profile, Profile):
        return profile
    if profile not in PROFILES:
        raise UsageError(f"latency: profile {profile!r} does not exist: {', '.join(PROFILES)}")
    return PROFILES[profile]


def _write(file: ModelFile, folder: Path) -> str:
    """The file in a folder of its own; returns the path its runtime opens."""
    folder.mkdir()
    for name, data in file.files.items():
        Path(folder, name).write_bytes(data)
    return str(Path(folder, next(iter(file.files))))


def _fresh_process(job: dict[str, Any]) -> dict[str, Any]:
    worker = Path(__file__).with_name("latency_worker.py")
    # -P: the worker's folder must not shadow other modules; by path: nothing of edgekit is imported
    command = [sys.executable, "-P", str(worker)]
    try:
        done = subprocess.run(
            command, input=json.dumps(job), capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ArtifactError(
            f"latency: no result after {_TIMEOUT_S} s: a model that runs faster, or profile 'quick'"
        ) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1][:300]
        raise ArtifactError(
            f"latency: the measuring process ended with {done.returncode} ({last}): files that run"
        )
    return json.loads(done.stdout)


def _figures(samples: list[np.ndarray], runs: list[dict[str, Any]]) -> FileLatency:
    pooled = np.concatenate(samples)
    points = np.percentile(pooled, [50, 90, 99]) / 1e6
    shortest = min(len(run) for run in samples)
    equal = np.stack([run[:shortest] for run in samples])
    draws = [
        np.percentile(equal[rows].reshape(-1), [50, 90, 99]) / 1e6 for rows in _process_draws(len(samples))
    ]
    low, high = np.percentile(np.array(draws), [2.5, 97.5], axis=0)
    p50, p90, p99 = (float(point) for point in points)
    intervals = [(float(a), float(b)) for a, b in zip(low, high, strict=True)]
    return FileLatency(
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        p50_interval=intervals[0],
        p90_interval=intervals[1],
        p99_interval=intervals[2],
        p99_supported=pooled.size >= _P99_SAMPLES,
        n=int(pooled.size),
        init_ms=float(np.median([run["init_ns"] for run in runs])) / 1e6,
        first_ms=float(np.median([run["first_ns"] for run in runs])) / 1e6,
        partitions=runs[0]["partitions"],
        runtime=runs[0]["runtime"],
        settings=runs[0]["settings"],
    )


def _process_draws(processes: int) -> np.ndarray:
    """(resamples, processes) indices: which processes each resample consists of."""
    return np.random.default_rng(_SEED).integers(0, processes, (_RESAMPLES, processes))


def _note(before: dict[str, Any], after: dict[str, Any], threads: int) -> str:
    notes = []
    if before["load"] is not None and before["load"] > max(0.5, 0.25 * before["cores"]):
        notes.append(
            f"load {before['load']} on {before['cores']} cores when it began: other work ran alongside"
        )
    if threads > before["cores"]:
        notes.append(f"{threads} threads on {before['cores']} cores")
    if before["governor"] != after["governor"]:
        notes.append(f"the governor changed from {before['governor']} to {after['governor']}")
    elif before["governor"] not in (None, "performance"):
        notes.append(f"governor {before['governor']}: clocks may vary")
    return "; ".join(notes)
