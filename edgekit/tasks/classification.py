"""A vector of class scores an image: top-1, paired by McNemar's exact test and a bootstrap over images.

Both models saw the same images: images that both get right or both get wrong say nothing about the
difference. McNemar's test asks whether the disagreements lean one way; the bootstrap resamples images and
gives the drop's interval. Drop is reference minus artifact in points: positive is a loss.

SQNR is 10 log10(sum ref^2 / sum (ref - artifact)^2) over the logits: pooled over all images, and per image by
its median and 5th percentile, since one image can hide in a pooled figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgekit.errors import DataError
from edgekit.tasks.errors import measure
from edgekit.tasks.record import Drift, Flip, Output
from edgekit.tasks.statistics import RESAMPLES, drop_interval, mcnemar_p, softmax, sqnr_db


@dataclass(frozen=True)
class Classification:
    """outputs: the model's; `scored` is the place of the class scores among them."""

    outputs: tuple[Output, ...]
    scored: int = 0
    reason: str = ""
    name: str = "classification"
    answers: str = "answers"

    def drift(
        self,
        reference: Sequence[np.ndarray],
        artifact: Sequence[np.ndarray],
        labels: np.ndarray | None = None,
    ) -> Drift:
        """Top-1 of both against labels (N,); without them, how often they say the same."""
        found = compare_logits(self._logits(reference), self._logits(artifact), labels)
        measured = measure(self.outputs, reference, artifact)
        found = replace(found, outputs=tuple(one.error for one in measured))
        if len(measured) == 1:
            return found
        return replace(found, sqnr_db=min(found.sqnr_db, *(one.error.sqnr_db for one in measured)))

    def same(self, first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> np.ndarray:
        """For each image, whether both name the same class."""
        same = self._logits(first).argmax(1) == self._logits(second).argmax(1)
        return np.asarray(same)

    def overlay(
        self, _index: int, _reference: Sequence[np.ndarray], _artifact: Sequence[np.ndarray]
    ) -> np.ndarray | None:
        """Nothing is drawn into the picture."""
        return None

    def _logits(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        array = np.asarray(outputs[self.scored])
        return array.reshape(len(array), -1)


def compare_logits(
    reference: np.ndarray,
    artifact: np.ndarray,
    labels: Sequence[int] | np.ndarray | None = None,
    *,
    resamples: int = RESAMPLES,
    max_flipped: int | None = None,
) -> Drift:
    """Compare two (N, K) arrays of logits over the same N images.

    Args:
        labels: (N,) true classes; without them agreement stands in for accuracy.
        max_flipped: keep only this many flips; default all.
    Raises: DataError when the shapes do not belong together or a logit is not a number.
    """
    reference, artifact = np.asarray(reference, np.float64), np.asarray(artifact, np.float64)
    _check(reference, artifact, labels)
    n = len(reference)
    said_reference, said_artifact = reference.argmax(1), artifact.argmax(1)
    same = said_reference == said_artifact
    if labels is None:
        metric, right_reference, right_artifact = "agreement", np.ones(n, bool), same
    else:
        truth = np.asarray(labels).reshape(-1)
        metric, right_reference, right_artifact = "top1", said_reference == truth, said_artifact == truth
    lost = int((right_reference & ~right_artifact).sum())
    gained = int((~right_reference & right_artifact).sum())
    low, high = drop_interval(n, lost, gained, resamples)
    per_image = sqnr_db(reference, artifact, axis=1)
    return Drift(
        metric=metric,
        reference=100.0 * float(right_reference.mean()),
        artifact=100.0 * float(right_artifact.mean()),
        drop=100.0 * (lost - gained) / n,
        ci_low=low,
        ci_high=high,
        p_value=None if labels is None else mcnemar_p(lost, gained),
        agreement=100.0 * float(same.mean()),
        sqnr_db=float(sqnr_db(reference, artifact)),
        sqnr_median_db=float(np.median(per_image)),
        sqnr_p5_db=float(np.percentile(per_image, 5)),
        cosine=float(_cosine(reference, artifact).mean()),
        n=n,
        lost=lost,
        gained=gained,
        flipped=_flips(reference, artifact, labels, np.flatnonzero(~same)[:max_flipped]),
    )


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    equal = (a == b).all(1).astype(np.float64)
    return np.divide((a * b).sum(1), lengths, out=equal, where=lengths > 0)


def _flips(
    reference: np.ndarray,
    artifact: np.ndarray,
    labels: Sequence[int] | np.ndarray | None,
    indices: np.ndarray,
) -> tuple[Flip, ...]:
    p_reference, p_artifact = softmax(reference[indices]), softmax(artifact[indices])
    return tuple(
        Flip(
            int(index),
            None if labels is None else int(labels[index]),
            int(p_r.argmax()),
            float(p_r.max()),
            int(p_a.argmax()),
            float(p_a.max()),
        )
        for index, p_r, p_a in zip(indices, p_reference, p_artifact, strict=True)
    )


def _check(reference: np.ndarray, artifact: np.ndarray, labels: Sequence[int] | np.ndarray | None) -> None:
    if reference.ndim != 2 or reference.shape != artifact.shape or not len(reference):
        raise DataError(
            f"drift: logits of shapes {reference.shape} and {artifact.shape}: two equal (N, K) are needed"
        )
    if labels is not None and len(labels) != len(reference):
        raise DataError(f"drift: {len(labels)} labels for {len(reference)} images: one label an image")
    for name, logits in (("reference", reference), ("artifact", artifact)):
        if not np.isfinite(logits).all():
            raise DataError(f"drift: the {name}'s logits hold NaN or infinity: finite numbers are needed")
