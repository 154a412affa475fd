"""[train]: the variant's graph as a module, trained on the training split with the original as its teacher.

Where the images' labels are no classes of the model, or nobody labelled them, the teacher's answers are all
there is to learn; of outputs that are no class scores they are learned as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from edgekit.data import ImageSet
from edgekit.data.labels import labels_for
from edgekit.data.shapes import GENERATED
from edgekit.data.source import Given
from edgekit.errors import UsageError
from edgekit.files import user_path
from edgekit.graph.ir import Graph
from edgekit.graph.module import as_module
from edgekit.pipeline.answers import task_of
from edgekit.pipeline.job import Job
from edgekit.pipeline.recipe import Recipe
from edgekit.pipeline.step_settings import Train
from edgekit.pipeline.steps.step import Context, Made, Step
from edgekit.tasks import Task
from edgekit.train.data import Data, EmbeddedData, Inputs, PictureData, open_data, tensor_data
from edgekit.train.loop import chosen_device
from edgekit.train.run import run_training


def apply(graph: Graph, settings: Train, context: Context) -> Made:
    """Raises: UsageError, DataError, TrainError as `edgekit.train.run_training`."""
    data, told, labelled = lesson(settings, context)
    module = as_module(graph)
    teacher = None if alone(told, labelled) else as_module(context.original).eval()
    done = run_training(
        module,
        data,
        told,
        teacher=teacher,
        function=told.function,
        directory=context.work,
        progress=context.line.advance,
    )
    record: dict[str, Any] = {"notes": _notes(done, told, context, teacher is not None, labelled)}
    if "losses" in done:
        record |= {"settings": decided(settings, done), "losses": list(done["losses"])}
    return module.to_graph(), record


def depends(settings: Train, recipe: Recipe, job: Job, original: Graph) -> dict[str, Any]:
    task = task_of(recipe, job, original)
    found = {
        "data": dict(training_data(settings, job, task).identity),
        "task": [task.name, task.scored],
        "device": chosen_device(settings).type,
    }
    if settings.function is not None:
        found["function"] = hashlib.sha256(_source(settings.function)).hexdigest()
    return found


TRAIN = Step("train", apply, depends)


@dataclass(frozen=True)
class _Renumbered:
    """Data with its labels as the model numbers them.

    places: class of the data -> output of the model; None where they are no classes of the model.
    """

    data: Data
    places: tuple[int, ...] | None

    @property
    def count(self) -> int | None:
        return self.data.count

    @property
    def identity(self) -> Mapping[str, Any]:
        return {**self.data.identity, "places": self.places and list(self.places)}

    def batches(
        self, step: int, batch: int, size: int | None, seed: int
    ) -> tuple[Inputs, torch.Tensor | None]:
        inputs, labels = self.data.batches(step, batch, size, seed)
        if labels is None or self.places is None:
            return inputs, None
        return inputs, torch.tensor(self.places)[labels]


def lesson(settings: Train, context: Context, skip: int = 0) -> tuple[Data, Train, bool]:
    """What is learned from, the settings that it and the outputs leave, and whether labels are learned.

    Args: skip: images of the training split that are left out.
    """
    task = task_of(context.recipe, context.job, context.original)
    data = training_data(settings, context.job, task, skip)
    labelled = isinstance(data, _Renumbered) and data.places is not None
    if isinstance(data, _Renumbered) and isinstance(data.data, EmbeddedData):
        data = replace(data, data=replace(data.data, cache=context.cache / "pictures"))
    return data, told_of(settings, task, labelled), labelled


def training_data(settings: Train, job: Job, task: Task, skip: int = 0) -> Data:
    """The training split of a recipe's images; of arrays from Python those to calibrate with.

    The first `skip` images are left out.
    """
    source = job.calibration
    if isinstance(source, Given):
        return tensor_data(tuple(array[skip:] for array in source.images.arrays))
    count, preprocessing = settings.images, source.preprocessing
    if settings.steps is not None:  # no more are generated than are asked for
        count = min(count, settings.steps * max(stage.batch or 0 for stage in settings.planned))
    data = open_data(source.spec, preprocessing, most=settings.images + skip, pool=count, seed=settings.seed)
    if isinstance(data, PictureData):
        data = replace(data, images=data.images.rest(skip))
    elif isinstance(data, EmbeddedData):
        data = replace(data, first=data.first + skip)
    if task.name != "classification":
        return _Renumbered(data, None)
    if isinstance(data, PictureData):
        named, labelled = data.images, data.images.labels is not None
    else:
        names = GENERATED[source.spec].class_names
        nothing = np.empty((len(names), 1, 1, 3), np.uint8)
        named, labelled = ImageSet(source.spec, names, nothing, None, preprocessing), True
    if not labelled:
        return _Renumbered(data, None)
    each = replace(named, labels=np.arange(len(named.class_names)))
    places = labels_for(each, job.name, job.class_names, task.outputs[task.scored].shape[0])
    return _Renumbered(data, None if places is None else tuple(places.tolist()))


def told_of(settings: Train, task: Task, labelled: bool) -> Train:
    """The settings with what the data and the outputs leave no choice of."""
    if settings.function is not None:
        return settings
    if task.name == "tensors" or len(task.outputs) > 1:
        return replace(settings, match="outputs")
    return settings if labelled else replace(settings, hard_share=0.0)


def alone(settings: Train, labelled: bool) -> bool:
    """Whether only labels are learned."""
    return settings.function is None and settings.match == "classes" and labelled and settings.hard_share == 1


def decided(settings: Train, done: Mapping[str, Any]) -> dict[str, Any]:
    """The steps that minutes came to; of several stages no number of steps is the same training."""
    if settings.minutes is None or settings.stages:
        return {}
    return {"minutes": None, "steps": done["steps"]}


def _notes(done: Mapping[str, Any], told: Train, context: Context, taught: bool, labelled: bool) -> list[str]:
    if told.function is not None:
        return [f"Trained by {told.function}."]
    pictures = sum(batch * steps for _, batch, steps in done["stages"])
    seconds = done["seconds"]
    took = f"{seconds / 60:.1f} minutes" if seconds > 90 else f"{seconds:.1f} seconds"
    where = "of the processor" if done["device"] == "cpu" else f"on {done['device']}"
    notes = [
        f"Trained for {done['steps']} steps, {pictures} images, {took} {where}: "
        f"the loss went from {done['losses'][0]:.4g} to {done['losses'][-1]:.4g}."
    ]
    if not taught:
        return [*notes, "It learned the labels."]
    if told.match == "outputs":
        return [*notes, "It learned the original's outputs as they are."]
    if labelled:
        return [
            *notes,
            f"It learned the original's answers, and the labels with a share of {told.hard_share:g}.",
        ]
    if isinstance(context.job.calibration, Given):
        return [*notes, "It learned the original's answers on the calibration images."]
    return [*notes, "It learned the original's answers; the images' labels are no classes of the model."]


def _source(function: str) -> bytes:
    path = user_path(function.rpartition(":")[0])
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"[train] {path}: cannot be read ({error.strerror}): FILE.py:FUNCTION") from error
