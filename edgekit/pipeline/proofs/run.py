"""An artifact's answers, and its inner values, by the runtime that proves it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgekit.lower import tflite
from edgekit.pipeline.job import Built
from edgekit.pipeline.threads import workers
from edgekit.runtimes.registry import RUNTIMES
from edgekit.runtimes.runtime import OpenModel
from edgekit.runtimes.tensorflow.run import run_saved_model
from edgekit.targets import Target
from edgekit.verify.placed import Placed

PROBED = 4  # images on which every operator is compared


def runtime_of(target: Target) -> str:
    """Name and version of what runs a target's files on this machine.

    Raises: UsageError with the line that installs it.
    """
    return RUNTIMES[target.runtime].version()


def answers_of(one: Built, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """All outputs, (N, ...) in the graph's layout."""
    return answering(one)(inputs)


def answering(one: Built) -> Callable[[list[np.ndarray]], list[np.ndarray]]:
    """All outputs for batch after batch; the file is opened once where the runtime can keep it open."""
    if reopens(one):
        return lambda inputs: run_saved_model(one.file.parent, inputs, one.ports)
    return OpenModel(one.file, one.ports, workers=workers())


def reopens(one: Built) -> bool:
    """Whether every batch starts a process of its own."""
    return RUNTIMES[one.target.runtime].files is None


def placed(one: Built) -> Placed:
    """The file with where each value of the graph lies in it."""
    if not RUNTIMES[one.target.runtime].as_written:
        return Placed(one.prepared, one.file, one.tensors, ports=one.ports)
    lowered = tflite.lower(one.prepared, one.target, io_dtype=one.io)
    return Placed(one.prepared, one.file, lowered.tensors, lowered.layouts, one.ports)
