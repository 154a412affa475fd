"""Block-wise distillation: every block of the student learns what the same block of the teacher gives.

In: two captured graphs as modules with the same blocks, the student's made cheaper inside (surgery, fewer
channels between the same ends, low rank), and inputs, which need no labels. Out: the student trained in
place. A gradient ends at the input of its block: all blocks learn at once, each its own task, and one far
from the head as fast as one near it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from edgekit.errors import UsageError
from edgekit.graph.module import GraphModule
from edgekit.train.data import Data, Inputs
from edgekit.train.distillation import relative_error
from edgekit.train.loop import Progress, TrainRecord, fit
from edgekit.train.settings import Settings

INPUTS = ("student", "teacher")


def distil_blocks(
    student: GraphModule,
    teacher: GraphModule,
    blocks: Sequence[str],
    data: Data,
    settings: Settings,
    *,
    inputs: str = "student",
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> TrainRecord:
    """Train `student` in place, as `train` does; what belongs to no block before the last one's end is left.

    Args:
        student, teacher: captured graphs with the same inputs. blocks: paths of modules that both have, in
            the order in which they run, with outputs of equal shapes; "" for the end of the network.
        data: labels are not looked at.
        settings: those of distillation's softened classes, and of labels, say nothing here.
        inputs: what a block is fed in training: the outputs of the "student" so far, as it will be, or those
            of the "teacher", as they should be.
        checkpoint, progress: as `train` takes them.

    Raises:
        UsageError: blocks that are missing, out of order or of other shapes.
        TrainError: a loss that is not finite; a checkpoint of another training.
    """
    if inputs not in INPUTS:
        raise UsageError(f"train: there are no inputs '{inputs}' of blocks: {', '.join(INPUTS)}")
    if settings.mixup > 0:
        raise UsageError("train: mixup of blocks, which have no labels: mixup 0")
    ends = _ends(student, teacher, blocks)
    follows = inputs == "teacher"

    def objective(given: Inputs, labels: torch.Tensor | None, strength: float) -> torch.Tensor:
        wanted: dict[str, torch.Tensor] = {}
        errors: list[torch.Tensor] = []

        def keep(name: str, x: torch.Tensor) -> torch.Tensor:
            if name in theirs:
                wanted[name] = x
            return x

        def compare(name: str, x: torch.Tensor) -> torch.Tensor:
            if name not in ends:
                return x
            right = wanted[ends[name]]
            errors.append(relative_error(x, right))
            return right if follows else x.detach()

        with torch.no_grad():
            teacher.watched(given, keep)
        student.watched(given, compare)
        return torch.stack(errors).mean()

    theirs = set(ends.values())
    names = {"blocks": list(blocks), "inputs": inputs}
    return fit(student, objective, data, settings, names, [teacher], checkpoint, progress)


def _ends(student: GraphModule, teacher: GraphModule, blocks: Sequence[str]) -> dict[str, str]:
    """The value with which each block ends in the student -> in the teacher."""
    ours, theirs = student.ends(), teacher.ends()
    found: dict[str, str] = {}
    last = -1
    for block in blocks:
        if block not in ours or block not in theirs:
            known = [path for path in ours if path in theirs and path.count(".") < 2]
            raise UsageError(f"train: no block '{block}' in both networks: {', '.join(known)}")
        (at, name, shape), (_, other, wanted) = ours[block], theirs[block]
        if shape != wanted:
            raise UsageError(
                f"train: block '{block}' gives {shape}, the teacher's {wanted}: blocks with equal outputs"
            )
        if at <= last:
            raise UsageError(f"train: block '{block}' ends no later than the one before: blocks as they run")
        found[name], last = other, at
    if not found:
        raise UsageError("train: no blocks: paths of modules of both networks")
    return found
