"""The one place that knows layouts: arrays in the graph's order of dimensions to the file's and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def to_file(array: np.ndarray, layout: Sequence[int]) -> np.ndarray:
    """A tensor of the graph as the file stores it."""
    return np.ascontiguousarray(array.transpose(tuple(layout)))


def to_graph(
    array: np.ndarray, layout: Sequence[int], shape: Sequence[int], *, stacked: bool = False
) -> np.ndarray:
    """A tensor of the file as the graph's, of `shape`; a runtime that drops dimensions of 1 changes nothing.

    stacked: the array holds one such tensor an image, along a first dimension of its own.
    """
    lead = array.shape[:1] if stacked else ()
    first = len(lead)
    stored = array.reshape((*lead, *(shape[dim] for dim in layout)))
    order = [first + list(layout).index(dim) for dim in range(len(layout))]
    return np.ascontiguousarray(stored.transpose(*range(first), *order))
