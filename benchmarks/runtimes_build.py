"""One network as ONNX and OpenVINO files of edgekit and of the runtimes' own quantizers, in a fresh process.

    python benchmarks/runtimes_build.py JOB.json

JOB.json: {"source", "name", "num_classes", "weights": .safetensors, "calibration": .npy float32 (N, C, H, W),
"profile": "fast" | "thorough", "targets": edgekit's, "out": folder}. Writes a folder for each file, named by
target or by the peer ("quantize_static", "nncf"), and OUT/build.json with seconds and versions, which comes
last.

All quantizers get the same images and the same float network, after edgekit's float passes.
quantize_static: edgekit's float ONNX file through onnxruntime's own `quant_pre_process`, then QDQ, min-max,
uint8 activations and int8 weights per channel, which is what its documentation advises for x86. NNCF: its
defaults, on edgekit's float OpenVINO model. edgekit: biases are fitted to each target's placement, as in a
build.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import seeded
import torch

VERSION = 1  # of what is asked of the tools: part of every kept file's name
VERSIONS = ("onnx", "onnxruntime", "openvino", "nncf", "ai-edge-litert", "torch", "torchvision")
FLOAT_ONNX = "onnx-float32"


def edgekit_files(graph: Any, result: Any, images: np.ndarray, name: str) -> Mapping[str, bytes]:
    """The files of one target. graph: float; result: of `edgekit.quantize.quantize`."""
    from edgekit.quantize.placement import fit_biases
    from edgekit.targets import get_target

    target = get_target(name)
    lowering = import_module(f"edgekit.lower.{target.format}")
    prepared = lowering.prepare(result.graph if target.quantized else graph, target)
    if target.quantized and target.format != "tflite":
        fit_biases(prepared, torch.from_numpy(images)[result.order], result.means)
    files: Mapping[str, bytes] = lowering.lower(prepared, target).files
    return files


def quantize_static(model: Path, images: np.ndarray, out: Path) -> None:
    """onnxruntime's int8 file of a float one."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.feeds, None)
            return None if image is None else {taken: np.ascontiguousarray(image[None])}

    import onnx

    taken = onnx.load(model).graph.input[0].name
    ready = out.with_name("prepared.onnx")
    quant_pre_process(str(model), str(ready))
    quantization.quantize_static(
        str(ready),
        str(out),
        Images(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        calibrate_method=quantization.CalibrationMethod.MinMax,
    )
    ready.unlink()


def build(job: dict[str, Any], images: np.ndarray, out: Path) -> dict[str, float]:
    """Every file, and the seconds of each step."""
    from edgekit import passes, quantize
    from edgekit.capture import capture
    from edgekit.lower.openvino.nncf import quantize_with_nncf
    from edgekit.targets import get_target

    seconds: dict[str, float] = {}

    def timed(step: str, make: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        made = make()
        seconds[step] = time.perf_counter() - start
        return made

    module = seeded.load_module(job["source"], job["name"], job["num_classes"], Path(job["weights"]))
    graph = timed("capture", lambda: capture(module, torch.zeros(1, *images.shape[1:]), job["name"]))
    timed("passes", lambda: passes.optimize(graph))
    settings = quantize.QuantizeSettings(profile=job["profile"], calibration=len(images))
    result = timed("quantize", lambda: quantize.quantize(graph, torch.from_numpy(images), settings))
    for name in job["targets"]:
        write(out / name, timed(name, functools.partial(edgekit_files, graph, result, images, name)))
    static = out / "quantize_static" / "model.onnx"
    static.parent.mkdir()
    source = out / FLOAT_ONNX / "model.onnx"
    timed("quantize_static", lambda: quantize_static(source, images, static))
    target = get_target("openvino-int8")
    write(out / "nncf", timed("nncf", lambda: quantize_with_nncf(graph, target, iter(images)).files))
    return seconds


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def main(job: dict[str, Any]) -> None:
    import edgekit

    images, out = np.load(job["calibration"]), Path(job["out"])
    record: dict[str, Any] = {"seconds": build(job, images, out)}
    record["versions"] = {"edgekit": edgekit.__version__} | {name: version(name) for name in VERSIONS}
    text = json.dumps(record, indent=2) + "\n"
    seeded.write_atomic(out / "build.json", lambda path: path.write_text(text))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
