"""How far an artifact's answers drift from the reference's: two sets of logits on the same images -> Drift.

Both models saw the same images, so the comparison is paired: images that both get right or both get wrong say
nothing about the difference. McNemar's exact test asks whether the disagreements lean one way; the bootstrap
resamples images and gives the drop's interval. Drop is reference minus artifact in points: positive is a
loss.

SQNR is 10 log10(sum ref^2 / sum (ref - artifact)^2) over the logits: pooled over all images, and per image by
its median and 5th percentile, since one image can hide in a pooled figure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgekit.errors import DataError

RESAMPLES = 10_000
SQNR_CEILING_DB = 200.0  # identical logits would be infinite, which JSON cannot carry
_SEED = 0


@dataclass(frozen=True)
class Flip:
    """One image on which the two models disagree."""

    index: int
    label: int | None
    reference: int
    reference_probability: float
    artifact: int
    artifact_probability: float


@dataclass(frozen=True)
class Drift:
    """metric "top1": accuracies in percent, `drop` and its interval in points.

    metric "agreement" (no labels): reference is 100, artifact the share of images with the same top-1 class.
    p_value is None without labels.
    """

    metric: str
    reference: float
    artifact: float
    drop: float
    ci_low: float
    ci_high: float
    p_value: float | None
    agreement: float
    sqnr_db: float
    sqnr_median_db: float
    sqnr_p5_db: float
    cosine: float
    n: int
    lost: int
    gained: int
    flipped: tuple[Flip, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def drift(
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


def mcnemar_p(lost: int, gained: int) -> float:
    """Exact two-sided McNemar p: 2 P(X <= min), X ~ Binomial(lost + gained, 1/2), at most 1."""
    pairs = lost + gained
    tail = sum(math.comb(pairs, k) for k in range(min(lost, gained) + 1))
    return min(1.0, 2 * tail / 2**pairs)


def drop_interval(n: int, lost: int, gained: int, resamples: int = RESAMPLES) -> tuple[float, float]:
    """95 % bootstrap interval of the paired drop, in points.

    An image counts +1 (lost), -1 (gained) or 0, so a resample of the n images is one multinomial draw. When
    nothing was lost or gained the resamples cannot vary, and the "rule of three" bounds what n images
    could have missed: a share above 3/n would have shown itself with 95 % certainty.
    """
    if lost == gained == 0:
        bound = min(100.0, 300.0 / n)
        return -bound, bound
    rng = np.random.default_rng(_SEED)
    draws = rng.multinomial(n, [lost / n, gained / n, (n - lost - gained) / n], size=resamples)
    low, high = np.percentile(draws[:, 0] - draws[:, 1], [2.5, 97.5]) * (100.0 / n)
    return float(low), float(high)


def sqnr_db(reference: np.ndarray, other: np.ndarray, axis: int | None = None) -> Any:
    """Signal to quantization noise in dB, at most SQNR_CEILING_DB; 0 where noise meets silence."""
    reference, other = np.asarray(reference, np.float64), np.asarray(other, np.float64)
    signal = (reference**2).sum(axis)
    noise = ((reference - other) ** 2).sum(axis)
    ceiling = 10.0 ** (SQNR_CEILING_DB / 10)
    ratio = np.divide(signal, noise, out=np.full_like(signal, ceiling), where=noise > 0)
    ratio = np.where((signal == 0) & (noise > 0), 1.0, ratio)
    return np.minimum(10.0 * np.log10(np.maximum(ratio, 1.0 / ceiling)), SQNR_CEILING_DB)


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    equal = (a == b).all(1).astype(np.float64)
    return np.divide((a * b).sum(1), lengths, out=equal, where=lengths > 0)


def _flips(reference: np.ndarray, artifact: np.ndarray, labels: Any, indices: np.ndarray) -> tuple[Flip, ...]:
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


def _check(reference: np.ndarray, artifact: np.ndarray, labels: Any) -> None:
    if reference.ndim != 2 or reference.shape != artifact.shape or not len(reference):
        raise DataError(
            f"drift: logits of shapes {reference.shape} and {artifact.shape}: two equal (N, K) are needed"
        )
    if labels is not None and len(labels) != len(reference):
        raise DataError(f"drift: {len(labels)} labels for {len(reference)} images: one label an image")
    for name, logits in (("reference", reference), ("artifact", artifact)):
        if not np.isfinite(logits).all():
            raise DataError(f"drift: the {name}'s logits hold NaN or infinity: finite numbers are needed")
