"""[lite]: surgery on the captured graph, fitted by least squares on the calibration images, then recovered.

"auto" takes parts of the steps by the milliseconds they win on a board for the accuracy they lose, which is
judged on pictures of the training split (`judged.py`).
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from edgekit.graph.ir import Graph
from edgekit.pipeline.answers import task_of
from edgekit.pipeline.job import Job
from edgekit.pipeline.recipe import Recipe
from edgekit.pipeline.step_settings import AUTO, Lite
from edgekit.pipeline.steps import recovery
from edgekit.pipeline.steps.clock import TARGET, Clock
from edgekit.pipeline.steps.judged import judge_of, judged_by
from edgekit.pipeline.steps.recovery import Recoverer
from edgekit.pipeline.steps.step import Context, Made, Step
from edgekit.surgery import StepRecord, ladder, lite
from edgekit.surgery.record import Climb

_MAX_DROP = 0.01


def apply(graph: Graph, settings: Lite, context: Context) -> Made:
    """Raises: UsageError for a module or a board that is not there; TrainError as a recovery."""
    images = context.images()
    recoverer = Recoverer(settings, context) if settings.recovers else None
    if settings.steps == (AUTO,):
        made = ladder(
            graph,
            images,
            cost=Clock(context, settings.device).cost(),
            judge=judge_of(context, None if recoverer is None else judged_by(context.job)),
            recover=recoverer,
            max_drop=_max_drop(settings, context.recipe),
            fixed=settings.fixed,
        )
    else:
        made = lite(graph, images, steps=settings.steps, fixed=settings.fixed)
        if recoverer is not None and any(one.changes for one in made.record):
            made = replace(made, graph=recoverer(made.graph))
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
        record["max_drop"] = made.climb.max_drop
        record["ladder"] = [{**asdict(rung), "modules": list(rung.modules)} for rung in made.climb.rungs]
    if record["changed"]:
        record["fitted"] = len(images[0])
    if recoverer is not None and recoverer.done:
        record |= recoverer.record()
        record["notes"].append(recoverer.note())
    return made.graph, record


def depends(settings: Lite, recipe: Recipe, job: Job, original: Graph) -> dict[str, Any]:
    found: dict[str, Any] = {"images": job.calibration.identity}
    if settings.recovers:
        found["recovery"] = recovery.depends(recipe, job, original)
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
