"""Small networks, one for each way in which channels hang together."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

Tensor = torch.Tensor


def conv(i: int, o: int, kernel: int = 3, **given: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, kernel, padding=kernel // 2, bias=False, **given), nn.BatchNorm2d(o))


class Residual(nn.Module):
    """Two sums into one stream, a projection beside one of them, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = conv(3, 12), conv(12, 12), conv(12, 16)
        self.side, self.c, self.head = conv(12, 16, 1), conv(16, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.a(x))
        x = F.relu(self.b(x) + self.side(x))
        return self.head((x + self.c(x)).mean((2, 3)))


class SqueezeExcite(nn.Module):
    """An inverted bottleneck with depthwise convolution (and one that doubles), gate and hard swish."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.depthwise = conv(3, 16, 1), conv(16, 16, 3, groups=16)
        self.reduce, self.gate = nn.Conv2d(16, 6, 1), nn.Conv2d(6, 16, 1)
        self.twice, self.project = conv(16, 32, 3, groups=16), conv(32, 10, 1)
        self.head = nn.Linear(10 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.depthwise(F.hardswish(self.expand(x))))
        gate = F.hardsigmoid(self.gate(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))))
        x = F.adaptive_avg_pool2d(self.project(F.silu(self.twice(x * gate))), 4)
        return self.head(x.flatten(1))


class Concat(nn.Module):
    """Dense connections, a split of a joined tensor, padding of channels' sides, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 8), conv(8, 6), conv(14, 10)
        self.d, self.e = conv(12, 7), conv(12, 4)
        self.heads = nn.ModuleList([nn.Conv2d(11, 3, 1), nn.Conv2d(24, 2, 3)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a = F.relu(self.a(x))
        b = torch.cat([a, F.relu(self.b(a))], 1)
        joined = torch.cat([b, F.relu(self.c(b))], 1)
        left, right = joined.chunk(2, 1)
        both = torch.cat([self.d(left), self.e(right)], 1)
        return self.heads[0](F.relu(both)).flatten(2).transpose(1, 2), self.heads[1](
            F.pad(joined, (1, 1, 0, 2))
        )


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 12, 1), conv(12, 24, 3, groups=4), conv(24, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.c(F.relu(self.b(F.relu(self.a(x))))))
        return self.head(x.amax((2, 3)))


def shuffled(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class ShuffleTwo(nn.Module):
    """ShuffleNet V2: half goes by, both halves are shuffled, several times."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 32, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(conv(16, 16, 1), nn.ReLU(), conv(16, 16, 3, groups=16), conv(16, 16, 1), nn.ReLU())
            for _ in range(3)
        )
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            left, right = x.chunk(2, 1)
            x = shuffled(torch.cat([left, block(right)], 1), 2)
        return self.head(x.mean((2, 3)))


class ShuffleOne(nn.Module):
    """ShuffleNet V1: grouped convolutions with a shuffle between them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a = conv(3, 24, 1), conv(24, 24, 1, groups=3)
        self.depthwise, self.b = conv(24, 24, 3, groups=24), conv(24, 24, 1, groups=3)
        self.head = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = self.b(self.depthwise(shuffled(F.relu(self.a(x)), 3)))
        return self.head(F.relu(x + y).mean((2, 3)))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = conv(3, 8), conv(8, 16)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.last, self.out = conv(16, 6), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.down(x))
        deep = F.relu(self.deep(F.max_pool2d(skip, 2)))
        wide = F.interpolate(deep, scale_factor=2.0, mode="bilinear") + 0.0
        up = self.up(deep) + wide[:, :8] * 0.5
        return self.out(F.relu(self.last(torch.cat([skip, up], 1))))


NETS: dict[str, type[nn.Module]] = {
    net.__name__: net for net in (Residual, SqueezeExcite, Concat, Grouped, ShuffleTwo, ShuffleOne, UNet)
}
