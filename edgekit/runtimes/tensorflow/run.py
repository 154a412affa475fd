"""TensorFlow as a second opinion (extra `tensorflow`): its runs of a SavedModel and of a .tflite file.

`run_saved_model` answers images with a hand-over directory. `tensorflow_check` runs a .tflite file under the
interpreter that ships with TensorFlow, with XNNPACK and with the reference kernels, and holds both against
LiteRT: same inputs, outputs compared integer by integer. TensorFlow lives in a process of its own.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import ArtifactError, UsageError
from edgekit.runtimes.litert.run import Runner
from edgekit.runtimes.runtime import Source, open_source

_TIMEOUT_S = 900


@dataclass(frozen=True)
class OutputCheck:
    """One output under one set of kernels against LiteRT.

    kernels: "default" (XNNPACK) or "reference". output: its place in the file. max_lsb: largest difference of
    the integers, None for a float output. max_relative_error: largest difference over the largest number.
    """

    kernels: str
    output: int
    max_lsb: int | None
    mismatch_share: float
    max_relative_error: float


@dataclass(frozen=True)
class TensorflowCheck:
    """max_lsb: over every output and set of kernels, None where no output is an integer. agreement: the share
    of images whose first output has its largest entry at the same place under every set of kernels.
    """

    max_lsb: int | None
    agreement: float
    max_relative_error: float
    images: int
    outputs: tuple[OutputCheck, ...]
    tensorflow: str
    litert: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        worst = (
            f"{self.max_lsb} LSB" if self.max_lsb is not None else f"{self.max_relative_error:.1e} relative"
        )
        return (
            f"TensorFlow {self.tensorflow} against LiteRT {self.litert}: at most {worst} apart, "
            f"top-1 agrees on {self.agreement:.1%} of {self.images} images"
        )


def tensorflow_check(source: Source, images: np.ndarray) -> TensorflowCheck:
    """Hold a .tflite file under TensorFlow's own interpreter against LiteRT.

    Args:
        source: path or bytes of a .tflite file.
        images: float32 (N, C, H, W), N at least 1.
    Raises: UsageError where TensorFlow is not installed, ArtifactError for a file or images that cannot run.
    """
    require_tensorflow()
    images = np.asarray(images, np.float32)
    if images.ndim != 4 or not len(images):
        raise ArtifactError(
            f"images of shape {images.shape} were given: (N, C, H, W) is needed, N at least 1"
        )
    file = open_source(source)
    runner = Runner(file)
    vectors = [runner.raw(image) for image in images]
    job = {"task": "interpreter", "data": file.data, "inputs": [taken for taken, _ in vectors]}
    answer = _asked(job)
    wanted = [given for _, given in vectors]
    rows = tuple(
        _compared(kernels, i, np.stack([w[i] for w in wanted]), np.stack([f[i] for f in found]))
        for kernels, found in answer["outputs"].items()
        for i in range(len(wanted[0]))
    )
    top = [given[0].argmax() for given in wanted]
    same = [
        all(found[n][0].argmax() == best for found in answer["outputs"].values())
        for n, best in enumerate(top)
    ]
    return TensorflowCheck(
        max_lsb=max((row.max_lsb for row in rows if row.max_lsb is not None), default=None),
        agreement=float(np.mean(same)),
        max_relative_error=max(row.max_relative_error for row in rows),
        images=len(images),
        outputs=rows,
        tensorflow=answer["version"],
        litert=version("ai-edge-litert"),
    )


def run_saved_model(directory: str | os.PathLike[str], images: np.ndarray) -> np.ndarray:
    """The first output of a SavedModel's serving_default over many images.

    Args:
        directory: where saved_model.pb lies.
        images: float32 (N, C, H, W), N at least 1; the model takes them as (N, H, W, C).
    Returns: float32 (N, K).
    Raises: UsageError where TensorFlow is not installed, ArtifactError for a directory that holds no model.
    """
    require_tensorflow()
    images = np.asarray(images, np.float32)
    if images.ndim != 4 or not len(images):
        raise ArtifactError(
            f"images of shape {images.shape} were given: (N, C, H, W) is needed, N at least 1"
        )
    if not (Path(directory) / "saved_model.pb").is_file():
        raise ArtifactError(f"{directory}: holds no saved_model.pb: the directory of a SavedModel is needed")
    given = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    answer = _asked({"task": "saved_model", "directory": str(directory), "images": given})
    first = next(iter(answer["outputs"].values()))
    return first.reshape(len(images), -1).astype(np.float32)


def require_tensorflow() -> None:
    """Raises UsageError with the line that installs TensorFlow where it is missing; loads nothing."""
    if importlib.util.find_spec("tensorflow") is None:
        raise UsageError("TensorFlow is not installed: pip install 'edgekit[tensorflow]'")


def _compared(kernels: str, output: int, wanted: np.ndarray, found: np.ndarray) -> OutputCheck:
    steps = np.abs(found.astype(np.float64) - wanted.astype(np.float64))
    worst = float(steps.max(initial=0.0))
    peak = float(np.abs(wanted.astype(np.float64)).max(initial=0.0))
    integer = wanted.dtype.kind in "iu"
    return OutputCheck(
        kernels,
        output,
        int(worst) if integer else None,
        float((steps > 0).mean()),
        worst / peak if peak else worst,
    )


def _asked(job: dict[str, Any]) -> dict[str, Any]:
    """The worker's answer to a job."""
    done = subprocess.run(
        [sys.executable, "-m", "edgekit.runtimes.tensorflow.worker"],
        input=pickle.dumps(job),
        capture_output=True,
        timeout=_TIMEOUT_S,
    )
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"]
        raise ArtifactError(
            f"TensorFlow ended with exit code {done.returncode} ({said[-1][:300]}): "
            "a model it can run is needed"
        )
    return pickle.loads(done.stdout)
