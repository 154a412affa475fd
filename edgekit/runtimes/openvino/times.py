"""What OpenVINO's performance counters say of the operators it executes."""

from __future__ import annotations

import numpy as np

from edgekit.runtimes.openvino.audit import executed
from edgekit.runtimes.openvino.run import compile_network, read_network
from edgekit.runtimes.sources import ModelFile
from edgekit.runtimes.times import PROFILED_RUNS, WARMUP_RUNS, Profiled


def times(file: ModelFile, threads: int, parts: int) -> Profiled:
    """Mean milliseconds of each executed operator. Raises: ArtifactError for a file it refuses."""
    _, steps = executed(file)
    compiled = compile_network(file, read_network(file), threads, PERF_COUNT=True)
    request = compiled.create_infer_request()
    places = {step.node.get_friendly_name(): i for i, step in enumerate(steps)}
    spent: dict[int, list[float]] = {i: [] for i in range(len(steps))}
    for run in range(WARMUP_RUNS + PROFILED_RUNS):
        request.infer(share_outputs=True)
        for entry in request.profiling_info if run >= WARMUP_RUNS else ():
            if entry.node_name in places:
                spent[places[entry.node_name]].append(entry.real_time.total_seconds() * 1e3)
    return Profiled(tuple((i, float(np.mean(runs)) if runs else 0.0) for i, runs in spent.items()))
