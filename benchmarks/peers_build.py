"""One network through litert-torch and ai-edge-quantizer, in a fresh process of the peers' environment.

    .peers/bin/python benchmarks/peers_build.py JOB.json

JOB.json: {"source", "name", "num_classes", "weights": .safetensors, "calibration": .npy float32 (N, C, H, W),
"layout": "default" | "channels-last", "out": folder}. Writes OUT/float.tflite, OUT/int8.tflite and
OUT/build.json with seconds and versions; build.json comes last, so its presence says that all is there.

What is measured is what their documentation shows for a vision network:
`litert_torch.convert(module.eval(), (sample,))`, then a `Quantizer` with the recipe static_wi8_ai8 (int8
activations, int8 weights per channel, min/max ranges), calibrated with one image a step. Layout "default"
keeps PyTorch's NCHW input; "channels-last" adds their `to_channel_last_io`. Their calibration takes 16
threads by default; as many as there are cores is faster, so that is what they get. A one-layer network goes
through everything first: lazy imports are not counted.
"""

from __future__ import annotations

import json
import os
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

VERSION = 1  # of what is asked of the peers: part of every kept file's name
VERSIONS = ("litert-torch", "ai-edge-quantizer", "ai-edge-litert", "torch", "torchvision")


def build(module: nn.Module, images: np.ndarray, layout: str, out: Path) -> dict[str, float]:
    """float.tflite and int8.tflite in `out`, and the wall and processor seconds of each step."""
    import litert_torch
    from ai_edge_quantizer import quantizer, recipe

    float_path, int8_path = out / "float.tflite", out / "int8.tflite"
    start, cpu = time.perf_counter(), time.process_time()
    sample = torch.zeros(1, *images.shape[1:])
    if layout == "channels-last":
        module = litert_torch.to_channel_last_io(module, args=[0]).eval()
        sample, images = sample.permute(0, 2, 3, 1), images.transpose(0, 2, 3, 1)
    converted = litert_torch.convert(module.eval(), (sample,))
    converted.export(str(float_path))
    float_s, float_cpu_s = time.perf_counter() - start, time.process_time() - cpu

    quantizing = quantizer.Quantizer(str(float_path), recipe.static_wi8_ai8())
    feeds = [{"args_0": np.ascontiguousarray(image[None])} for image in images]
    ranges = quantizing.calibrate({"serving_default": feeds}, num_threads=os.cpu_count() or 1)
    calibrate_s = time.perf_counter() - start - float_s
    quantizing.quantize(ranges, enable_progress_report=False).export_model(str(int8_path), overwrite=True)
    return {
        "float_s": float_s,
        "float_cpu_s": float_cpu_s,
        "calibrate_s": calibrate_s,
        "int8_s": time.perf_counter() - start,
        "int8_cpu_s": time.process_time() - cpu,
    }


def warm_up(layout: str) -> None:
    images = np.random.default_rng(0).standard_normal((2, 3, 16, 16), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        build(
            nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval(),
            images,
            layout,
            Path(folder),
        )


def main(job: dict[str, Any]) -> None:
    began = time.perf_counter()
    warm_up(job["layout"])
    out = Path(job["out"])
    out.mkdir(parents=True, exist_ok=True)
    module = seeded.load_module(job["source"], job["name"], job["num_classes"], Path(job["weights"]))
    images = np.load(job["calibration"])
    record: dict[str, Any] = {"imports_s": time.perf_counter() - began}
    record |= build(module, images, job["layout"], out)
    record["versions"] = {name: version(name) for name in VERSIONS}
    record["size_bytes"] = {name: (out / f"{name}.tflite").stat().st_size for name in ("float", "int8")}
    seeded.write_atomic(out / "build.json", lambda path: path.write_text(json.dumps(record, indent=2) + "\n"))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
