"""What the zoo's tests build: a small module, files of its weights, and a pickle that would leave a trace."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn


def small_module(seed: int = 0) -> nn.Module:
    """3 x 32 x 32 -> 5 classes, eval mode, with batch norm statistics that are not the default ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 5),
        )
        module[1].running_mean.normal_()
        return module.eval()


class Bomb:
    """Unpickled, it creates `trace`."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (open, (str(self.trace), "w"))


USER_CODE = """
from torch import nn
from neighbour import WIDTH

class Net(nn.Module):
    def __init__(self, num_classes=5):
        super().__init__()
        self.conv = nn.Conv2d(3, WIDTH, 3)
        self.head = nn.Linear(WIDTH, num_classes)
        self.preprocessing = {"resolution": 48, "mean": (0.5, 0.5, 0.5)}

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))

def net(num_classes=5):
    return Net(num_classes)

def fresh():
    module = Net()
    module.untrained = True
    return module

def fixed():
    return Net()

def broken():
    raise ValueError("two\\nlines")

def nothing():
    return 3
"""


def user_file(folder: Path) -> Path:
    """A user's file that imports another beside it."""
    (folder / "neighbour.py").write_text("WIDTH = 4\n")
    path = folder / "mine.py"
    path.write_text(USER_CODE)
    return path
