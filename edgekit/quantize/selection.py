"""Which candidate calibration takes: the one that images speak for to which it was not fitted.

The images fall into four interleaved folds. For each fold a candidate is fitted whole (ranges, equalization,
biases) to the images of the others and judged on the images of the fold; the errors of all folds count
together. No image is left out, strange ones least of all: clipping costs exactly those. The plainest
candidate stays unless another gains MIN_GAIN in all three figures (see `judged`), for scores in a single
figure, or on the images that were fitted to, prefer what loses elsewhere.

A candidate that cannot win is not taken through all folds: with more than SCREENED images the first fold
leaves SURVIVORS of them.

Enters: a `Fitter` and candidates, the plainest first. Leaves: a `Choice`, with what every candidate gained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from edgekit.quantize.candidates import Candidate
from edgekit.quantize.fit import Fitter
from edgekit.quantize.images import BATCH
from edgekit.quantize.judged import Judged, judge
from edgekit.quantize.observers import looked_at
from edgekit.quantize.simulate import simulate

Tensor = torch.Tensor
FOLDS = 4
MIN_GAIN = 0.3  # dB, in the least of the three figures
SCREENED = 32  # images beyond which the first fold decides which candidates go on
SURVIVORS = (2, 1)  # candidates beside the plainest after the first fold, and after the second


@dataclass(frozen=True)
class Fold:
    fit: Tensor  # which images are fitted to
    judged: Tensor  # and which are judged


@dataclass
class Choice:
    """plain: what the others have to beat. judged: each candidate on the images of the folds it went through,
    in the folds' order.
    """

    chosen: Candidate
    plain: Candidate
    judged: dict[Candidate, Judged] = field(default_factory=dict)

    def gains(self, candidate: Candidate, base: Candidate) -> dict[str, float]:
        """What one candidate gains over another on the images that both were judged on."""
        one, other = self.judged[candidate], self.judged[base]
        count = min(len(one), len(other))
        return one.first(count).gains(other.first(count))

    def best(self, base: Candidate, among: list[Candidate]) -> list[Candidate]:
        """Those of `among` by their least gain over `base`, the largest first."""
        least = {c: min(self.gains(c, base).values()) for c in among if c != base}
        return sorted(least, key=lambda c: least[c], reverse=True)

    def wins(self, candidate: Candidate, base: Candidate) -> bool:
        return min(self.gains(candidate, base).values()) > MIN_GAIN


def folds(images: int, most: int) -> list[Fold]:
    """FOLDS interleaved ones, fewer where images are; at most `most` images are judged in all.

    A single image is judged by the fit to itself.
    """
    every = torch.arange(images)
    if images == 1:
        return [Fold(every, every)]
    count = min(FOLDS, images)
    found = []
    for i in range(count):
        rows = every[i::count]
        judged = min(len(rows), -(-most // count))
        found.append(Fold(every[every % count != i], rows[torch.arange(judged) * len(rows) // judged]))
    return found


class Selection:
    """The folds of one calibration, and what was judged on them so far.

    Args:
        corrections: images from which a fold's biases and weights are fitted.
        judged: images that are judged at most, in all folds together.
    """

    def __init__(
        self, fitter: Fitter, corrections: int, judged: int, progress: Callable[[str], None]
    ) -> None:
        self.fitter, self.corrections, self.progress = fitter, corrections, progress
        self.folds = folds(len(fitter.images), judged)
        self.orders = [fitter.outvoted_last(fold.fit) for fold in self.folds]
        outputs = fitter.seen.outputs
        self.power = [max(float(rows.double().square().sum(1).mean()), 1e-30) for rows in outputs]

    def choose(self, candidates: list[Candidate], outliers: bool = True) -> Choice:
        """Take `candidates` through the folds.

        Args:
            outliers: whether single channels may be rescaled, which is then decided first: where it helps it
                helps by so much that all else would be lost in it.

        What makes up the chosen one is judged on the first fold at least, so that each part has its gain.
        """
        choice = Choice(candidates[0], candidates[0])
        if outliers and self.fitter.outliers(self.orders[0]):
            even = replace(choice.plain, even_outliers=True)
            for candidate in (choice.plain, even):
                self._judge(choice, candidate, 0)
            if choice.wins(even, choice.plain):
                choice.plain = choice.chosen = even
                candidates = [replace(candidate, even_outliers=True) for candidate in candidates]
        if len(candidates) > 1:
            self._compare(choice, candidates)
        for candidate in choice.chosen.steps().values():
            if candidate not in choice.judged:
                self._judge(choice, candidate, 0)
        return choice

    def _compare(self, choice: Choice, candidates: list[Candidate]) -> None:
        many = len(self.fitter.images) > SCREENED
        alive = list(candidates)
        for i in range(len(self.folds)):
            for candidate in alive:
                if i or candidate not in choice.judged:
                    self._judge(choice, candidate, i)
            if many and i < len(SURVIVORS):
                alive = [choice.plain, *choice.best(choice.plain, alive)[: SURVIVORS[i]]]
        best = choice.best(choice.plain, alive)[0]
        if choice.wins(best, choice.plain):
            choice.chosen = best

    def _judge(self, choice: Choice, candidate: Candidate, fold: int) -> None:
        """One candidate on one fold."""
        self.progress(f"fold {fold + 1} of {len(self.folds)}: {candidate.name}")
        fitter, rows = self.fitter, self.folds[fold].judged
        fitter.fit(candidate, self.orders[fold], self.corrections)
        images = fitter.images.rows(rows)
        made = simulate(fitter.graph, images, images.at_once(BATCH), fitter.dims)
        dims = (fitter.dims.get(value) for value in fitter.graph.outputs)
        got = [looked_at(t, dim, len(rows)) for t, dim in zip(made, dims, strict=True)]
        found = judge([outputs[rows] for outputs in fitter.seen.outputs], got, self.power)
        before = choice.judged.get(candidate)
        choice.judged[candidate] = found if before is None else before + found
