"""Training: one loop for everything that learns.

    record = train(module, data, Settings(minutes=10), teacher=original, checkpoint=path)

`distil_blocks` teaches the blocks of a captured graph, each its own task; `recover` does both to a network
that surgery changed. `run_training` is what a build's
step calls: `train`, or a function of the user's in its place.

Enters: an nn.Module (the captured graph as a module is one), `Data`, `Settings`. Leaves: the module trained
in place, and a `TrainRecord`. Schedules, layers, optimizers, labels and losses are files of their own.

A recipe is read without torch and takes `Settings` from here: everything else loads when it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgekit.train.settings import Settings, Stage

if TYPE_CHECKING:
    from edgekit.train.blocks import distil_blocks
    from edgekit.train.data import Data, PictureData, TensorData, open_data, tensor_data
    from edgekit.train.end_to_end import train
    from edgekit.train.loop import TrainRecord, fit
    from edgekit.train.recovery import Recovery, recover
    from edgekit.train.run import Context, run_training

__all__ = [
    "Context",
    "Data",
    "PictureData",
    "Recovery",
    "Settings",
    "Stage",
    "TensorData",
    "TrainRecord",
    "distil_blocks",
    "fit",
    "open_data",
    "recover",
    "run_training",
    "tensor_data",
    "train",
]

_HOMES = {
    "Context": "edgekit.train.run",
    "Data": "edgekit.train.data",
    "PictureData": "edgekit.train.data",
    "Recovery": "edgekit.train.recovery",
    "TensorData": "edgekit.train.data",
    "TrainRecord": "edgekit.train.loop",
    "distil_blocks": "edgekit.train.blocks",
    "fit": "edgekit.train.loop",
    "open_data": "edgekit.train.data",
    "recover": "edgekit.train.recovery",
    "run_training": "edgekit.train.run",
    "tensor_data": "edgekit.train.data",
    "train": "edgekit.train.end_to_end",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgekit.train' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
