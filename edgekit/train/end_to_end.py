"""Training of a whole module by labels, teachers or a loss of the caller's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekit.errors import DataError, UsageError
from edgekit.train.data import Data, Inputs
from edgekit.train.distillation import distillation_loss, relative_error
from edgekit.train.labels import cross_entropy, mix
from edgekit.train.loop import Optimizers, Progress, TrainRecord, fit
from edgekit.train.settings import Settings

# (the module's outputs, labels or None, outputs of each teacher) -> scalar
Loss = Callable[[Any, torch.Tensor | None, list[Any]], torch.Tensor]


def train(
    module: nn.Module,
    data: Data,
    settings: Settings,
    *,
    teacher: nn.Module | Sequence[nn.Module] | None = None,
    loss: Loss | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    optimizers: Optimizers | None = None,
) -> TrainRecord:
    """Train `module` in place, in float32; it is left in eval mode, on the device it was on.

    Args:
        module: takes the data's inputs; gives logits (N, classes, ...), or anything that `loss` understands.
        data: where batches come from; without labels there must be a teacher or a `loss`.
        teacher: what to distil from, fed with the same inputs; several are an ensemble.
        loss: in place of cross-entropy and distillation: (outputs, labels, outputs of each teacher) ->
            scalar. Without one a module of several outputs learns its teachers' (`match`).
        checkpoint: a file; a training that is found there, and is this one, goes on exactly.
        progress: called with (done, total) as the budget is spent.
        optimizers: in place of the settings' own, see `edgekit.train.loop.fit`.

    Raises:
        UsageError: settings that this module or data cannot have.
        DataError: labels that do not fit the outputs, or none where they are needed.
        TrainError: a loss that is not finite; a checkpoint of another training.
    """
    teachers = [teacher] if isinstance(teacher, nn.Module) else list(teacher or ())
    if loss is not None and settings.mixup > 0:
        raise UsageError("train: mixup with a loss of your own, which blended labels do not fit: mixup 0")

    def objective(inputs: Inputs, labels: torch.Tensor | None, strength: float) -> torch.Tensor:
        blended, classes = mix(inputs, labels, strength * settings.mixup)
        outputs = module(*blended)
        with torch.no_grad():
            answers = [teacher(*blended) for teacher in teachers]
        if loss is not None:
            return loss(outputs, labels, answers)
        smoothing = strength * settings.label_smoothing
        if answers and (settings.match == "outputs" or not isinstance(outputs, torch.Tensor)):
            return _matched(outputs, answers)
        if not isinstance(outputs, torch.Tensor) or outputs.ndim < 2:
            raise UsageError(
                "train: the module gives no logits (N, classes): a loss of your own, or a teacher and "
                "match 'outputs'"
            )
        if answers:
            soft_share = 1.0 - settings.hard_share
            return distillation_loss(outputs, answers, classes, settings.temperature, soft_share, smoothing)
        if classes is None:
            raise DataError("train: the data has no labels: labels, a teacher or a loss of your own")
        return cross_entropy(outputs, classes, smoothing)

    names = {"loss": "" if loss is None else getattr(loss, "__qualname__", type(loss).__name__)}
    return fit(module, objective, data, settings, names, teachers, checkpoint, progress, optimizers)


def _matched(outputs: Any, answers: Sequence[Any]) -> torch.Tensor:
    """Mean relative squared error over all outputs; of several teachers their mean answer is learned."""
    ours = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
    theirs = [[answer] if isinstance(answer, torch.Tensor) else list(answer) for answer in answers]
    if not all(len(each) == len(ours) for each in theirs):
        raise UsageError(f"train: {len(ours)} outputs, another number of the teacher's: the same outputs")
    errors = [
        relative_error(output, torch.stack(same).mean(0) if len(same) > 1 else same[0])
        for output, *same in zip(ours, *theirs, strict=True)
    ]
    return torch.stack(errors).mean()
