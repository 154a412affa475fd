"""Small networks, quantized: what quantization-aware training is held against."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

from edgekit import passes
from edgekit.capture import capture
from edgekit.graph.ir import Graph
from edgekit.quantize import QuantizeSettings, quantize

Tensor = torch.Tensor


class Convolutions(nn.Module):
    """Stem, depthwise, squeeze-and-excitation, residual add, ReLU6, classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.expand = nn.Sequential(nn.Conv2d(8, 24, 1), nn.BatchNorm2d(24), nn.ReLU6())
        self.depthwise = nn.Sequential(nn.Conv2d(24, 24, 3, 1, 1, groups=24), nn.BatchNorm2d(24), nn.ReLU())
        self.squeeze, self.excite = nn.Conv2d(24, 8, 1), nn.Conv2d(8, 24, 1)
        self.project = nn.Conv2d(24, 8, 1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.depthwise(self.expand(x))
        gate = F.adaptive_avg_pool2d(y, 1)
        y = y * F.hardsigmoid(self.excite(F.relu(self.squeeze(gate))))
        return self.head((x + self.project(y)).mean((2, 3)))


class Joins(nn.Module):
    """Concat, pooling, subtraction, SiLU, a resize, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 6, 3, 1, 1), nn.Conv2d(3, 6, 1)
        self.grouped = nn.Conv2d(12, 12, 3, 2, 1, groups=4)
        self.head = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = F.silu(self.left(x)), F.relu(self.right(x))
        y = F.max_pool2d(torch.cat([a, b], 1), 2)
        z = self.grouped(y)
        up = F.interpolate(z, scale_factor=2.0, mode="bilinear")
        return self.head(F.avg_pool2d(up - y, 2)), torch.sigmoid(z.mean((2, 3)))


class Tokens(nn.Module):
    """Linear layers on (N, H, W, C) and (N, T, C), layer norm, attention, GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 8, 8)
        self.wide, self.norm = nn.Linear(16, 16), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down, self.head = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.wide(self.patch(x).permute(0, 2, 3, 1)).flatten(1, 2)
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        q, k, v = (t.unflatten(-1, (2, 8)).transpose(1, 2) for t in (q, k, v))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        x = x + self.down(F.gelu(self.up(x)))
        return self.head(x.mean(1))


class Transposed(nn.Module):
    """A transposed convolution, one weight used twice, a constant operand."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(3, 3, 3, 1, 1)
        self.up = nn.ConvTranspose2d(3, 5, 2, 2)
        self.register_buffer("shift", torch.linspace(-1, 1, 5).reshape(1, 5, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.twice(F.relu(self.twice(x))), 0.2)
        return self.up(x) * self.shift + self.shift


NETS: dict[str, Callable[[], nn.Module]] = {
    "convolutions": Convolutions,
    "joins": Joins,
    "tokens": Tokens,
    "transposed": Transposed,
}


def images(count: int = 24, seed: int = 0, size: int = 32) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 4, 4, generator=rng)
    return F.interpolate(coarse, (size, size), mode="bilinear") + 0.3 * torch.randn(
        count, 3, size, size, generator=rng
    )


@cache
def net(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = NETS[name]()
        with torch.no_grad():
            module.train()(torch.randn(16, 3, 32, 32))
    return module.eval()


@cache
def _graphs(name: str, settings: QuantizeSettings) -> tuple[Graph, Graph]:
    graph = capture(net(name), images(1))
    passes.optimize(graph)
    return graph, quantize(graph, images(), settings).graph


def float_graph(name: str) -> Graph:
    return _graphs(name, FAST)[0].copy()


def quantized(name: str, **settings) -> Graph:
    return _graphs(name, QuantizeSettings(**{"profile": "fast", **settings}))[1].copy()


FAST = QuantizeSettings(profile="fast")
