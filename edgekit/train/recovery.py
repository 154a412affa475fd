"""What follows surgery: a changed network learns again what its original answers.

    blocks    every block learns what the same block of the original gives, on what the changed network itself
              feeds it, without labels: errors do not add up from block to block
    whole     distillation of the answers, softened, with the labels where there are some

Blocks are found, not named: at places that everything goes through, where both networks hold the same values
but for an error, at least so many layers apart. (A ReLU6 that was stretched to replace another activation
holds other values than that one did, and is no such place.)

Enters: two captured graphs as modules, and data. Leaves: the first, trained in place, and a `Recovery`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from edgekit.graph.module import GraphModule
from edgekit.train.blocks import distil_blocks
from edgekit.train.data import Data, Inputs
from edgekit.train.distillation import relative_error
from edgekit.train.end_to_end import train
from edgekit.train.loop import Progress, TrainRecord
from edgekit.train.settings import Settings

BLOCKS_SHARE = 0.2  # of the length, for the blocks
_SAME = 0.5  # largest relative error of what counts as the same value
_APART = 3  # layers with weights of a block, at least
_LOOKED_AT = 16  # images
_SCALE = 1000  # of progress
# Muon below AdamW's usual rate: 2e-3 ended further from the original than 1e-3 on MobileNetV3-Small.
RECIPE = Settings(
    steps=1, batch=48, optimizer="muon", rate=5e-4, final=0.005, ema=60, temperature=2.0, hard_share=0.3
)


@dataclass(frozen=True)
class Recovery:
    """blocks: paths of those that learned. by_block: their training, None where there were none."""

    blocks: tuple[str, ...]
    by_block: TrainRecord | None
    whole: TrainRecord

    @property
    def steps(self) -> tuple[int, int]:
        """Of both parts: what a repetition asks for."""
        return (0 if self.by_block is None else self.by_block.steps, self.whole.steps)

    @property
    def seconds(self) -> float:
        return (0.0 if self.by_block is None else self.by_block.seconds) + self.whole.seconds


def recover(
    module: GraphModule,
    original: GraphModule,
    data: Data,
    settings: Settings = RECIPE,
    *,
    minutes: float | None = None,
    steps: tuple[int, int] | None = None,
    directory: Path | None = None,
    progress: Progress | None = None,
) -> Recovery:
    """Train `module` in place, as `train` does, to answer as `original`.

    Args:
        module, original: captured graphs with the same inputs and outputs.
        settings: of the training of the whole; its length says nothing here.
        minutes: of the processor, in all; or steps: (by block, whole).
        directory: for the checkpoints; with the same directory a killed recovery ends with the same bytes.
        progress: called with (done, total).

    Raises: UsageError, DataError, TrainError as `train`.
    """
    assert (minutes is None) != (steps is None), "one length"
    say = progress or (lambda done, total: None)
    blocks: tuple[str, ...] = ()
    if steps is None or steps[0]:
        blocks = found_blocks(module, original, data.batches(0, _LOOKED_AT, None, settings.seed)[0])
    share = BLOCKS_SHARE if blocks else 0.0
    lengths: list[dict[str, float | int | None]]
    if steps is not None:
        lengths = [{"steps": count, "minutes": None, "epochs": None} for count in steps]
        share = steps[0] / sum(steps)
    else:
        assert minutes is not None
        parts = (minutes * share, minutes * (1.0 - share))
        lengths = [{"steps": None, "minutes": part, "epochs": None} for part in parts]
    first: TrainRecord | None = None
    with _without_dropout(module):
        if blocks:
            first = distil_blocks(
                module,
                original,
                blocks,
                data,
                replace(settings, mixup=0.0, **lengths[0]),  # type: ignore[arg-type]
                checkpoint=directory and directory / "blocks.pt",
                progress=partial(_part, say, 0.0, share),
            )
        whole = train(
            module,
            data,
            replace(settings, **lengths[1]),  # type: ignore[arg-type]
            teacher=original,
            checkpoint=directory and directory / "whole.pt",
            progress=partial(_part, say, share, 1.0),
        )
    return Recovery(blocks, first, whole)


def found_blocks(module: GraphModule, original: GraphModule, inputs: Inputs) -> tuple[str, ...]:
    """Paths of modules, as they run, after which both networks hold the same values but for an error.

    Args: inputs: some images; values are compared on them, in eval mode.
    """
    ours, theirs = module.ends(), original.ends()
    places = module.passages()
    paths: dict[int, str] = {}
    for path, (at, _, shape) in ours.items():
        fits = at in places and path in theirs and theirs[path][2] == shape
        if fits and len(path) < len(paths.get(at, f"{path}.")):
            paths[at] = path
    values = [
        _values(network, inputs, {ends[path][1] for path in paths.values()})
        for network, ends in ((module, ours), (original, theirs))
    ]
    same = [
        at
        for at, path in sorted(paths.items())
        if float(relative_error(values[0][ours[path][1]], values[1][theirs[path][1]])) <= _SAME
    ]
    found, last = [], 0
    for layers, at in {places[at]: at for at in same}.items():  # behind the same layers the last one
        if layers - last >= _APART or paths[at] == "":
            found.append(paths[at])
            last = layers
    return tuple(found) if len(found) > 1 else ()


@torch.no_grad()
def _values(module: GraphModule, inputs: Inputs, names: set[str]) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}

    def see(name: str, x: torch.Tensor) -> torch.Tensor:
        if name in names:
            found[name] = x
        return x

    module.eval().watched(inputs, see)
    return found


def _part(say: Progress, low: float, high: float, done: int, total: int) -> None:
    """Progress of a part as progress of the whole."""
    say(round(_SCALE * (low + (high - low) * done / max(total, 1))), _SCALE)


@contextmanager
def _without_dropout(module: nn.Module) -> Iterator[None]:
    """Nothing is left out inside the block: what a teacher answers is not learned by heart."""
    kept = {part: part.p for part in module.modules() if isinstance(part, nn.Dropout)}
    for part in kept:
        part.p = 0.0
    try:
        yield
    finally:
        for part, p in kept.items():
            part.p = p
