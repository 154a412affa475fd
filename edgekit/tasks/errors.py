"""Every output against the reference's, image by image: two lists of arrays (N, ...) -> errors.

The arrays may lie on disk: a few images of one output are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.errors import DataError
from edgekit.tasks.record import Output, OutputError
from edgekit.tasks.statistics import decibels

_CHUNK_BYTES = 32_000_000


@dataclass(frozen=True)
class Measured:
    """One output's error, and the same for each image: dB, share of equal numbers (None: real), cosine."""

    error: OutputError
    each_db: np.ndarray
    each_equal: np.ndarray | None
    each_cosine: np.ndarray


def measure(
    outputs: Sequence[Output], reference: Sequence[np.ndarray], artifact: Sequence[np.ndarray]
) -> list[Measured]:
    """Compare two models' answers.

    Args:
        reference, artifact: one array an output, (N, ...), in the graph's layout.
    Raises: DataError when the shapes do not belong together or a number is none.
    """
    if len(outputs) != len(reference) or len(reference) != len(artifact):
        raise DataError(
            f"drift: {len(reference)} and {len(artifact)} outputs: {len(outputs)}, one array an output"
        )
    return [_one(*row) for row in zip(outputs, reference, artifact, strict=True)]


def _one(output: Output, reference: np.ndarray, artifact: np.ndarray) -> Measured:
    if reference.shape != artifact.shape or reference.ndim < 1 or not len(reference):
        raise DataError(
            f"drift: output {output.name!r} of shapes {reference.shape} and {artifact.shape}: "
            "two equal (N, ...) are needed"
        )
    n = len(reference)
    size = int(np.prod(reference.shape[1:]))
    step = max(1, _CHUNK_BYTES // max(8 * size, 1))
    signal, noise, other, product, equal = (np.zeros(n) for _ in range(5))
    worst, peak, whole, low, high = 0.0, 0.0, True, np.inf, -np.inf
    for start in range(0, n, step):
        part = slice(start, start + step)
        a = np.asarray(reference[part], np.float64).reshape(-1, size)
        b = np.asarray(artifact[part], np.float64).reshape(-1, size)
        for name, values in (("reference", a), ("artifact", b)):
            if not np.isfinite(values).all():
                raise DataError(
                    f"drift: the {name}'s output {output.name!r} holds NaN or infinity: finite numbers"
                )
        difference = np.abs(a - b)
        signal[part], other[part] = (a**2).sum(1), (b**2).sum(1)
        noise[part], product[part] = (difference**2).sum(1), (a * b).sum(1)
        equal[part] = (a == b).mean(1) if size else 1.0
        worst, peak = max(worst, difference.max(initial=0.0)), max(peak, np.abs(a).max(initial=0.0))
        whole = whole and bool((a == np.rint(a)).all())
        low, high = min(low, a.min(initial=np.inf)), max(high, a.max(initial=-np.inf))
    # indices and classes: their type says so, or every number of the reference, and more than one number
    integral = reference.dtype.kind in "iub" or (whole and high > low)
    each = decibels(signal, noise)
    lengths = np.sqrt(signal * other)
    cosine = np.divide(product, lengths, out=(noise == 0).astype(np.float64), where=lengths > 0)
    error = OutputError(
        output.name,
        tuple(output.shape),
        output.dtype,
        float(decibels(signal.sum(), noise.sum())),
        float(np.median(each)),
        float(np.percentile(each, 5)),
        float(worst),
        float(peak),
        float(equal.mean()) if integral else None,
    )
    return Measured(error, each, equal if integral else None, cosine)
