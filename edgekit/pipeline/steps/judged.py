"""What a step decides by: accuracy on pictures of the training split that it learns nothing from.

By labels where they are classes of the model, else by the original's answers. Arrays from Python have no
training split: the calibration images are judged by, the first of them alone where the step trains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from edgekit.data import ImageSet, open_images
from edgekit.data.arrays import ArrayImages
from edgekit.data.labels import labels_for
from edgekit.data.source import Given
from edgekit.graph.ir import Graph
from edgekit.graph.run import answers
from edgekit.pipeline.answers import task_of
from edgekit.pipeline.job import Job
from edgekit.pipeline.steps.step import Context

_MOST = 1000  # pictures
_PART = 5  # of images that can end, one in so many is judged by
_BATCH = 32
_ANY = 100_000
Arrays = Sequence[np.ndarray]  # one an input, or one an output
Answering = Callable[[Graph], Callable[[Arrays], Arrays]]


def judged_by(job: Job) -> int:
    """How many images of the training split's first are judged by, where others are learned from."""
    source = job.calibration
    if isinstance(source, Given):
        return min(_MOST, len(source.images) // _PART)
    if source.generated:
        return _MOST
    return min(_MOST, len(open_images(source.spec, "train", _ANY, source.preprocessing)) // _PART)


def in_float(graph: Graph) -> Callable[[Arrays], Arrays]:
    """What a float graph answers to a batch."""

    @torch.inference_mode()
    def answer(batch: Arrays) -> Arrays:
        return [t.numpy() for t in answers(graph, [torch.from_numpy(x) for x in batch])]

    return answer


def judge_of(
    context: Context, count: int | None = None, answering: Answering = in_float
) -> Callable[[Graph], float]:
    """What gives a graph's accuracy, a fraction, on the first `count` images, or as many as suit.

    Args:
        answering: how a graph that is judged answers; the original does in float.
    """
    job = context.job
    task = task_of(context.recipe, job, context.original)
    images: ImageSet | ArrayImages
    if isinstance(job.calibration, Given):
        images = job.calibration.first(count) if count else job.calibration.images
    else:
        images = replace(job.calibration, split="train", count=count or _MOST).images
    labels = None
    if task.name == "classification":
        outputs = task.outputs[task.scored].shape[0]
        labels = labels_for(images, job.name, job.class_names, outputs)

    def answered(answer: Callable[[Arrays], Arrays]) -> list[np.ndarray]:
        found = [answer(batch) for batch in images.input_batches(_BATCH)]
        return [np.concatenate(output) for output in zip(*found, strict=True)]

    meant: Sequence[np.ndarray] = answered(in_float(context.original)) if labels is None else ()

    def judge(graph: Graph) -> float:
        found = answered(answering(graph))
        right = task.same(meant, found) if labels is None else found[task.scored].argmax(1) == labels
        return float(np.mean(right))

    return judge
