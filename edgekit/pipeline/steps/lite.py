"""[lite]: surgery on the captured graph, fitted by least squares on the calibration images."""

from __future__ import annotations

from typing import Any

from edgekit.graph.ir import Graph
from edgekit.pipeline.job import Job
from edgekit.pipeline.recipe import Recipe
from edgekit.pipeline.step_settings import Lite
from edgekit.pipeline.steps.step import Context, Made, Step
from edgekit.surgery import StepRecord, lite


def apply(graph: Graph, settings: Lite, context: Context) -> Made:
    """Raises: UsageError for a module that is not there."""
    made = lite(graph, context.images(), steps=settings.steps, fixed=settings.fixed)
    record: dict[str, Any] = {
        "changed": [{"module": c.module, "what": c.what} for one in made.record for c in one.changes],
        "left": [
            {"module": left.module, "reason": f"{one.step}: {left.reason}"}
            for one in made.record
            for left in one.left
        ],
        "notes": [_note(one) for one in made.record],
    }
    if record["changed"]:
        record["fitted"] = len(context.images()[0])
    return made.graph, record


def depends(settings: Lite, recipe: Recipe, job: Job, original: Graph) -> dict[str, Any]:
    return {"images": job.calibration.identity}


LITE = Step("lite", apply, depends)


def _note(one: StepRecord) -> str:
    if not one.changes:
        return f"{one.step}: nothing to change."
    near = "" if one.sqnr_db is None else f", answers at {one.sqnr_db:.1f} dB of what they were"
    return f"{one.step}: {len(one.changes)} modules changed, fitted to {one.images} images{near}."
