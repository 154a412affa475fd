"""Small networks and data that the tests of training share."""

import torch
from torch import nn

from edgekit.train import tensor_data


class Small(nn.Module):
    """Convolutions with batch norm, a depthwise one, dropout, a head: about 1,000 parameters."""

    def __init__(self, classes=4):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depth = nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False)
        self.depth_norm = nn.BatchNorm2d(8)
        self.project = nn.Conv2d(8, 12, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(12)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(12, classes)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(self.depth_norm(self.depth(x)))
        x = torch.relu(self.project_norm(self.project(x)))
        return self.head(self.drop(x.mean((2, 3))))


def small(seed=0, classes=4):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Small(classes)


def striped(count=64, classes=4, side=12, labels=True):
    """Noisy pictures whose class is the channel and direction of their stripes."""
    rng = torch.Generator().manual_seed(1)
    kinds = torch.arange(count) % classes
    wave = torch.tensor([1.0, -1.0]).repeat(side // 2)
    images = 0.3 * torch.randn(count, 3, side, side, generator=rng)
    for image, kind in zip(images, kinds.tolist(), strict=True):
        image[kind % 3] += wave if kind % 2 else wave[:, None]
    return tensor_data(images.numpy(), kinds.numpy() if labels else None)
