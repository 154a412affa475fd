"""A model's answers over the evaluation images, on disk: one .npy an output; and what they mean, the task.

Outputs can be maps, and a few thousand of them do not fit into memory: they are filled and read as memory
maps. Where all answers together would exceed LIMIT_BYTES, fewer images are evaluated.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from edgekit.data.labels import labels_for
from edgekit.data.shapes import GENERATED
from edgekit.data.source import Given
from edgekit.errors import DataError, UsageError
from edgekit.graph.batch import bytes_per_image
from edgekit.graph.file import graph_hash
from edgekit.graph.ir import Graph
from edgekit.graph.run import answers as graph_answers
from edgekit.graph.run import per_image
from edgekit.pipeline.job import Form, Job
from edgekit.pipeline.recipe import Recipe
from edgekit.pipeline.session import Line, Session
from edgekit.quantize.images import BATCH_BYTES
from edgekit.tasks import Drift, Known, Output, Task, choose

LIMIT_BYTES = 1_000_000_000
_CHUNK_BYTES = 64_000_000
_CHUNK = 256  # images
BATCH = 32  # images that run at a time, where what runs them stays open


class Answers:
    """Arrays (N, *what belongs to one image), one a graph output, that are being filled."""

    def __init__(self, directory: Path, graph: Graph, count: int) -> None:
        self.filled = 0
        self.arrays = [
            np.lib.format.open_memmap(
                directory / f"output{i}.npy",
                mode="w+",
                dtype=np.dtype(value.dtype),
                shape=(count, *per_image(value.shape)),
            )
            for i, value in enumerate(graph.outputs)
        ]

    def add(self, outputs: Sequence[np.ndarray]) -> int:
        """Append the outputs for some images; returns how many are there."""
        stop = self.filled + len(outputs[0])
        for array, output in zip(self.arrays, outputs, strict=True):
            array[self.filled : stop] = output
        self.filled = stop
        return stop

    def close(self) -> None:
        for array in self.arrays:
            array.flush()


def task_of(recipe: Recipe, job: Job, graph: Graph) -> Task:
    """What the graph's outputs mean: as the recipe says, or by what is known of the model.

    Raises: UsageError for a task that no output fits, and for labels that no output answers.
    """
    outputs = [Output(v.name, per_image(v.shape), v.dtype) for v in graph.outputs]
    labels = _labels(job, outputs)
    known = Known(job.variant.original.identity is not None, labels, job.class_names)
    task = choose(recipe.task.name, outputs, known)
    given = labels is not None and isinstance(job.evaluation, Given)
    if given and task.name == "tensors" and recipe.task.name == "auto":
        told = ", ".join(f"{o.name} {list(o.shape)}" for o in outputs)
        raise UsageError(
            f"evaluation: labels, and no output of class scores among {told}: none, or one class an image "
            "for a vector, one a pixel for a map"
        )
    size = task.outputs[task.scored].shape[1:]
    if given and task.name == "segmentation" and labels != size:
        raise DataError(f"evaluation: masks of {labels} for a map of {size}: a class for every pixel of it")
    return task


def _labels(job: Job, outputs: Sequence[Output]) -> tuple[int, ...] | None:
    """Shape of one image's label, None without labels that can mean the model's classes.

    Opens no pictures.
    """
    source, known = job.evaluation, job.class_names
    if source is None:
        return None
    if isinstance(source, Given):
        labels = source.images.labels
        return None if labels is None else labels.shape[1:]
    if not source.generated:
        return ()
    names = GENERATED[source.spec].class_names
    if known is not None:
        return () if set(names) <= set(known) else None
    return () if any(output.shape == (len(names),) for output in outputs) else None


def answered(session: Session, job: Job, task: Task, graph: Graph, label: str = "") -> Path | None:
    """Directory with a graph's answers in float, labels.npy (if any) and images.json.

    The original's are the reference.
    """
    source = job.evaluation
    if source is None:
        return None

    def make(directory: Path, line: Line) -> None:
        asked = len(source.images)
        images = source.images.first(affordable(graph, asked))
        labels = None
        if task.name == "classification":
            classes = task.outputs[task.scored].shape[0]
            labels = labels_for(images, job.name, job.class_names, classes)
        elif task.name == "segmentation" and images.labels is not None and images.labels.ndim == 3:
            labels = images.labels
        found = Answers(directory, graph, len(images))
        with torch.inference_mode():
            for batch in images.input_batches(_at_once(graph)):
                given = graph_answers(graph, [_channels_last(torch.from_numpy(x)) for x in batch])
                line.advance(found.add([t.numpy() for t in given]), len(images))
        found.close()
        if labels is not None:
            np.save(directory / "labels.npy", labels)
        about = {"name": images.name, "n": len(images), "asked": asked, "sha256": images.sha256}
        (directory / "images.json").write_text(json.dumps(about))

    key = {
        "graph": graph_hash(graph),
        "images": source.identity,
        "task": [task.name, task.scored],
        "threads": torch.get_num_threads(),  # the order of float sums
    }
    return session.stage("reference", key, make, label)


def variant_drift(session: Session, job: Job, task: Task, form: Form, reference: Path | None) -> Drift | None:
    """What a variant lost in float against its original; None without images."""
    if reference is None:
        return None
    given = answered(session, job, task, form.graph, form.variant.step)
    assert given is not None
    labels = reference / "labels.npy"
    return task.drift(load(reference), load(given), np.load(labels) if labels.exists() else None)


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def load(directory: Path) -> list[np.ndarray]:
    """The answers under a directory, read from disk as they are used."""
    paths = sorted(directory.glob("output*.npy"), key=lambda path: int(path.stem.removeprefix("output")))
    return [np.load(path, mmap_mode="r") for path in paths]


def affordable(graph: Graph, asked: int) -> int:
    """How many of `asked` images can be answered without exceeding LIMIT_BYTES; at least one."""
    return max(1, min(asked, LIMIT_BYTES // max(_bytes(graph), 1)))


def chunk(graph: Graph) -> int:
    """Images whose inputs and outputs are in memory at a time."""
    taken = sum(4 * int(np.prod(value.shape)) for value in graph.inputs)
    return max(1, min(_CHUNK, _CHUNK_BYTES // max(_bytes(graph), 1), 4 * _CHUNK_BYTES // max(taken, 1)))


def _at_once(graph: Graph) -> int:
    """Images that the float graph runs at a time: its values are in memory too."""
    return max(1, min(BATCH, chunk(graph), BATCH_BYTES // bytes_per_image(graph)))


def _bytes(graph: Graph) -> int:
    """Of one image's answers."""
    return sum(int(np.prod(v.shape)) * np.dtype(v.dtype).itemsize for v in graph.outputs)
