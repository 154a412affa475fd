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


class Attention(nn.Module):
    """A vision transformer: class token, position embedding, one layer for q, k and v, layer scale."""

    heads, dim = 3, 4

    def __init__(self) -> None:
        super().__init__()
        width, inner = 18, self.heads * self.dim
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 17, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.qkv, self.proj = nn.Linear(width, 3 * inner), nn.Linear(inner, width)
        self.up, self.down = nn.Linear(width, 20), nn.Linear(20, width)
        self.scale = nn.Parameter(torch.rand(width) + 0.5)
        self.head = nn.Linear(width, 5)

    def attend(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, length, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(n, length, -1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        x = x + self.scale * self.attend(self.norms[0](x))
        x = x + self.down(F.gelu(self.up(self.norms[1](x))))
        return self.head(self.norms[2](x)[:, 0])


class TalkingHeads(Attention):
    """Scores are mixed over heads before and behind their softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.behind = nn.Linear(3, 3), nn.Linear(3, 3)

    def attend(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, length, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4).unbind(0)
        scores = self.before((q @ k.transpose(-2, -1)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2).softmax(-1)
        scores = self.behind(scores.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.proj((scores @ v).transpose(1, 2).reshape(n, length, -1))


def rotated(x: Tensor) -> Tensor:
    """Neighbours turned by an angle for each position and pair."""
    angle = torch.arange(x.shape[-2])[:, None] * torch.linspace(0.1, 1, x.shape[-1] // 2).repeat_interleave(2)
    angle = angle.to(x.dtype)
    turned = torch.stack([-x[..., 1::2], x[..., ::2]], -1).reshape(x.shape)
    return x * angle.cos() + turned * angle.sin()


class Rotary(Attention):
    """Queries and keys turned in pairs of channels by their position."""

    def attend(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, length, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(rotated(q), rotated(k), v)
        return self.proj(x.transpose(1, 2).reshape(n, length, -1))


class Windows(nn.Module):
    """Shifted windows with a bias for each head and position, then four neighbours merged into one."""

    heads, dim = 3, 4

    def __init__(self) -> None:
        super().__init__()
        width, inner = 12, self.heads * self.dim
        self.patches = nn.Conv2d(3, width, 2, stride=2)
        self.norm, self.qkv, self.proj = (
            nn.LayerNorm(width),
            nn.Linear(width, 3 * inner),
            nn.Linear(inner, width),
        )
        self.table = nn.Parameter(torch.randn(49, self.heads))
        at = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")).flatten(1)
        self.register_buffer(
            "index", ((at[:, :, None] - at[:, None]) + 3).mul(torch.tensor([7, 1])[:, None, None]).sum(0)
        )
        self.merged, self.reduce = nn.LayerNorm(4 * width), nn.Linear(4 * width, 16, bias=False)
        self.head = nn.Linear(16, 5)

    def attend(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        qkv = self.qkv(x).reshape(n, length, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0] * self.dim**-0.5, qkv[1], qkv[2]
        bias = self.table[self.index.view(-1)].view(length, length, -1).permute(2, 0, 1)
        scores = (q @ k.transpose(-2, -1) + bias[None]).softmax(-1)
        return self.proj((scores @ v).transpose(1, 2).reshape(n, length, -1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).permute(0, 2, 3, 1)  # (N, 8, 8, C)
        y = torch.roll(self.norm(x), (-2, -2), (1, 2))
        y = y.view(-1, 2, 4, 2, 4, y.shape[-1]).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, y.shape[-1])
        y = self.attend(y).view(-1, 2, 2, 4, 4, x.shape[-1]).permute(0, 1, 3, 2, 4, 5).reshape(x.shape)
        x = x + torch.roll(y, (2, 2), (1, 2))
        x = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)
        return self.head(self.reduce(self.merged(x)).mean((1, 2)))


class LinearAttention(nn.Module):
    """Keys meet values before queries do; q, k and v by 1x1 convolutions, one head's channels together."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.qkv, self.proj = conv(3, 12), nn.Conv2d(12, 36, 1), conv(12, 12, 1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.hardswish(self.stem(x)), 2)
        n, _, h, w = x.shape
        q, k, v = self.qkv(x).reshape(n, -1, 3 * 4, h * w).transpose(-1, -2).chunk(3, -1)
        q, k = F.relu(q), F.relu(k)
        y = q @ (k.transpose(-1, -2) @ v) / (q @ k.transpose(-1, -2).sum(-1, keepdim=True) + 1e-3)
        x = x + self.proj(y.transpose(-1, -2).reshape(n, -1, h, w))
        return self.head(x.mean((2, 3)))


class PaddedAttention(nn.Module):
    """Linear attention whose denominator is one more value of each head, padded with ones."""

    heads, dim = 3, 4

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.qkv, self.proj = conv(3, 12), nn.Conv2d(12, 36, 1), conv(12, 12, 1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.hardswish(self.stem(x)), 2)
        n, _, h, w = x.shape
        q, k, v = self.qkv(x).reshape(n, self.heads, 3 * self.dim, h * w).transpose(-1, -2).chunk(3, -1)
        y = F.relu(q) @ (F.relu(k).transpose(-1, -2) @ F.pad(v, (0, 1), value=1.0))
        y = y[..., :-1] / (y[..., -1:] + 1e-3)
        x = x + self.proj(y.transpose(-1, -2).reshape(n, -1, h, w))
        return self.head(x.mean((2, 3)))


class Statistics(nn.Module):
    """Norms over channels written by hand, and a spatial gate from their average and their maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b, self.gate = (
            conv(3, 12),
            conv(12, 14),
            conv(14, 10),
            nn.Conv2d(2, 1, 3, padding=1),
        )
        self.head = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        mean = x.mean(1, keepdim=True)
        x = (x - mean) / ((x - mean).square().mean(1, keepdim=True) + 1e-5).sqrt()
        x = F.normalize(self.a(x), dim=1) * 3
        x = self.b(x)
        gate = self.gate(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1))
        return self.head((x * gate.sigmoid()).mean((2, 3)))


class State(nn.Module):
    """Positions summed into a few states and read again; a convolution beside the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.states, self.mix = conv(3, 12), nn.Conv1d(12, 10, 1), nn.Conv1d(12, 12, 1)
        self.scales, self.head = nn.Conv1d(2, 1, 1), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem(x), 2).flatten(2)  # (N, C, L)
        b, c = self.states(x).chunk(2, 1)
        x = x + self.mix(x @ b.softmax(-1).transpose(1, 2)) @ c
        both = torch.stack([x.mean(2), x.amax(2)], 1)  # (N, 2, C)
        return self.head(self.scales(both).squeeze(1))


class Next(nn.Module):
    """ConvNeXt's block with channels last, layer scale and a response normalised over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 12, 2, stride=2), nn.Conv2d(12, 12, 7, padding=3, groups=12)
        self.norm, self.up, self.down = nn.LayerNorm(12), nn.Linear(12, 24), nn.Linear(24, 12)
        self.gamma, self.last = nn.Parameter(torch.rand(12) + 0.5), nn.LayerNorm(12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.down(F.gelu(self.up(y))) * self.gamma
        x = x + y.permute(0, 3, 1, 2)
        return self.head(self.last(x.mean((2, 3))))


class Siamese(nn.Module):
    """Two inputs through one body, compared."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(3, 24), conv(24, 48), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(96, 10)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        a, b = self.body(x), self.body(y)
        return self.head(torch.cat([a - b, a * b], 1))


class Unrolled(nn.Module):
    """One convolution several times over."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.step, self.head = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3, 1, 1), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(3):
            x = torch.relu(self.step(x)) + x
        return self.head(x.mean((2, 3)))


class Mixer(nn.Module):
    """A linear layer over positions, then one over channels; as many positions as channels."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.tokens = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.channels = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.norm(x).transpose(1, 2)).transpose(1, 2)
        x = x + self.channels(self.norm(x))
        return self.head(x.mean(1))


class Rows(nn.Module):
    """Channels taken for positions: a network over the other dimension, closed by its attention."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, 4)
        self.layer = nn.TransformerEncoderLayer(16, 2, 256, batch_first=True)
        self.head = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.stem(x).flatten(2)).flatten(1))


class Unit(nn.Module):
    """An answer of length 1, and a scale and a shift that are buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 3), nn.Linear(32, 10)
        self.register_buffer("scale", torch.rand(1, 16, 1, 1))
        self.register_buffer("shift", torch.rand(16, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.b(self.a(x) * self.scale + self.shift))
        return nn.functional.normalize(self.head(x.mean((2, 3))), dim=1)


NETS: dict[str, type[nn.Module]] = {
    net.__name__: net
    for net in (
        Residual,
        SqueezeExcite,
        Concat,
        Grouped,
        ShuffleTwo,
        ShuffleOne,
        UNet,
        Attention,
        TalkingHeads,
        Rotary,
        Windows,
        LinearAttention,
        PaddedAttention,
        Statistics,
        State,
        Next,
        Unrolled,
        Mixer,
        Rows,
        Unit,
    )
}
