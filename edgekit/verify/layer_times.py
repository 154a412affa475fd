"""Where a file's milliseconds go: a model file -> LayerTimes, one row for every part that can be timed alone.

XNNPACK hides the operators it takes, and running it without fusion times another program. A .tflite file is
therefore cut after the k-th operator, for some two dozen k, and the prefixes are timed as `latency` times
files: in fresh processes, in turns. The time of the operators between two cuts is the median, over rounds, of
the difference of the two neighbours, which ran right after one another: what disturbs the machine meanwhile
mostly hits both. No cut falls inside a chain that XNNPACK folds into one table.

ONNX Runtime and OpenVINO time every operator they execute themselves; their profilers cost time, so what they
say is taken as shares of the file's own latency.

In both cases negative differences count as nothing and the rows are scaled so that they add up to the whole:
`total_ms` is measured, a row is an estimate, and `raw_ms` is what it was before scaling. Differences of a few
microseconds are noise.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.lower.onnx.reader import with_numbered_nodes
from edgekit.lower.tflite.expose import prefix
from edgekit.lower.tflite.reader import read_model
from edgekit.runtimes.audit import OpRecord, audit
from edgekit.runtimes.litert.audit import table_chains
from edgekit.runtimes.sources import ModelFile, Source, open_source
from edgekit.verify.latency import Profile, latency

CUTS = 24
PROFILED_RUNS = 50
_WARMUP_RUNS = 5
LAYERS = Profile(
    "layers", 2, 100, 0.0, 15.0, 3, 0.1
)  # "quick" would end after a few rounds of two dozen files
_STEM = "edgekit_node_"


@dataclass(frozen=True)
class LayerTime:
    """Operators timed together. operators: their indices in `Audit.ops`. share: 0..1 of the whole."""

    operators: tuple[int, ...]
    ops: tuple[str, ...]
    modules: tuple[str, ...]
    ms: float
    share: float
    raw_ms: float


@dataclass(frozen=True)
class LayerTimes:
    """total_ms: the whole file's median latency. method: "prefixes" or "profiler"."""

    total_ms: float
    method: str
    rows: tuple[LayerTime, ...]
    runtime: str
    profile: str

    def slowest(self, count: int = 5) -> list[LayerTime]:
        return sorted(self.rows, key=lambda row: -row.ms)[:count]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for report.json."""
        return asdict(self)


def layer_times(
    source: Source,
    modules: Mapping[str, str] | None = None,
    *,
    profile: str | Profile = LAYERS,
    threads: int = 1,
    cuts: int = CUTS,
) -> LayerTimes:
    """Time the parts of a model file on this machine.

    Args:
        modules: module path for each tensor or operator name, as in `audit`.
        profile: as in `latency`; more samples make short operators visible.
        cuts: parts of a .tflite file; its number of operators at most. The others give one row an operator.
    Raises: ArtifactError for a file that does not run.
    """
    file = open_source(source)
    rows = audit(file.files, modules).ops
    if file.kind == "tflite":
        return _by_prefixes(file, rows, profile, threads, cuts)
    timed = _onnx(file, threads) if file.kind == "onnx" else _openvino(file, threads)
    whole = latency({"whole": file.files}, profile=profile, threads=threads)
    groups = [((index,), milliseconds) for index, milliseconds in timed]
    return _scaled(groups, rows, whole.files["whole"].p50_ms, "profiler", whole.runtime, whole.profile)


def cut_points(operators: int, inseparable: Sequence[tuple[int, int]], cuts: int) -> list[int]:
    """How many operators each prefix keeps, ascending, the last one all of them.

    Args:
        inseparable: (first, last) operator of chains that stay whole.
    """
    inside = {k for first, last in inseparable for k in range(first + 1, last + 1)}
    allowed = [k for k in range(1, operators + 1) if k not in inside]
    wanted = min(max(1, cuts), len(allowed))
    places = np.linspace(0, len(allowed), wanted + 1)[1:].round().astype(int) - 1
    return [allowed[place] for place in places]


def _by_prefixes(
    file: ModelFile, rows: tuple[OpRecord, ...], profile: str | Profile, threads: int, cuts: int
) -> LayerTimes:
    graph = read_model(file.data, file.where).main
    chains = [(chain[0].index, chain[-1].index) for chain in table_chains(graph)]
    points = cut_points(len(rows), chains, cuts)
    files: dict[str, Source] = {str(k): prefix(file.data, k) for k in points[:-1]}
    files[str(points[-1])] = file.data
    found = latency(files, profile=profile, threads=threads)
    rounds = [np.stack(runs) for runs in zip(*(found.samples_ns[str(k)] for k in points), strict=True)]
    steps = np.median(np.concatenate([np.diff(run, axis=0, prepend=0) for run in rounds], axis=1), axis=1)
    starts = [0, *points[:-1]]
    groups = [
        (tuple(range(start, end)), float(step) / 1e6)
        for start, end, step in zip(starts, points, steps, strict=True)
    ]
    whole = found.files[str(points[-1])].p50_ms
    return _scaled(groups, rows, whole, "prefixes", found.runtime, found.profile)


def _scaled(
    groups: Sequence[tuple[tuple[int, ...], float]],
    rows: tuple[OpRecord, ...],
    total_ms: float,
    method: str,
    runtime: str,
    profile: str,
) -> LayerTimes:
    clipped = [max(0.0, milliseconds) for _, milliseconds in groups]
    scale = total_ms / sum(clipped) if sum(clipped) else 0.0
    return LayerTimes(
        total_ms,
        method,
        tuple(
            LayerTime(
                indices,
                tuple(rows[i].op for i in indices),
                tuple(dict.fromkeys(rows[i].module for i in indices)),
                own * scale,
                own * scale / total_ms if total_ms else 0.0,
                raw,
            )
            for (indices, raw), own in zip(groups, clipped, strict=True)
        ),
        runtime,
        profile,
    )


def _onnx(file: ModelFile, threads: int) -> list[tuple[int, float]]:
    """(operator, mean milliseconds) by ONNX Runtime's profiler, of the graph it executes, nodes numbered."""
    import onnxruntime

    from edgekit.runtimes.onnxruntime.audit import executed
    from edgekit.runtimes.onnxruntime.run import open_session

    found = executed(file)
    given = {t.name: np.zeros([max(1, size) for size in t.shape], t.dtype) for t in found.graph.inputs}
    with tempfile.TemporaryDirectory(prefix="edgekit-profile-") as folder:
        session = open_session(
            with_numbered_nodes(found.data, _STEM),
            file.where,
            threads,
            graph_optimization_level=onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
            enable_profiling=True,
            profile_file_prefix=str(Path(folder, "profile")),
        )
        for _ in range(_WARMUP_RUNS + PROFILED_RUNS):
            session.run(None, given)
        events = json.loads(Path(session.end_profiling()).read_text())
    spent: dict[int, list[float]] = {i: [] for i in range(len(found.graph.nodes))}
    for event in events:
        name = str(event.get("name", ""))
        if name.startswith(_STEM) and name.endswith("_kernel_time"):
            spent[int(name[len(_STEM) :].split("_")[0])].append(float(event["dur"]) / 1e3)
    return [(i, float(np.mean(runs[_WARMUP_RUNS:])) if runs else 0.0) for i, runs in spent.items()]


def _openvino(file: ModelFile, threads: int) -> list[tuple[int, float]]:
    """(operator, mean milliseconds) by OpenVINO's performance counters."""
    from edgekit.runtimes.openvino.audit import executed
    from edgekit.runtimes.openvino.run import compile_network, read_network

    _, steps = executed(file)
    compiled = compile_network(file, read_network(file), threads, PERF_COUNT=True)
    request = compiled.create_infer_request()
    places = {step.node.get_friendly_name(): i for i, step in enumerate(steps)}
    spent: dict[int, list[float]] = {i: [] for i in range(len(steps))}
    for run in range(_WARMUP_RUNS + PROFILED_RUNS):
        request.infer(share_outputs=True)
        for entry in request.profiling_info if run >= _WARMUP_RUNS else ():
            if entry.node_name in places:
                spent[places[entry.node_name]].append(entry.real_time.total_seconds() * 1e3)
    return [(i, float(np.mean(runs)) if runs else 0.0) for i, runs in spent.items()]
