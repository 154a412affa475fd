"""[qat]: what calibration made of a graph, trained where it does not pass its gates.

    calibrated -> gates -> light -> gates -> full

Each rung is kept only where held-out images say so, and the next is climbed only where the drift gates of the
int8 artifacts still fail; without evaluation images nothing judges them, and `light` alone is tried. Training
pictures are those of the training split, of arrays from Python those to calibrate with, less the held-out.

Enters: the calibrated graph of a build. Leaves: a `Quantized` for every int8 target, its report with what was
tried.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from edgekit.data import ImageSet
from edgekit.data.labels import labels_for
from edgekit.data.source import Given
from edgekit.graph.file import graph_hash, load, save
from edgekit.graph.ir import Graph
from edgekit.graph.module import as_module
from edgekit.pipeline.calibration import calibration_rows
from edgekit.pipeline.job import Built, Job, Quantized
from edgekit.pipeline.judge import promises_of
from edgekit.pipeline.proofs.drift import DRIFT
from edgekit.pipeline.proofs.proof import Asked as Proven
from edgekit.pipeline.recipe import Recipe
from edgekit.pipeline.session import Line, Session
from edgekit.pipeline.step_settings import Qat
from edgekit.pipeline.steps.step import Context
from edgekit.pipeline.steps.train import alone, decided, lesson
from edgekit.pipeline.versions import versions
from edgekit.qat.means import channel_means
from edgekit.qat.train import Light, Rates, full, light
from edgekit.runtimes.registry import RUNTIMES
from edgekit.targets import Target
from edgekit.targets.target import OWN
from edgekit.tasks import Task
from edgekit.train.data import Inputs, drawn
from edgekit.train.loop import chosen_device
from edgekit.train.run import run_training

_GRAPH, _RECORD, _MEANS, _ORDER = "graph.safetensors", "record.json", "means.safetensors", "order of images"
_CLASSES = ("classification", "segmentation")

Lower = Callable[[Quantized, Target], Built]


@dataclass(frozen=True)
class Asked:
    """What the rungs are given.

    original: the captured graph of the original. graph: the float one that was calibrated. reference:
    directory with the original's answers, if any. targets: of the build.
    """

    session: Session
    recipe: Recipe
    job: Job
    task: Task
    original: Graph
    graph: Graph
    reference: Path | None
    targets: Sequence[Target]

    @property
    def settings(self) -> Qat:
        assert self.recipe.qat is not None
        return self.recipe.qat


@dataclass(frozen=True)
class Rows:
    """Some of a source's rows, in the order of training: `edgekit.train.data.Data` without labels."""

    sources: list[Any]
    start: int
    stop: int
    identity: Mapping[str, Any]

    @property
    def count(self) -> int:
        return self.stop - self.start

    def batches(self, step: int, batch: int, size: int | None, seed: int) -> tuple[Inputs, None]:
        chosen = torch.from_numpy(drawn(step, batch, self.count, seed)) + self.start
        return tuple(source[chosen].float() for source in self.sources), None


def trained(asked: Asked, calibrated: Quantized, lower: Lower) -> Quantized:
    """The rungs that are asked for, or needed; `lower` makes a target's artifact of a graph."""

    def passes(quantized: Quantized) -> bool | None:
        return _passes(asked, quantized, lower)

    how = asked.settings.how
    found, tried = calibrated, list[dict[str, Any]]()
    gates = passes(found) if how == "auto" else None
    notes = ["Calibration alone passes the gates: nothing was trained."] if gates else []
    if how == "light" or (how == "auto" and not gates):
        found = _rung(asked, found, "light", _light, tried)
        gates_after = passes(found) if how == "auto" else None
        if how == "auto" and gates_after is None:
            notes.append("No evaluation images judge the gates: only the light training was tried.")
        gates = gates_after if gates_after is not None else True
    if how == "full" or (how == "auto" and not gates):
        found = _rung(asked, found, "full", _full, tried)
    report = dict(calibrated.report or {})
    report["parts"] = [*report.get("parts", []), *(_part(row) for row in tried if row["by"] == "answers")]
    report["qat"] = {"how": how, "tried": tried, "notes": [*notes, *map(_said, tried)]}
    return Quantized(found.graph, report, found.means)


def _passes(asked: Asked, quantized: Quantized, lower: Lower) -> bool | None:
    """Whether the answers of the int8 artifacts pass their gates; None where none is judged."""
    if asked.reference is None:
        return None
    recipe = asked.recipe
    proof = Proven(asked.session, recipe, asked.job, asked.task, asked.reference, {}, [])
    judged = []
    for target in asked.targets:
        if target.activations != "int8" or not RUNTIMES[target.runtime].host:
            continue
        one = lower(quantized, target)
        if one.quantizer == OWN:
            DRIFT.prove(proof, [one])
            judged += [gate.ok for gate in DRIFT.gates(one, promises_of(recipe, target)) if gate.judged]
    return all(judged) if judged else None


def _rung(
    asked: Asked,
    before: Quantized,
    name: str,
    make: Callable[[Asked, Graph, Line, Path], tuple[Graph, dict[str, Any]]],
    tried: list[dict[str, Any]],
) -> Quantized:
    """One training, kept under all it depends on; resumed where a killed build left it."""

    def apply(directory: Path, line: Line, work: Path) -> None:
        graph, record = make(asked, before.graph, line, work)
        save(graph, directory / _GRAPH)
        (directory / _RECORD).write_text(json.dumps(record))
        if before.means is not None and record["accepted"]:
            order = load_file(before.means)[_ORDER]
            chosen = [source[order] for source in calibration_rows(asked.job.calibration.images)]
            save_file({**channel_means(graph, chosen), _ORDER: order}, directory / _MEANS)

    job, settings = asked.job, asked.settings
    key = {
        "rung": name,
        "settings": asdict(settings),
        "of": graph_hash(before.graph),
        "float": graph_hash(asked.graph),
        "original": graph_hash(asked.original),
        "images": job.calibration.identity,
        "task": [asked.task.name, asked.task.scored],
        "classes": job.class_names,
        "device": chosen_device(settings).type,
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    directory = asked.session.resumable("qat", key, apply, make, name)
    record = json.loads((directory / _RECORD).read_text())
    tried.append({"rung": name, **record})
    if not record["accepted"]:
        return before
    means = directory / _MEANS
    return Quantized(load(directory / _GRAPH), before.report, means if means.exists() else None)


def _light(asked: Asked, graph: Graph, line: Line, work: Path) -> tuple[Graph, dict[str, Any]]:
    settings, task = asked.settings, asked.task
    data, held, _ = _split(asked)
    told = Light(
        steps=settings.light_steps,
        classes=task.scored if task.name in _CLASSES else None,
        seed=asked.recipe.seed,
    )
    done = light(graph, asked.graph, data, held, told, directory=work, progress=line.advance)
    record = {"steps": told.steps, "trained_on": data.count, "seconds": done.record.seconds}
    return done.graph, record | asdict(done.judgement)


def _full(asked: Asked, graph: Graph, line: Line, work: Path) -> tuple[Graph, dict[str, Any]]:
    settings, task = asked.settings, asked.task
    _, held, labels = _split(asked)
    context = Context(asked.recipe, asked.job, asked.original, line, work, asked.session.store.root)
    data, told, labelled = lesson(settings, context, skip=len(held[0]))
    told = replace(told, freeze_batch_norm="statistics")
    teacher = None if alone(told, labelled) else as_module(asked.original).eval()
    rates = Rates(settings.rate, settings.rate / 2, settings.rate / 40, settings.rate / 200, settings.freezes)
    done = full(
        graph,
        asked.graph,
        lambda module, optimizers: run_training(
            module,
            data,
            told,
            teacher=teacher,
            function=told.function,
            directory=work,
            progress=line.advance,
            optimizers=optimizers,
        ),
        held,
        labels if labelled else None,
        scored=task.scored,
        rates=rates,
    )
    record: dict[str, Any] = {key: done.record[key] for key in ("steps", "seconds") if key in done.record}
    if "losses" in done.record:
        record |= {"settings": decided(settings, done.record)}
    return done.graph, record | asdict(done.judgement)


def _split(asked: Asked) -> tuple[Rows, list[torch.Tensor], torch.Tensor | None]:
    """Images to train on without labels, and held-out ones with their labels as the model numbers them.

    Of few images a quarter is held out.
    """
    job, task, source = asked.job, asked.task, asked.job.calibration
    wanted, most = asked.settings.held_out, asked.settings.light_images
    images = source.images
    if not isinstance(source, Given):
        images = replace(source, split="train", count=most + wanted).images
    sources, count = calibration_rows(images), len(images)
    if count < most + wanted:
        wanted = min(wanted, max(1, count // 4))
    data = Rows(sources, min(wanted, count - 1), count, {"rows of": source.identity, "most": most})
    held = [rows[:wanted].float() for rows in sources]
    labels = None
    if isinstance(images, ImageSet) and images.labels is not None and task.name == "classification":
        found = labels_for(images, job.name, job.class_names, task.outputs[task.scored].shape[0])
        labels = None if found is None else torch.from_numpy(np.asarray(found)[:wanted])
    return data, held, labels


def _part(row: Mapping[str, Any]) -> dict[str, Any]:
    """A rung as one of the parts of quantization, in dB of all held-out images together."""
    before, after = row["before"], row["after"]
    return {
        "part": f"qat {row['rung']}",
        "kept": row["accepted"],
        "sqnr_db": after["pooled_db"],
        "gain_db": after["pooled_db"] - before["pooled_db"],
        "decides_db": {"median": after["median_db"] - before["median_db"], "mean": row["gain"]},
        "judged_images": row["images"],
    }


_FIGURES = {
    "median_db": ("median SQNR", "{:.1f} dB"),
    "pooled_db": ("SQNR of all together", "{:.1f} dB"),
    "accuracy": ("accuracy", "{:.1%}"),
    "log_likelihood": ("log-likelihood", "{:.3f}"),
}


def _said(row: Mapping[str, Any]) -> str:
    """What a rung did, as a sentence of the report."""
    figures = []
    for key, (name, form) in _FIGURES.items():
        if key in row["after"]:
            before, after = (form.format(row[when][key]) for when in ("before", "after"))
            figures.append(f"{name} {before} to {after}")
    kept = "kept" if row["accepted"] else "taken back"
    unit = "dB" if row["by"] == "answers" else "of log-likelihood"
    return (
        f"QAT {row['rung']}: {kept} on {row['images']} held-out images, where it gained {row['gain']:+.3f} "
        f"(standard error {row['error']:.3f}) {unit} an image; {', '.join(figures)}."
    )
