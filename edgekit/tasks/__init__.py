"""What a model's outputs mean: names, metric, changed answers, words. One file a task.

    tensors          numbers of unknown meaning: error and gate per output
    classification   a vector of class scores: top-1
    segmentation     a map of class scores: mean IoU, pixel agreement

Enters: every output of the reference and of an artifact over the same images, (N, ...) in the graph's layout,
from memory or disk. Leaves: a Drift. `choose` decides which task a model gets. Arrays only: no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgekit.errors import UsageError
from edgekit.tasks.classification import Classification
from edgekit.tasks.record import Change, Drift, Flip, Output, OutputError
from edgekit.tasks.segmentation import Segmentation
from edgekit.tasks.tensors import Tensors

__all__ = ["NAMES", "Change", "Drift", "Flip", "Known", "Output", "OutputError", "Task", "choose"]

NAMES = ("auto", "tensors", "classification", "segmentation")


class Task(Protocol):
    """name, reason: which task and why it was chosen. answers: what its agreement counts.

    scored: the place of the class scores among the outputs, 0 where there are none.
    """

    @property
    def name(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def answers(self) -> str: ...
    @property
    def scored(self) -> int: ...
    @property
    def outputs(self) -> tuple[Output, ...]: ...

    def drift(
        self,
        reference: Sequence[np.ndarray],
        artifact: Sequence[np.ndarray],
        labels: np.ndarray | None = None,
    ) -> Drift:
        """The artifact's answers against the reference's."""

    def same(self, first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> np.ndarray:
        """bool (N,): on which images two models give the same answer."""

    def overlay(
        self, index: int, reference: Sequence[np.ndarray], artifact: Sequence[np.ndarray]
    ) -> np.ndarray | None:
        """bool (H, W), what changed in an image, to be drawn over it; None: the picture alone is shown."""


@dataclass(frozen=True)
class Known:
    """What is known about a model besides its outputs.

    classifier: it comes from a library's catalogue of classifiers. labels: shape of the evaluation labels
    behind the number of images, None without any. class_names: one a class.
    """

    classifier: bool = False
    labels: tuple[int, ...] | None = None
    class_names: tuple[str, ...] | None = None


def choose(asked: str, outputs: Sequence[Output], known: Known) -> Task:
    """The task of a model: the one asked for, or what its outputs, labels and class names say.

    Raises: UsageError for a task that no output fits.
    """
    if asked not in NAMES:
        raise UsageError(f"[task] name = {asked!r}: one of {', '.join(NAMES)}")
    outputs = tuple(outputs)
    told = ", ".join(f"{o.name} {list(o.shape)}" for o in outputs)
    vector, grid = _place(outputs, 1, known), _place(outputs, 3, known)
    if asked == "tensors":
        return Tensors(outputs, "asked for")
    if asked == "classification":
        if vector is None:
            raise UsageError(f"[task] classification: outputs {told}: one of (1, K) with K of at least 2")
        return Classification(outputs, vector, "asked for")
    if asked == "segmentation":
        if grid is None:
            raise UsageError(f"[task] segmentation: outputs {told}: one of (1, K, H, W), K of at least 2")
        return Segmentation(outputs, grid, "asked for", known.class_names)
    if vector is not None and known.labels == ():
        return Classification(outputs, vector, f"output {outputs[vector].name} is a vector, with labels")
    if grid is not None and known.labels is not None and len(known.labels) == 2:
        reason = f"output {outputs[grid].name} is a map, with a mask an image"
        return Segmentation(outputs, grid, reason, known.class_names)
    alone, names = len(outputs) == 1, known.class_names
    if alone and vector is not None and (known.classifier or (names and len(names) == outputs[0].shape[0])):
        reason = "one vector of a known classifier" if known.classifier else "one vector, a name an entry"
        return Classification(outputs, vector, reason)
    if alone and grid is not None and names and len(names) == outputs[0].shape[0]:
        return Segmentation(outputs, grid, "one map, a class name a channel", names)
    return Tensors(
        outputs,
        f"without labels or class names {told} may mean anything: [task] name says more",
    )


def _place(outputs: Sequence[Output], rank: int, known: Known) -> int | None:
    """The first output of class scores of that rank; with class names, the first that fits them."""
    fits = [
        i
        for i, output in enumerate(outputs)
        if len(output.shape) == rank and output.shape[0] >= 2 and output.dtype.startswith("float")
    ]
    count = len(known.class_names or ())
    return next((i for i in fits if outputs[i].shape[0] == count), fits[0] if fits else None)
