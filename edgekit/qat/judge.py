"""Whether a trained graph is better than the calibrated one: on images that neither training nor the choice
of anything saw, each beside itself.

By the float answers: accepted where the mean gain in signal to noise exceeds its standard error and the noise
of all images together is not larger. By labels: where the mean gain in log-likelihood exceeds its standard
error and no more images are wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from edgekit.graph.batch import batch_dims
from edgekit.graph.ir import Graph
from edgekit.graph.run import run
from edgekit.quantize import simulate
from edgekit.quantize.images import Given, Images, images_first

Tensor = torch.Tensor
_LIMIT_DB = 200.0


@dataclass(frozen=True)
class Judgement:
    """before, after: of the calibrated and the trained graph: figures by name.

    gain: mean over images, of dB by the float answers, of log-likelihood by labels; error: its standard
    error.
    """

    by: str  # "answers" or "labels"
    images: int
    gain: float
    error: float
    before: dict[str, float]
    after: dict[str, float]
    accepted: bool


def by_answers(wanted: Tensor, before: Tensor, after: Tensor) -> Judgement:
    """Answers (N, values) of the float graph and of the simulations."""
    noises = [(each - wanted).double().square().sum(1) for each in (before, after)]
    signal = wanted.double().square().sum(1)
    each = [_decibels(signal, noise) for noise in noises]
    old, new = (
        {"median_db": float(db.median()), "pooled_db": float(_decibels(signal.sum(), noise.sum()))}
        for db, noise in zip(each, noises, strict=True)
    )
    gain, error = _paired(each[1] - each[0])
    accepted = gain > error and new["pooled_db"] >= old["pooled_db"]
    return Judgement("answers", len(wanted), gain, error, old, new, accepted)


def by_labels(labels: Tensor, before: Tensor, after: Tensor) -> Judgement:
    """Logits (N, classes, ...) of the simulations, and labels (N, ...); unknown classes do not count."""
    each = [-_each_entropy(logits, labels) for logits in (before, after)]
    old, new = (
        {"accuracy": _accuracy(logits, labels), "log_likelihood": float(likely.mean())}
        for logits, likely in zip((before, after), each, strict=True)
    )
    gain, error = _paired(each[1] - each[0])
    accepted = gain > error and new["accuracy"] >= old["accuracy"]
    return Judgement("labels", len(labels), gain, error, old, new, accepted)


def float_answers(graph: Graph, images: Given) -> list[Tensor]:
    """Every output of a float graph, (N, ...)."""
    given = Images(graph, images)
    with torch.inference_mode():
        pieces = [run(graph, inputs) for inputs in given.batches(given.at_once())]
    dims = batch_dims(graph)
    joined = [
        torch.cat(parts, dims.get(v) or 0)
        for v, parts in zip(graph.outputs, zip(*pieces, strict=True), strict=True)
    ]
    return _by_image(graph, joined, len(given))


def simulated_answers(graph: Graph, images: Given) -> list[Tensor]:
    """Every output of an annotated graph's simulation, (N, ...)."""
    return _by_image(graph, simulate(graph, images), len(Images(graph, images)))


def flat(answers: Sequence[Tensor]) -> Tensor:
    """All outputs of an image in a row: (N, values)."""
    return torch.cat([answer.reshape(len(answer), -1).float() for answer in answers], 1)


def _by_image(graph: Graph, outputs: Sequence[Tensor], count: int) -> list[Tensor]:
    dims = batch_dims(graph)
    rows = [images_first(t, dims.get(v), count) for v, t in zip(graph.outputs, outputs, strict=True)]
    return [t.reshape(count, -1, *t.shape[1:]).squeeze(1) for t in rows]


def _decibels(signal: Tensor, noise: Tensor) -> Tensor:
    ratio = signal.clamp_min(1e-30) / noise.clamp_min(1e-30)
    return (10.0 * torch.log10(ratio)).clamp(-_LIMIT_DB, _LIMIT_DB)


def _paired(gains: Tensor) -> tuple[float, float]:
    """The mean and its standard error; of one image nothing is known of the latter."""
    if len(gains) < 2:
        return float(gains.mean()), math.inf
    return float(gains.mean()), float(gains.std() / math.sqrt(len(gains)))


def _each_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of each image: (N,)."""
    valid = (labels >= 0) & (labels < logits.shape[1])
    lost = F.cross_entropy(logits.double(), labels.masked_fill(~valid, -100), reduction="none")
    counted = valid.reshape(len(labels), -1).sum(1).clamp_min(1)
    return lost.reshape(len(labels), -1).sum(1) / counted


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    valid = (labels >= 0) & (labels < logits.shape[1])
    return float((logits.argmax(1) == labels)[valid].double().mean())
