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
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import ArtifactError, UsageError
from edgekit.lower.ports import Ports
from edgekit.runtimes.layout import to_file, to_graph
from edgekit.runtimes.litert.run import Runner
from edgekit.runtimes.runtime import Inputs, Source, as_inputs, laid_out, open_source

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
    of images whose outputs all have their largest entry at the same place under every set of kernels.
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


def tensorflow_check(source: Source, inputs: Inputs, ports: Ports | None = None) -> TensorflowCheck:
    """Hold a .tflite file under TensorFlow's own interpreter against LiteRT.

    Args:
        source: path or bytes of a .tflite file.
        inputs, ports: as for `run_model`, N at least 1.
    Raises: UsageError where TensorFlow is not installed, ArtifactError for a file or images that cannot run.
    """
    require_tensorflow()
    arrays = _some(inputs)
    count = len(arrays[0])
    file = open_source(source)
    runner = Runner(file)
    vectors = [
        runner.raw(laid_out(runner.inputs, [array[i : i + 1] for array in arrays], ports))
        for i in range(count)
    ]
    job = {"task": "interpreter", "data": file.data, "inputs": [taken for taken, _ in vectors]}
    answer = _asked(job)
    wanted = [given for _, given in vectors]
    rows = tuple(
        _compared(kernels, i, np.stack([w[i] for w in wanted]), np.stack([f[i] for f in found]))
        for kernels, found in answer["outputs"].items()
        for i in range(len(wanted[0]))
    )
    same = [
        all(
            found[n][i].argmax() == output.argmax()
            for found in answer["outputs"].values()
            for i, output in enumerate(given)
        )
        for n, given in enumerate(wanted)
    ]
    return TensorflowCheck(
        max_lsb=max((row.max_lsb for row in rows if row.max_lsb is not None), default=None),
        agreement=float(np.mean(same)),
        max_relative_error=max(row.max_relative_error for row in rows),
        images=count,
        outputs=rows,
        tensorflow=answer["version"],
        litert=metadata.version("ai-edge-litert"),
    )


def run_saved_model(directory: str | os.PathLike[str], inputs: Inputs, ports: Ports) -> list[np.ndarray]:
    """Every output of a SavedModel's serving_default over many images.

    Args:
        directory: where saved_model.pb lies.
        inputs: float32, one array an input, (N, ...), N at least 1. ports: those of the lowering.
    Returns: one array an output, in the graph's order and layout: (N, *what belongs to one image).
    Raises: UsageError where TensorFlow is not installed, ArtifactError for a directory that holds no model.
    """
    require_tensorflow()
    arrays = _some(inputs)
    if not (Path(directory) / "saved_model.pb").is_file():
        raise ArtifactError(f"{directory}: holds no saved_model.pb: the directory of a SavedModel is needed")
    given = {port.name: to_file(array, port.layout) for port, array in zip(ports.inputs, arrays, strict=True)}
    answer = _asked({"task": "saved_model", "directory": str(directory), "inputs": given})["outputs"]
    found = []
    for port in ports.outputs:
        rows = answer[port.name]  # images one after the other along its first dimension
        rows = to_graph(rows, port.layout, (len(rows), *port.shape[1:])) if port.shape else rows
        found.append(rows.reshape(len(arrays[0]), *port.row))
    return found


def _some(inputs: Inputs) -> list[np.ndarray]:
    arrays = as_inputs(inputs)
    if not len(arrays[0]):
        raise ArtifactError(f"inputs of shape {arrays[0].shape} were given: N at least 1")
    return arrays


def require_tensorflow() -> None:
    """Raises UsageError with the line that installs TensorFlow where it is missing; loads nothing."""
    if importlib.util.find_spec("tensorflow") is None:
        raise UsageError("TensorFlow is not installed: pip install 'edgekit[tensorflow]'")


def version() -> str:
    """Name and version. Raises: UsageError where TensorFlow is missing."""
    require_tensorflow()
    return f"tensorflow {metadata.version('tensorflow')}"


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
