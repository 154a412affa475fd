"""A small classifier in a file of its own, as a user of FILE.py:FUNCTION would hand over."""

import torch
from torch import nn

NET = f"{__file__}:net"
PREPROCESSING = {
    "resolution": 32,
    "resize": 32,
    "interpolation": "bilinear",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.25),
}


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, 1, 1, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.Hardswish()
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        return x + self.project(self.act(self.norm(self.depthwise(x))))


def net(classes=4):
    torch.manual_seed(3)
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU6(),
        Block(16),
        nn.Conv2d(16, 32, 3, 2, 1),
        nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, classes),
    )
    with torch.no_grad():
        module.train()(torch.randn(32, 3, 32, 32))
    module = module.eval()
    module.preprocessing = PREPROCESSING
    return module


def rolled():
    """Two operators no target lowers, in two modules."""

    class Odd(nn.Module):
        def forward(self, x):
            return torch.lgamma(x)

    class Odder(nn.Module):
        def forward(self, x):
            return torch.digamma(x)

    module = nn.Sequential(nn.Conv2d(3, 4, 1), Odd(), Odder(), nn.Flatten(), nn.Linear(4096, 4))
    module.preprocessing = PREPROCESSING
    return module.eval()
