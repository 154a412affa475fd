"""Training: one loop for everything that learns.

    record = train(module, data, Settings(minutes=10), teacher=original, checkpoint=path)

`run_training` is what a build's step calls: the same, or a function of the user's in its place.

Enters: an nn.Module (the captured graph as a module is one), `Data`, `Settings`. Leaves: the module trained
in place, and a `TrainRecord`. Schedules, layers, optimizers, labels and losses are files of their own.
"""

from edgekit.train.data import Data, PictureData, TensorData, open_data, tensor_data
from edgekit.train.end_to_end import train
from edgekit.train.loop import TrainRecord, fit
from edgekit.train.run import Context, run_training
from edgekit.train.settings import Settings, Stage

__all__ = [
    "Context",
    "Data",
    "PictureData",
    "Settings",
    "Stage",
    "TensorData",
    "TrainRecord",
    "fit",
    "open_data",
    "run_training",
    "tensor_data",
    "train",
]
