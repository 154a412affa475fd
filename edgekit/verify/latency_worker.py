"""One fresh process of a latency measurement; imports numpy and the runtimes it needs, nothing of edgekit.

`python latency_worker.py < JOB.json` reads {"files": {name: {"path", "kind", "settings"}}, "samples",
"seconds", "warmup", "warmup_seconds", "max_seconds", "threads", "seed"} and prints one JSON object: per file
runtime, settings, init_ns, first_ns, raw samples_ns and delegate partitions. It samples until it has both
`samples` rounds and `seconds`, and stops at `max_seconds` with at least MIN_ROUNDS. The files take turns, one
invocation each, and the order alternates, so a slow moment of the machine hits all of them alike.

Every runtime is called with its input already in place and its output left where it is: what is timed is the
network. Pools of one runtime must not slow the others, so none of them spins or is pinned to a core.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

MIN_ROUNDS = 5
Loaded = tuple[Callable[[], Any], int, int]  # invoke, nanoseconds to load, partitions


def load_tflite(path: str, settings: dict[str, Any], seed: int) -> Loaded:
    from ai_edge_litert.interpreter import Interpreter

    start = time.perf_counter_ns()
    interpreter = Interpreter(model_path=path, num_threads=settings["threads"])
    interpreter.allocate_tensors()
    init_ns = time.perf_counter_ns() - start
    rng = np.random.default_rng(seed)
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], random_input(rng, detail["shape"], np.dtype(detail["dtype"])))
    partitions = sum(op["op_name"] == "DELEGATE" for op in interpreter._get_ops_details())
    return interpreter.invoke, init_ns, partitions


def load_onnx(path: str, settings: dict[str, Any], seed: int) -> Loaded:
    import onnxruntime

    start = time.perf_counter_ns()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings["intra_op_threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(settings["allow_spinning"])))
    session = onnxruntime.InferenceSession(path, options, providers=settings["providers"])
    init_ns = time.perf_counter_ns() - start
    rng = np.random.default_rng(seed)
    binding = session.io_binding()
    for entry in session.get_inputs():
        kind = entry.type.removeprefix("tensor(").removesuffix(")")
        dtype = np.dtype({"float": "float32", "double": "float64"}.get(kind, kind))
        shape = [size if isinstance(size, int) else 1 for size in entry.shape]
        binding.bind_cpu_input(entry.name, random_input(rng, shape, dtype))
    for entry in session.get_outputs():
        binding.bind_output(entry.name)
    return lambda: session.run_with_iobinding(binding), init_ns, 1


def load_openvino(path: str, settings: dict[str, Any], seed: int) -> Loaded:
    import openvino

    start = time.perf_counter_ns()
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", settings)
    request = compiled.create_infer_request()
    init_ns = time.perf_counter_ns() - start
    rng = np.random.default_rng(seed)
    for i, port in enumerate(compiled.inputs):
        shape = [1 if size.is_dynamic else size.get_length() for size in port.get_partial_shape()]
        values = random_input(rng, shape, np.dtype(port.get_element_type().to_dtype()))
        request.set_input_tensor(i, openvino.Tensor(values))
    return lambda: request.infer(share_outputs=True), init_ns, 1


LOADERS = {
    "tflite": ("ai-edge-litert", load_tflite),
    "onnx": ("onnxruntime", load_onnx),
    "openvino": ("openvino", load_openvino),
}


def random_input(rng: np.random.Generator, shape: Any, dtype: np.dtype[Any]) -> np.ndarray:
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
    return rng.uniform(-1.0, 1.0, shape).astype(dtype)


def load(asked: dict[str, Any], seed: int) -> dict[str, Any]:
    """Open a file, fill its inputs with seeded random data, time initialisation and the first inference."""
    package, loader = LOADERS[asked["kind"]]
    invoke, init_ns, partitions = loader(asked["path"], asked["settings"], seed)
    start = time.perf_counter_ns()
    invoke()
    return {
        "invoke": invoke,
        "init_ns": init_ns,
        "first_ns": time.perf_counter_ns() - start,
        "partitions": partitions,
        "runtime": f"{package} {version(package)}",
        "settings": asked["settings"],
    }


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Run the job: warm up every file, then take the samples in turns."""
    loaded = {name: load(asked, job["seed"]) for name, asked in job["files"].items()}
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
    kept = ("init_ns", "first_ns", "partitions", "runtime", "settings")
    return {
        "warmup_rounds": rounds,
        "files": {
            name: {key: one[key] for key in kept} | {"samples_ns": samples[name]}
            for name, one in loaded.items()
        },
    }


def _goes_on(rounds: int, elapsed: float, job: dict[str, Any], wanted: int, seconds: float) -> bool:
    if rounds >= MIN_ROUNDS and elapsed >= job["max_seconds"]:
        return False
    return rounds < wanted or elapsed < seconds


if __name__ == "__main__":
    print(json.dumps(measure(json.load(sys.stdin))))
