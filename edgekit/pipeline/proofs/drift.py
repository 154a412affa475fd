"""The artifact's answers on the evaluation images against the reference's, by the task that reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.pipeline import answers
from edgekit.pipeline.bundle import without
from edgekit.pipeline.job import Built, Facts
from edgekit.pipeline.judge import percent, promises_of
from edgekit.pipeline.proofs.proof import Asked, Proof, each
from edgekit.pipeline.proofs.run import answering, reopens, runtime_of
from edgekit.pipeline.session import Line
from edgekit.targets import Promises
from edgekit.tasks import Drift, Task
from edgekit.verify.contact_sheet import contact_sheet, marked
from edgekit.verify.gates import Evidence, Gate, judge

if TYPE_CHECKING:
    from edgekit.data import ImageSet
    from edgekit.data.arrays import ArrayImages

_FLIPPED = 48  # pictures kept of images whose answer changed


def prove(asked: Asked, one: Built) -> None:
    job, task, reference = asked.job, asked.task, asked.reference
    source = job.evaluation
    if source is None or reference is None:
        return

    def make(directory: Path, line: Line) -> None:
        images = source.images.first(count)
        found = answers.Answers(directory, one.prepared, count)
        answer, most = answering(one), answers.chunk(one.prepared)
        for batch in images.input_batches(most if reopens(one) else min(most, answers.BATCH)):
            line.advance(found.add(answer(batch)), count)
        found.close()
        _save_flipped(directory, task, found.arrays, images)

    labels = reference / "labels.npy"
    count = json.loads((reference / "images.json").read_text())["n"]

    def compared(arrays: Sequence[np.ndarray]) -> Drift:
        return task.drift(answers.load(reference), arrays, np.load(labels) if labels.exists() else None)

    def _save_flipped(
        directory: Path, task: Task, given: Sequence[np.ndarray], images: ImageSet | ArrayImages
    ) -> None:
        """The images whose answer changed most, what changed drawn over them: a file each, and one sheet."""
        flips = sorted(compared(given).flipped, key=lambda flip: (-flip.rank, flip.index))[:_FLIPPED]
        wanted, pictures = answers.load(reference), {}
        for flip in flips:
            picture = images.picture(flip.index)
            if (changed := task.overlay(flip.index, wanted, given)) is not None:
                picture = marked(picture, changed)
            picture.save(directory / f"{flip.index}.png")
            pictures[flip.index] = np.asarray(picture)
        (directory / "sheet.png").write_bytes(contact_sheet(pictures, flips, job.class_names))

    key = {
        "artifact": one.sha256s,
        "reference": reference.name,
        "runtime": runtime_of(one.target),
        "task": [task.name, repr(task.outputs)],
    }
    one.pictures = asked.session.stage("drift", key, make, one.target.name)
    one.drift = compared(answers.load(one.pictures))


def gates(one: Built, promises: Promises) -> list[Gate]:
    return judge(Evidence(target=one.target, drift=one.drift, layers=one.errors), promises)


def section(facts: Facts, one: Built) -> dict[str, Any]:
    if one.drift is None:
        return {}
    promises = promises_of(facts.recipe, one.target)
    content = without(one.drift.as_dict(), "flipped") | {
        "flipped": len(one.drift.flipped),
        "max_drop_points": percent(promises.max_top1_drop),
        "min_images": promises.min_images,
    }
    return {"drift": content, "flipped": _flipped(facts, one)}


def _flipped(facts: Facts, one: Built) -> list[dict[str, Any]]:
    assert one.drift is not None
    rows = []
    for flip in one.drift.flipped:
        shown = one.pictures is not None and (one.pictures / f"{flip.index}.png").exists()
        image = f"{one.target.name}/flipped/{flip.index}.png" if shown else None
        rows.append({**flip.row(facts.job.class_names), "image": image})
    return rows


DRIFT = Proof("drift", each(prove), gates, section)
