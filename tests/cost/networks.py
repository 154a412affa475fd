"""Small networks with every kind of fused unit, and what they are lowered to."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgekit import passes
from edgekit.capture import capture
from edgekit.graph.ir import Graph
from edgekit.lower.lowered import Lowered
from edgekit.lower.tflite import lower, prepare
from edgekit.quantize import qparams, rules
from edgekit.targets import get_target

SIDE = 16


class Gate(nn.Module):
    """Squeeze and excite."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = torch.relu(self.down(x.mean((2, 3), keepdim=True)))
        return x * nn.functional.hardsigmoid(self.up(squeezed))


class Small(nn.Module):
    """Stem, table activations, depthwise, gate, residual, concat, head."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 2, 1)
        self.norm = nn.BatchNorm2d(width)
        self.depthwise = nn.Conv2d(width, width, 3, 2, 1, groups=width)
        self.gate = Gate(width)
        self.one = nn.Conv2d(width, width, 1)
        self.two = nn.Conv2d(width, width, 1)
        self.grouped = nn.Conv2d(width, width, 3, 1, 1, groups=4)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.hardswish(self.norm(self.stem(x)))
        x = self.gate(nn.functional.silu(self.depthwise(x)))
        x = x + torch.relu(self.one(x))
        y = self.grouped(nn.functional.gelu(self.two(x)))
        return self.head(torch.cat([x, y], 1).mean((2, 3)))


def small(width: int = 16) -> Graph:
    """Captured, with seeded weights."""
    torch.manual_seed(0)
    return capture(Small(width).eval(), torch.rand(1, 3, SIDE, SIDE))


def built(graph: Graph, target: str) -> Lowered:
    """The file of a captured graph, with true weights and made-up ranges."""
    wanted, copy = get_target(target), graph.copy()
    passes.optimize(copy)
    if wanted.quantized:
        ranges = dict.fromkeys(rules.activations(copy), (-2.0, 3.0))
        qparams.annotate(copy, ranges, wanted.activations)
    return lower(prepare(copy, wanted), wanted)
