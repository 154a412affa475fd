"""The steps that a recipe asks for, one after the other: a captured graph in, variants with graphs out.

Every variant is stored under its settings and its parent's content, so that a second build makes none again,
and a killed one goes on inside the step it was in.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from edgekit.capture.onnx import is_quantized
from edgekit.errors import UsageError
from edgekit.graph.file import graph_hash, load, save
from edgekit.graph.ir import Graph
from edgekit.pipeline.job import Job
from edgekit.pipeline.recipe import Recipe
from edgekit.pipeline.session import Line, Session
from edgekit.pipeline.steps.lite import LITE
from edgekit.pipeline.steps.prune import PRUNE
from edgekit.pipeline.steps.step import Context, Step
from edgekit.pipeline.steps.train import TRAIN
from edgekit.pipeline.variant import Variant
from edgekit.pipeline.versions import versions

STEPS: tuple[Step, ...] = (LITE, PRUNE, TRAIN)
_GRAPH, _RECORD = "graph.safetensors", "record.json"


def asked(recipe: Recipe) -> list[Step]:
    """The steps that a recipe has a section of, in the order they are made."""
    known = {step.name for step in STEPS}
    for name in ("lite", "prune", "train"):
        if getattr(recipe, name) is not None and name not in known:
            raise UsageError(f"[{name}] is not in this edgekit: {', '.join(sorted(known)) or 'no step yet'}")
    return [step for step in STEPS if getattr(recipe, step.name) is not None]


def made(session: Session, recipe: Recipe, job: Job, original: Graph, parent: Graph) -> list[Variant]:
    """The variants that are made of `parent`, the graph of `job.variant`; each with its graph and record.

    Raises: UsageError for a graph that no step can be made of.
    """
    wanted = asked(recipe)
    if wanted and is_quantized(parent):
        names = ", ".join(f"[{step.name}]" for step in wanted)
        raise UsageError(f"{names} {job.name}: holds quantized weights already: a float model")
    found: list[Variant] = []
    variant, graph = job.variant, parent
    for step in wanted:
        variant = _made(session, step, recipe, job, original, variant, graph)
        assert variant.graph is not None
        graph = variant.graph
        found.append(variant)
    return found


def _made(
    session: Session, step: Step, recipe: Recipe, job: Job, original: Graph, parent: Variant, graph: Graph
) -> Variant:
    settings = getattr(recipe, step.name)

    def make(directory: Path, line: Line, work: Path) -> None:
        context = Context(recipe, job, original, line, work, session.store.root)
        result, record = step.apply(graph.copy(), settings, context)
        save(result, directory / _GRAPH)
        (directory / _RECORD).write_text(json.dumps(record))

    key: dict[str, Any] = {
        "step": step.name,
        "settings": asdict(settings),
        "of": graph_hash(graph),
        "original": graph_hash(original),
        "threads": torch.get_num_threads(),  # the order of float sums
        "versions": versions(),
        **step.depends(settings, recipe, job, original),
    }
    directory = session.resumable(step.name, key, make, step.apply)
    return Variant(
        step=step.name,
        name=parent.name,
        module=None,
        identity=key,
        parent=parent,
        graph=load(directory / _GRAPH),
        record=json.loads((directory / _RECORD).read_text()),
    )
