"""Outputs as numbers, whose meaning nobody told: what an unknown module gets. Error and gate per output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.tasks.errors import Measured, measure
from edgekit.tasks.record import Change, Drift, Output

NEAR_DB = 15.0  # an image whose outputs all stay above it keeps its answer
NEAR_SHARE = 0.9  # the same for outputs of whole numbers: so many of them are equal


@dataclass(frozen=True)
class Tensors:
    """outputs: all are judged. reason: why this task was chosen, for the report."""

    outputs: tuple[Output, ...]
    reason: str = ""
    name: str = "tensors"
    answers: str = "images"
    scored: int = 0

    def drift(
        self,
        reference: Sequence[np.ndarray],
        artifact: Sequence[np.ndarray],
        labels: np.ndarray | None = None,
    ) -> Drift:
        """The error of every output; labels are not looked at."""
        measured = measure(self.outputs, reference, artifact)
        changed = np.flatnonzero(~_near(measured))
        return summary(
            measured,
            task=self.name,
            metric="sqnr",
            answers=self.answers,
            flipped=tuple(self._change(measured, int(i)) for i in changed),
        )

    def same(self, first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> np.ndarray:
        """For each image, whether two models give the same answer: every output close to the other's."""
        return _near(measure(self.outputs, first, second))

    def overlay(
        self, _index: int, _reference: Sequence[np.ndarray], _artifact: Sequence[np.ndarray]
    ) -> np.ndarray | None:
        """Where in the picture the answer changed; nothing is known of it."""
        return None

    def _change(self, measured: Sequence[Measured], index: int) -> Change:
        worst = min(measured, key=lambda one: float(_closeness(one)[index]))
        if worst.each_equal is not None:
            said = f"{worst.each_equal[index]:.0%} of its numbers equal"
        else:
            said = f"{worst.each_db[index]:.1f} dB from it"
        return Change(index, f"output {worst.error.name}", said, -float(_closeness(worst)[index]))


def summary(
    measured: Sequence[Measured],
    *,
    task: str,
    metric: str,
    answers: str,
    flipped: tuple[Change, ...] = (),
    scores: tuple[float, float, float, float, float] | None = None,
    agreement: float | None = None,
    changes: tuple[int, int] = (0, 0),
    figures: dict[str, float] | None = None,
) -> Drift:
    """A Drift from measured outputs.

    Args:
        scores: reference, artifact, drop, and its interval. changes: images lost and gained.
    """
    reference, artifact, drop, low, high = scores or (None,) * 5
    lowest = min(measured, key=lambda one: one.error.sqnr_db)
    return Drift(
        metric=metric,
        reference=reference,
        artifact=artifact,
        drop=drop,
        ci_low=low,
        ci_high=high,
        p_value=None,
        agreement=agreement,
        sqnr_db=lowest.error.sqnr_db,
        sqnr_median_db=min(one.error.sqnr_median_db for one in measured),
        sqnr_p5_db=min(one.error.sqnr_p5_db for one in measured),
        cosine=min(float(one.each_cosine.mean()) for one in measured),
        n=len(lowest.each_db),
        lost=changes[0],
        gained=changes[1],
        flipped=flipped,
        outputs=tuple(one.error for one in measured),
        task=task,
        answers=answers,
        figures=figures or {},
    )


def _near(measured: Sequence[Measured]) -> np.ndarray:
    return np.all([_closeness(one) >= 0.0 for one in measured], axis=0)


def _closeness(one: Measured) -> np.ndarray:
    """How far above the line an output is for each image, as a share of it: negative below."""
    if one.each_equal is not None:
        return one.each_equal / NEAR_SHARE - 1.0
    return one.each_db / NEAR_DB - 1.0
