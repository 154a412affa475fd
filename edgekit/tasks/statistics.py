"""What tasks measure with: signal to noise, paired tests, bootstrap intervals. Arrays in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

RESAMPLES = 10_000
SQNR_CEILING_DB = 200.0  # identical outputs would be infinite, which JSON cannot carry
_SEED = 0
_AT_ONCE = 500  # resamples whose weights are in memory


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


def bootstrap(
    n: int, statistic: Callable[[np.ndarray], np.ndarray], resamples: int = RESAMPLES
) -> tuple[float, float]:
    """95 % interval of a statistic over resamples of n images.

    Args:
        statistic: weights (R, N), how often each resample holds each image -> (R,) values.
    """
    rng = np.random.default_rng(_SEED)
    found = []
    for start in range(0, resamples, _AT_ONCE):
        count = min(_AT_ONCE, resamples - start)
        found.append(statistic(rng.multinomial(n, np.full(n, 1.0 / n), size=count).astype(np.float64)))
    low, high = np.percentile(np.concatenate(found), [2.5, 97.5])
    return float(low), float(high)


def sqnr_db(reference: np.ndarray, other: np.ndarray, axis: int | None = None) -> Any:
    """Signal to quantization noise in dB, at most SQNR_CEILING_DB; 0 where noise meets silence."""
    reference, other = np.asarray(reference, np.float64), np.asarray(other, np.float64)
    return decibels((reference**2).sum(axis), ((reference - other) ** 2).sum(axis))


def decibels(signal: Any, noise: Any) -> Any:
    """The same from powers that are summed already."""
    signal, noise = np.asarray(signal, np.float64), np.asarray(noise, np.float64)
    ceiling = 10.0 ** (SQNR_CEILING_DB / 10)
    ratio = np.divide(signal, noise, out=np.full_like(signal, ceiling), where=noise > 0)
    ratio = np.where((signal == 0) & (noise > 0), 1.0, ratio)
    return np.minimum(10.0 * np.log10(np.maximum(ratio, 1.0 / ceiling)), SQNR_CEILING_DB)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last dimension."""
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)
