"""One face over the runtimes of this machine, chosen by the kind of file.

    .tflite      LiteRT with XNNPACK     litert/run.py
    .onnx        ONNX Runtime, CPU       onnxruntime/run.py
    .xml + .bin  OpenVINO, CPU           openvino/run.py

Enters: a model file (path, bytes or a lowering's files) and float images. Leaves: arrays. A damaged file is
an ArtifactError, a runtime that is not installed a UsageError with the line that installs it. Runtimes are
imported when a file asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import numpy as np

from edgekit.errors import ArtifactError
from edgekit.runtimes.sources import ModelFile, Source, kind_of, open_source

_MODULES = {
    "tflite": "edgekit.runtimes.litert.run",
    "onnx": "edgekit.runtimes.onnxruntime.run",
    "openvino": "edgekit.runtimes.openvino.run",
}


def run_model(
    source: Source | ModelFile,
    images: np.ndarray,
    *,
    threads: int = 1,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Logits of a classifier file over many images.

    Args:
        images: float32 (N, C, H, W), preprocessed as the float model takes them.
        threads: of each session. workers: sessions that run side by side, each on its share.
        progress: called with the number of images done since the last call, from the workers' threads.
    Returns: float32 (N, K), dequantized by the file's own output scale; the file's first output.
    """
    file = open_source(source)
    images = np.asarray(images, np.float32)
    if images.ndim != 4:
        raise ArtifactError(f"images of shape {images.shape} were given: (N, C, H, W) is needed")

    def share(part: np.ndarray) -> list[np.ndarray]:
        runner = _module(file.kind).Runner(file, threads)
        rows = []
        for image in part:
            rows.append(runner.real(image)[0].reshape(-1))
            if progress:
                progress(1)
        return rows

    if workers <= 1 or len(images) < 2 * workers:
        rows = share(images)
    else:
        with ThreadPoolExecutor(workers) as pool:
            rows = [row for part in pool.map(share, np.array_split(images, workers)) for row in part]
    return np.stack(rows) if rows else np.zeros((0, 0), np.float32)


def run_vector(source: Source | ModelFile, image: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """One image through the file: the input tensors as the model takes them, the outputs as it gives them.

    Args:
        image: float32 (C, H, W), preprocessed as the float model takes it.
    """
    file = open_source(source)
    return _module(file.kind).Runner(file).raw(image)


def read_values(
    source: Source | ModelFile, names: Sequence[str], images: np.ndarray
) -> dict[str, np.ndarray]:
    """Inner tensors of a file, by the names they have in it.

    Args:
        names: tensors that some operator of the file writes (`Lowered.tensors` has them per graph value).
        images: float32 (N, C, H, W).
    Returns: name -> float32 (N, *the tensor's shape in the file), dequantized. The tensors become further
        outputs of a copy of the file.
    """
    file = open_source(source)
    return _module(file.kind).read_values(file, list(names), np.asarray(images, np.float32))


def runtime_version(kind: str = "tflite") -> str:
    """Name and version of the runtime for a kind of file."""
    return _module(kind).version()


def settings(kind: str, threads: int = 1) -> dict[str, Any]:
    """What a runtime is told besides the file, as it stands in a report."""
    return _module(kind).settings(threads)


def _module(kind: str) -> Any:
    return import_module(_MODULES[kind])


__all__ = [
    "ModelFile",
    "Source",
    "kind_of",
    "open_source",
    "read_values",
    "run_model",
    "run_vector",
    "runtime_version",
    "settings",
]
