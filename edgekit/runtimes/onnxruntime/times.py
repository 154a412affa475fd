"""What ONNX Runtime's profiler says of the graph it executes, its nodes numbered."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from edgekit.lower.onnx.reader import with_numbered_nodes
from edgekit.runtimes.onnxruntime.audit import executed
from edgekit.runtimes.onnxruntime.run import open_session
from edgekit.runtimes.sources import ModelFile
from edgekit.runtimes.times import PROFILED_RUNS, WARMUP_RUNS, Profiled

_STEM = "edgekit_node_"


def times(file: ModelFile, threads: int, parts: int) -> Profiled:
    """Mean milliseconds of each executed node. Raises: ArtifactError for a file it refuses."""
    import onnxruntime

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
        for _ in range(WARMUP_RUNS + PROFILED_RUNS):
            session.run(None, given)
        events = json.loads(Path(session.end_profiling()).read_text())
    spent: dict[int, list[float]] = {i: [] for i in range(len(found.graph.nodes))}
    for event in events:
        name = str(event.get("name", ""))
        if name.startswith(_STEM) and name.endswith("_kernel_time"):
            spent[int(name[len(_STEM) :].split("_")[0])].append(float(event["dur"]) / 1e3)
    rows = ((i, float(np.mean(runs[WARMUP_RUNS:])) if runs else 0.0) for i, runs in spent.items())
    return Profiled(tuple(rows))
