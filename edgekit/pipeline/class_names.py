"""What a model's outputs are called: the names given, the model's own, or those of the folders."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgekit.data.source import Source
from edgekit.errors import UsageError

if TYPE_CHECKING:
    from edgekit.graph.ir import Graph
    from edgekit.pipeline.job import Job
    from edgekit.pipeline.recipe import Recipe


def with_class_names(job: Job, recipe: Recipe, graph: Graph) -> Job:
    """The job with the names of its folders as classes, where nothing else names them and they are as many.

    Raises: UsageError for another number of names than a classifier has outputs.
    """
    shape = graph.outputs[0].shape
    if len(graph.outputs) != 1 or len(shape) != 2:
        return job
    if (names := recipe.data.class_names) is not None and len(names) != shape[1]:
        raise UsageError(f"class names: {len(names)} for {job.name} with {shape[1]} outputs: one an output")
    if job.class_names is not None or not isinstance(job.evaluation, Source):
        return job
    if job.evaluation.generated or len(job.evaluation.images.class_names) != shape[1]:
        return job
    return replace(job, class_names=job.evaluation.images.class_names)
