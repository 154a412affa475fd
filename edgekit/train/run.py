"""A step of a build: `run_training` trains by the loop here, or by the user's own function in its place.

    def my_training(module, context):       # --train FILE.py:my_training
        for inputs, labels in context.batches(32):
            ...

The function trains `module` in place, on whatever device and as it likes, and returns nothing or the module.
A step that is killed is called again with the same directory: what goes on from there is its own affair.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekit.errors import TrainError, UsageError
from edgekit.files import storage_errors
from edgekit.train.checkpoint import tensors_of, weights_sha256
from edgekit.train.data import Data, Inputs
from edgekit.train.end_to_end import Loss, train
from edgekit.train.loop import Optimizers, Progress, chosen_device
from edgekit.train.settings import Settings
from edgekit.zoo.user_code import call_function

_CHECKPOINT = "training.pt"


@dataclass(frozen=True)
class Context:
    """What a user's training is given.

    data: of the recipe. teacher: the original, in eval mode, or None. minutes: the budget, None where steps
    were asked for. directory: outlives a killed build. device: where the loop here would train.
    settings: the recipe's. progress: (done, total) for the progress line.
    """

    data: Data
    teacher: nn.Module | None
    minutes: float | None
    directory: Path
    device: torch.device
    settings: Settings
    progress: Progress

    def batches(self, batch: int, size: int | None = None) -> Iterator[tuple[Inputs, torch.Tensor | None]]:
        """Inputs and labels on the device, without end: batch 0, 1, 2 ... of the settings' seed."""
        step = 0
        while True:
            inputs, labels = self.data.batches(step, batch, size, self.settings.seed)
            here = tuple(array.to(self.device) for array in inputs)
            yield here, None if labels is None else labels.to(self.device)
            step += 1


def run_training(
    module: nn.Module,
    data: Data,
    settings: Settings,
    *,
    teacher: nn.Module | Sequence[nn.Module] | None = None,
    loss: Loss | None = None,
    function: str | None = None,
    directory: Path,
    progress: Progress | None = None,
    optimizers: Optimizers | None = None,
) -> dict[str, Any]:
    """Train `module` in place; it is left in eval mode on the CPU. Returns what was done, as JSON.

    Args:
        module, data, settings, teacher, loss: as `edgekit.train.train` takes them.
        function: FILE.py:FUNCTION in the place of the loop.
        directory: for the checkpoint; with the same directory a killed training ends with the same bytes.
        progress: called with (done, total), as a progress line's `advance` takes them.
        optimizers: of the loop, in place of the settings' own.

    Raises:
        UsageError, DataError, TrainError: as `train`; a function of the user's that raised or returned
            something else, or left weights that are not finite.
    """
    if function is None:
        record = train(
            module,
            data,
            settings,
            teacher=teacher,
            loss=loss,
            checkpoint=directory / _CHECKPOINT,
            progress=progress,
            optimizers=optimizers,
        )
        return {"settings": settings.to_dict(), **asdict(record)}
    one = teacher if isinstance(teacher, nn.Module) or teacher is None else nn.ModuleList(teacher)
    context = Context(
        data,
        None if one is None else one.eval(),
        settings.minutes,
        directory,
        chosen_device(settings),
        settings,
        progress or (lambda done, total: None),
    )
    flags = [parameter.requires_grad for parameter in module.parameters()]
    before = list(tensors_of(module))
    with storage_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    module.train()
    given = call_function(function, "trains (module, context)", module, context)
    if given is not None and given is not module:
        raise UsageError(f"{function}: returned {type(given).__name__}: nothing, or the module it was given")
    module.cpu().float().eval()
    if list(tensors_of(module)) != before:
        raise UsageError(f"{function}: the module has other parameters than before: train those it has")
    for parameter, flag in zip(module.parameters(), flags, strict=True):
        parameter.requires_grad_(flag)
        parameter.grad = None
    for name, tensor in tensors_of(module).items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise TrainError(f"{function}: left {name} with values that are not finite: a lower rate")
    return {"function": function, "device": context.device.type, "weights": weights_sha256(module)}
