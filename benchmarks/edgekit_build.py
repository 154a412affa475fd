"""One network through edgekit, in a fresh process: the counterpart of peers_build.py, timed the same way.

    python benchmarks/edgekit_build.py JOB.json

JOB.json: {"source", "name", "num_classes", "weights", "calibration", "profile": "fast" | "thorough", "out":
folder}. Writes OUT/float.tflite, OUT/int8.tflite and OUT/build.json. Capture and the float passes serve
both files; `float_s` and `int8_s` each run from the module to the written file. A one-layer network goes
through everything first: lazy imports are not counted.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import seeded
import torch
from torch import nn

VERSION = 1  # of what is asked of edgekit: part of every kept file's name
VERSIONS = ("ai-edge-litert", "torch", "torchvision")


def build(module: nn.Module, images: np.ndarray, profile: Any, name: str, out: Path) -> dict[str, Any]:
    """float.tflite and int8.tflite in `out`, and the wall and processor seconds of each step."""
    from edgekit import passes, quantize
    from edgekit.capture import capture
    from edgekit.lower.tflite import lower, prepare
    from edgekit.targets import get_target

    steps: dict[str, float] = {}
    last = time.perf_counter(), time.process_time()

    def mark(step: str) -> None:
        nonlocal last
        now = time.perf_counter(), time.process_time()
        steps[f"{step}_s"], steps[f"{step}_cpu_s"] = now[0] - last[0], now[1] - last[1]
        last = now

    graph = capture(module, torch.zeros(1, *images.shape[1:]), name)
    mark("capture")
    passes.optimize(graph)
    mark("passes")
    settings = quantize.QuantizeSettings(profile=profile, calibration=len(images))
    result = quantize.quantize(graph, torch.from_numpy(images), settings)
    mark("quantize")
    target = get_target("tflite-int8")
    (out / "int8.tflite").write_bytes(lower(prepare(result.graph, target), target).data)
    mark("lower_int8")
    target = get_target("tflite-float32")
    (out / "float.tflite").write_bytes(lower(prepare(graph, target), target).data)
    mark("lower_float")
    record: dict[str, Any] = {"steps": steps, "quantize_report": result.report}
    for unit in ("s", "cpu_s"):
        shared = steps[f"capture_{unit}"] + steps[f"passes_{unit}"]
        record[f"float_{unit}"] = shared + steps[f"lower_float_{unit}"]
        record[f"int8_{unit}"] = shared + steps[f"quantize_{unit}"] + steps[f"lower_int8_{unit}"]
    return record


def warm_up(profile: str) -> None:
    images = np.random.default_rng(0).standard_normal((8, 3, 16, 16), np.float32)
    layers = (
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )
    with tempfile.TemporaryDirectory() as folder:
        build(nn.Sequential(*layers).eval(), images, profile, "warm_up", Path(folder))


def main(job: dict[str, Any]) -> None:
    import edgekit

    began = time.perf_counter()
    warm_up(job["profile"])
    out = Path(job["out"])
    out.mkdir(parents=True, exist_ok=True)
    module = seeded.load_module(job["source"], job["name"], job["num_classes"], Path(job["weights"]))
    images = np.load(job["calibration"])
    record: dict[str, Any] = {"imports_s": time.perf_counter() - began}
    record |= build(module, images, job["profile"], job["name"], out)
    record["versions"] = {"edgekit": edgekit.__version__} | {name: version(name) for name in VERSIONS}
    record["size_bytes"] = {name: (out / f"{name}.tflite").stat().st_size for name in ("float", "int8")}
    text = json.dumps(record, indent=2, default=str) + "\n"
    seeded.write_atomic(out / "build.json", lambda path: path.write_text(text))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
