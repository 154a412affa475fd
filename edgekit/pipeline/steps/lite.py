"""[lite]: surgery on the captured graph, fitted by least squares on the calibration images.

"auto" takes parts of the steps by the milliseconds they win on a board for the accuracy they lose. That is
judged on pictures of the training split, by labels where they are classes of the model, else by the
original's answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from edgekit.data import ImageSet
from edgekit.data.arrays import ArrayImages
from edgekit.data.labels import labels_for
from edgekit.data.source import Given
from edgekit.graph.ir import Graph
from edgekit.graph.run import answers
from edgekit.pipeline.answers import task_of
from edgekit.pipeline.job import Job
from edgekit.pipeline.recipe import Recipe
from edgekit.pipeline.step_settings import AUTO, Lite
from edgekit.pipeline.steps.clock import TARGET, Clock
from edgekit.pipeline.steps.step import Context, Made, Step
from edgekit.surgery import StepRecord, ladder, lite
from edgekit.surgery.record import Climb

_JUDGED = 1000  # pictures of the training split
_BATCH = 32
_MAX_DROP = 0.01


def apply(graph: Graph, settings: Lite, context: Context) -> Made:
    """Raises: UsageError for a module or a board that is not there."""
    images = context.images()
    if settings.steps == (AUTO,):
        made = ladder(
            graph,
            images,
            cost=Clock(context, settings.device).cost(),
            judge=_judge(context),
            max_drop=_max_drop(settings, context.recipe),
            fixed=settings.fixed,
        )
    else:
        made = lite(graph, images, steps=settings.steps, fixed=settings.fixed)
    record: dict[str, Any] = {
        "changed": [{"module": c.module, "what": c.what} for one in made.record for c in one.changes],
        "left": [
            {"module": left.module, "reason": f"{one.step}: {left.reason}"}
            for one in made.record
            for left in one.left
        ],
        "notes": [_note(one) for one in made.record],
    }
    if made.climb is not None:
        record["notes"].insert(0, _climbed(made.climb, settings))
        record["ladder"] = [{**asdict(rung), "modules": list(rung.modules)} for rung in made.climb.rungs]
    if record["changed"]:
        record["fitted"] = len(images[0])
    return made.graph, record


def depends(settings: Lite, recipe: Recipe, job: Job, original: Graph) -> dict[str, Any]:
    found: dict[str, Any] = {"images": job.calibration.identity}
    if settings.steps != (AUTO,):
        return found
    task = task_of(recipe, job, original)
    asked = {"max_drop": _max_drop(settings, recipe), "threads of the runtime": recipe.device.threads}
    return found | asked | {"task": [task.name, task.scored], "classes": job.class_names}


LITE = Step("lite", apply, depends)


def _max_drop(settings: Lite, recipe: Recipe) -> float:
    """What may be lost: what is said here, or of the gate."""
    if settings.max_drop is not None:
        return settings.max_drop
    gate = recipe.verify.max_top1_drop
    return _MAX_DROP if gate is None or isinstance(gate, str) else gate


def _judge(context: Context) -> Callable[[Graph], float]:
    """What gives a captured graph's accuracy, a fraction."""
    job = context.job
    task = task_of(context.recipe, job, context.original)
    images: ImageSet | ArrayImages
    if isinstance(job.calibration, Given):
        images = job.calibration.images
    else:
        images = replace(job.calibration, split="train", count=_JUDGED).images
    labels = None
    if task.name == "classification":
        outputs = task.outputs[task.scored].shape[0]
        labels = labels_for(images, job.name, job.class_names, outputs)

    @torch.inference_mode()
    def answered(graph: Graph) -> list[np.ndarray]:
        found = [
            answers(graph, [torch.from_numpy(x) for x in batch]) for batch in images.input_batches(_BATCH)
        ]
        return [np.concatenate([t.numpy() for t in output]) for output in zip(*found, strict=True)]

    meant: Sequence[np.ndarray] = answered(context.original) if labels is None else ()

    def judge(graph: Graph) -> float:
        found = answered(graph)
        right = task.same(meant, found) if labels is None else found[task.scored].argmax(1) == labels
        return float(np.mean(right))

    return judge


def _note(one: StepRecord) -> str:
    if not one.changes:
        return f"{one.step}: nothing to change."
    near = "" if one.sqnr_db is None else f", answers at {one.sqnr_db:.1f} dB of what they were"
    return f"{one.step}: {len(one.changes)} modules changed, fitted to {one.images} images{near}."


def _climbed(climb: Climb, settings: Lite) -> str:
    taken = sum(rung.taken for rung in climb.rungs)
    lost = 100 * (climb.accuracy_before - climb.accuracy_after)
    return (
        f"{taken} of {len(climb.rungs)} rungs were taken, in order of milliseconds won for each point lost: "
        f"predicted {climb.ms_before:.3f} to {climb.ms_after:.3f} ms of {TARGET} on {settings.device}, "
        f"{lost:.2f} points lost of {100 * climb.max_drop:g} allowed on the images it was judged by."
    )
