"""One fresh process of a latency measurement; imports numpy and LiteRT, nothing of edgekit or torch.

`python -m edgekit.verify.latency_worker < JOB.json` reads {"files": {name: path}, "samples", "seconds",
"warmup", "warmup_seconds", "max_seconds", "threads", "seed"} and prints one JSON object: per file init_ns,
first_ns, raw samples_ns and delegate partitions. It samples until it has both `samples` rounds and `seconds`,
and stops at `max_seconds` with at least MIN_ROUNDS. The files take turns, one invocation each, and the order
alternates, so a slow moment of the machine hits all of them alike.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

MIN_ROUNDS = 5


def load(path: str, threads: int, seed: int) -> dict[str, Any]:
    """Open a file, fill its inputs with seeded random data, time initialisation and the first inference."""
    start = time.perf_counter_ns()
    interpreter = Interpreter(model_path=path, num_threads=threads)
    interpreter.allocate_tensors()
    init_ns = time.perf_counter_ns() - start
    rng = np.random.default_rng(seed)
    for detail in interpreter.get_input_details():
        kind, shape = np.dtype(detail["dtype"]), detail["shape"]
        if kind.kind in "iu":
            limits = np.iinfo(kind)
            values = rng.integers(limits.min, limits.max, shape, dtype=kind, endpoint=True)
        else:
            values = rng.uniform(-1.0, 1.0, shape).astype(kind)
        interpreter.set_tensor(detail["index"], values)
    start = time.perf_counter_ns()
    interpreter.invoke()
    first_ns = time.perf_counter_ns() - start
    partitions = sum(op["op_name"] == "DELEGATE" for op in interpreter._get_ops_details())
    return {"invoke": interpreter.invoke, "init_ns": init_ns, "first_ns": first_ns, "partitions": partitions}


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Run the job: warm up every file, then take the samples in turns."""
    loaded = {name: load(path, job["threads"], job["seed"]) for name, path in job["files"].items()}
    clock = time.perf_counter_ns
    start, rounds = clock(), 0
    while _goes_on(rounds, (clock() - start) / 1e9, job, job["warmup"], job["warmup_seconds"]):
        for one in loaded.values():
            one["invoke"]()
        rounds += 1
    samples: dict[str, list[int]] = {name: [] for name in loaded}
    order = [(samples[name].append, one["invoke"]) for name, one in loaded.items()]
    begin, taken = clock(), 0
    while _goes_on(taken, (clock() - begin) / 1e9, job, job["samples"], job["seconds"]):
        for keep, invoke in order:
            start = clock()
            invoke()
            keep(clock() - start)
        order.reverse()
        taken += 1
    return {
        "runtime": f"ai-edge-litert {version('ai-edge-litert')}",
        "warmup_rounds": rounds,
        "files": {
            name: {
                "init_ns": one["init_ns"],
                "first_ns": one["first_ns"],
                "partitions": one["partitions"],
                "samples_ns": samples[name],
            }
            for name, one in loaded.items()
        },
    }


def _goes_on(rounds: int, elapsed: float, job: dict[str, Any], wanted: int, seconds: float) -> bool:
    if rounds >= MIN_ROUNDS and elapsed >= job["max_seconds"]:
        return False
    return rounds < wanted or elapsed < seconds


if __name__ == "__main__":
    print(json.dumps(measure(json.load(sys.stdin))))
