"""Every two int8 artifacts of a build against each other, and where they part when they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.pipeline import answers
from edgekit.pipeline.job import Agreed, Built, Job
from edgekit.pipeline.proofs.proof import Asked
from edgekit.pipeline.proofs.run import PROBED, placed
from edgekit.pipeline.session import Line
from edgekit.runtimes.registry import RUNTIMES
from edgekit.targets.target import OWN
from edgekit.verify.agreement import Agreement, Divergence, agreement, first_divergence


@dataclass(frozen=True)
class _Compared:
    agreement: Agreement
    parted: list[tuple[str, str, Divergence | None]]


def agreed(asked: Asked, built: list[Built]) -> Agreed | None:
    """None where fewer than two formats answered.

    TensorRT's integers are its own (symmetric): it answers to the float reference alone.
    """
    held = [
        one
        for one in built
        if one.target.activations == "int8" and RUNTIMES[one.target.runtime].host and one.pictures
    ]
    if len({one.target.format for one in held}) < 2 or asked.job.evaluation is None:
        return None

    def make(_line: Line) -> _Compared:
        by_name = {one.target.name: one for one in held}
        given = {name: answers.load(_pictures(one)) for name, one in by_name.items()}
        found = agreement(given, task=asked.task)
        parted = [
            (
                pair.first,
                pair.second,
                _parting(asked.job, by_name[pair.first], by_name[pair.second], pair.differing[:PROBED]),
            )
            for pair in found.pairs
        ]
        return _Compared(found, parted)

    key = {
        "artifacts": {one.target.name: one.sha256s for one in held},
        "answers": [_pictures(one).name for one in held],
        "task": asked.task.name,
    }
    found = asked.session.record("agreement", key, _Compared, make)
    return Agreed(found.agreement, {(a, b): at for a, b, at in found.parted if at is not None})


def _pictures(one: Built) -> Path:
    assert one.pictures is not None
    return one.pictures


def _parting(job: Job, first: Built, second: Built, differing: Sequence[int]) -> Divergence | None:
    """The first layer at which two files part, on images they answer differently."""
    comparable = all(one.quantizer == OWN and one.prepared.batchable for one in (first, second))
    if not differing or not comparable or job.evaluation is None:
        return None
    images = job.evaluation.images
    rows = zip(*(images.inputs(index) for index in differing), strict=True)
    return first_divergence(placed(first), placed(second), [np.stack(row) for row in rows])


def section(together: Agreed, least: float | None) -> dict[str, Any]:
    """Its part of report.json."""
    found, names = together.agreement, together.agreement.names
    between = {frozenset((pair.first, pair.second)): pair for pair in found.pairs}

    def cell(a: str, b: str, key: str, same: float | None) -> float | None:
        return same if a == b else getattr(between[frozenset((a, b))], key)

    pairs = []
    for pair in found.pairs:
        at = together.divergences.get((pair.first, pair.second))
        where = at and {
            "value": at.value,
            "module": at.module,
            "op": at.op,
            "sqnr_db_before": at.before_db,
            "sqnr_db": at.after_db,
        }
        pairs.append(
            {
                "a": pair.first,
                "b": pair.second,
                "agreement": pair.agreement,
                "sqnr_db": pair.sqnr_db,
                "differ": pair.disagreements,
                "divergence": where,
            }
        )
    return {
        "n": found.n,
        "targets": names,
        "top1": [[cell(a, b, "agreement", 100.0) for b in names] for a in names],
        "sqnr_db": [[cell(a, b, "sqnr_db", None) for b in names] for a in names],
        "pairs": pairs,
        "min_agreement": least,
    }
