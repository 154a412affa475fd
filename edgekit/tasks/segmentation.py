"""A map of class scores an image: mean IoU and pixel agreement, paired over images by a bootstrap.

Scores (N, K, H, W) become a class for every pixel. With a mask an image, mean IoU of both models is compared:
a resample of the images sums intersections and unions again, for both at once, which gives the drop's
interval. Without masks the reference's own map stands in for them, and the share of pixels that keep their
class is what is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.errors import DataError
from edgekit.tasks.errors import measure
from edgekit.tasks.record import Change, Drift, Output
from edgekit.tasks.statistics import bootstrap, drop_interval
from edgekit.tasks.tensors import summary

SAME_PIXELS = 0.95  # an image with fewer of them alike got another answer
_RESAMPLES = 2_000


@dataclass(frozen=True)
class Segmentation:
    """outputs: the model's; `scored` is the place of the class scores (K, H, W) among them."""

    outputs: tuple[Output, ...]
    scored: int = 0
    reason: str = ""
    class_names: tuple[str, ...] | None = None
    name: str = "segmentation"
    answers: str = "pixels"

    def drift(
        self,
        reference: Sequence[np.ndarray],
        artifact: Sequence[np.ndarray],
        labels: np.ndarray | None = None,
    ) -> Drift:
        """Mean IoU of both against masks (N, H, W), or how many pixels keep their class without them.

        Labels below 0 or from K on (255, say) are pixels that do not count.
        """
        measured = measure(self.outputs, reference, artifact)
        pairs = _Pairs(self, reference[self.scored], artifact[self.scored], labels)
        agree = pairs.agree
        changed = np.flatnonzero(agree < SAME_PIXELS)
        figures = {
            "pixel agreement": 100.0 * float(agree.mean()),
            "mean IoU with the float model's map": 100.0 * float(pairs.miou(2, _ones(agree))[0]),
        }
        if labels is None:
            metric, scores, sides = "agreement", _agreement(agree), (len(changed), 0)
        else:
            metric, scores = "miou", pairs.scores()
            better = pairs.right[1][changed] - pairs.right[0][changed]
            sides = (int((better < 0).sum()), int((better > 0).sum()))
        return summary(
            measured,
            task=self.name,
            metric=metric,
            answers=self.answers,
            flipped=tuple(pairs.change(int(i)) for i in changed),
            scores=scores,
            agreement=100.0 * float(agree.mean()),
            changes=sides,
            figures=figures,
        )

    def same(self, first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> np.ndarray:
        """For each image, whether two models agree on nearly every pixel."""
        pairs = zip(first[self.scored], second[self.scored], strict=True)
        return np.array([(a.argmax(0) == b.argmax(0)).mean() >= SAME_PIXELS for a, b in pairs])

    def overlay(
        self, index: int, reference: Sequence[np.ndarray], artifact: Sequence[np.ndarray]
    ) -> np.ndarray | None:
        """bool (H, W): the pixels whose class changed."""
        a, b = (np.asarray(side[self.scored][index]).argmax(0) for side in (reference, artifact))
        return np.asarray(a != b)

    def called(self, index: int) -> str:
        """A class by its name, or its number."""
        names = self.class_names
        return names[index] if names is not None and index < len(names) else f"class {index}"


class _Pairs:
    """Both models' class maps, image after image: counts a class, and how far they are from each other."""

    def __init__(
        self, task: Segmentation, reference: np.ndarray, artifact: np.ndarray, labels: np.ndarray | None
    ) -> None:
        n, k = reference.shape[:2]
        if labels is not None and labels.shape != (n, *reference.shape[2:]):
            raise DataError(
                f"drift: masks of shape {labels.shape} for maps of {(n, *reference.shape[2:])}: a class for "
                "every pixel of the output"
            )
        self.task, self.agree = task, np.zeros(n)
        self.right = np.zeros((2, n))
        # per row: reference and artifact against the truth, artifact against reference
        self.mutual, self.ours, self.theirs = (np.zeros((3, n, k)) for _ in range(3))
        self.moves: dict[int, tuple[int, int]] = {}
        for i in range(n):
            said = [np.asarray(side[i]).argmax(0) for side in (reference, artifact)]
            apart = said[0] != said[1]
            self.agree[i] = 1.0 - float(apart.mean())
            if self.agree[i] < SAME_PIXELS:
                move = int(np.bincount(said[0][apart] * k + said[1][apart], minlength=k * k).argmax())
                self.moves[i] = divmod(move, k)
            truth = said[0] if labels is None else labels[i]
            for row, found, wanted in ((0, said[0], truth), (1, said[1], truth), (2, said[1], said[0])):
                counted = (wanted >= 0) & (wanted < k)
                found, wanted = found[counted], wanted[counted]
                hits = found == wanted
                self.mutual[row, i] = np.bincount(wanted[hits], minlength=k)
                self.ours[row, i] = np.bincount(found, minlength=k)
                self.theirs[row, i] = np.bincount(wanted, minlength=k)
                if row < 2:
                    self.right[row, i] = float(hits.mean()) if hits.size else 1.0

    def miou(self, row: int, weights: np.ndarray) -> np.ndarray:
        """Mean IoU in 0..1 for each row of weights (R, N), over the classes that the truth holds there."""
        mutual, ours, theirs = (weights @ table[row] for table in (self.mutual, self.ours, self.theirs))
        union = ours + theirs - mutual
        each = np.divide(mutual, union, out=np.zeros_like(mutual), where=union > 0)
        held = theirs > 0
        return np.asarray((each * held).sum(1) / np.maximum(held.sum(1), 1))

    def scores(self) -> tuple[float, float, float, float, float]:
        """Mean IoU of both in percent, the drop in points and its interval."""
        whole = _ones(self.agree)
        reference, artifact = (100.0 * float(self.miou(side, whole)[0]) for side in (0, 1))
        low, high = bootstrap(
            len(self.agree), lambda w: 100.0 * (self.miou(0, w) - self.miou(1, w)), _RESAMPLES
        )
        if low == high == 0.0:
            low, high = drop_interval(len(self.agree), 0, 0)
        return reference, artifact, reference - artifact, low, high

    def change(self, index: int) -> Change:
        before, after = self.moves[index]
        share = 1.0 - float(self.agree[index])
        said = f"{self.task.called(after)}, {share:.1%} of pixels changed"
        return Change(index, self.task.called(before), said, share)


def _agreement(agree: np.ndarray) -> tuple[float, float, float, float, float]:
    """100, the share of pixels alike in percent, what is lost of it and the interval over images."""
    lost = 100.0 * (1.0 - agree)
    if not lost.any():
        low, high = drop_interval(len(lost), 0, 0)
    else:
        low, high = bootstrap(len(lost), lambda w: w @ lost / len(lost), _RESAMPLES)
    return 100.0, 100.0 - float(lost.mean()), float(lost.mean()), low, high


def _ones(agree: np.ndarray) -> np.ndarray:
    return np.ones((1, len(agree)))
