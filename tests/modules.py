"""MODULE_CASES: an operator of torch as a module, one row a case, for capture and every backend.

Eager is the judge. Each row is an expression of a small image and of layers it may call. Most are made of the
ops of the graph, which have rows of their own in cases.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

Tensor = torch.Tensor
Parts = Callable[[], dict[str, nn.Module | Tensor]]


class Expression(nn.Module):
    """`fn(module, *inputs)` as a module, with a few layers to call."""

    def __init__(self, fn: Callable[..., Any], parts: dict[str, nn.Module | Tensor]) -> None:
        super().__init__()
        self.fn = fn
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                setattr(self, name, part)
            else:
                self.register_buffer(name, part)

    def forward(self, *inputs: Tensor) -> Any:
        return self.fn(self, *inputs)


@dataclass(frozen=True)
class ModuleCase:
    """float_error: the largest, relative to the largest output. int8_db: the least SQNR of int8 files,
        less where a decision is written into the output: it flips where a number lies within a step of it.
    agreement: of places, the share that int8 files must answer alike; then int8_db is not asked.
    """

    fn: Callable[..., Any]
    parts: Parts = dict
    shape: tuple[int, ...] = (1, 4, 8, 8)
    float_error: float = 1e-5
    int8_db: float = 20.0
    agreement: float | None = None
    xfail: dict[str, str] = field(default_factory=dict)  # target name -> reason

    def module(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Expression(self.fn, self.parts()).eval()

    def images(self, count: int = 8) -> Tensor:
        rng = torch.Generator().manual_seed(3)
        return torch.randn((count, *self.shape[1:]), generator=rng)


def with_(**parts: Callable[[], nn.Module | Tensor]) -> Parts:
    """Layers made anew for each case, after the seed was set."""
    return lambda: {name: make() for name, make in parts.items()}


def _index(*numbers: int) -> Tensor:
    return torch.tensor(numbers)


def _no_autocast(m: Any, x: Tensor) -> Tensor:
    with torch.amp.autocast("cpu", enabled=False):
        y = x.float() ** 2
        return y.mean((2, 3)) + y.amax((2, 3))


def _overwritten(m: Any, x: Tensor) -> Tensor:
    """All of a tensor, as MViT adds its relative positions where there is no class token."""
    y = x * 2
    y[:, :, 0:, 0:] = y.relu() + x
    return y + 1


def _no_grad(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        y, z = x * 2, x.relu()
    return y + x, z


def _tokens(x: Tensor, width: int = 8) -> Tensor:
    """(N, C, H, W) -> (N, H, W * C / width, width)."""
    return x.reshape(x.shape[0], x.shape[2], -1, width)


def _grouped_query(m: Any, x: Tensor) -> Tensor:
    q, k, v = x, x[:, :2] * 0.5, x[:, 2:]
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def _multi_query(m: Any, x: Tensor) -> Tensor:
    q, k, v = x, x[:, :1] * 0.5, x[:, 1:2]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=m.mask)


def _causal(m: Any, x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x, x * 0.5, x.flip(-1), is_causal=True)


def _masked_scores(m: Any, x: Tensor) -> Tensor:
    scores = x @ x.transpose(-1, -2)
    return scores.masked_fill(m.mask, float("-inf")).softmax(-1) @ x


def _standardized(m: Any, x: Tensor) -> Tensor:
    """A convolution with weight standardisation, as timm's ScaledStdConv2d writes it."""
    weight = m.conv.weight
    spread, middle = torch.var_mean(weight, dim=[1, 2, 3], keepdim=True, unbiased=False)
    return F.conv2d(x, (weight - middle) / (spread + 1e-5).sqrt() * 0.3, m.conv.bias, padding=1)


def _channel_attention(m: Any, x: Tensor) -> Tensor:
    """ECA: a convolution along the channels of the pooled image."""
    gate = m.line(x.mean((2, 3)).view(x.shape[0], 1, -1)).sigmoid()
    return x * gate.view(x.shape[0], -1, 1, 1).expand_as(x)


def _halo(m: Any, x: Tensor) -> Tensor:
    """Overlapping windows by two unfolds, as HaloAttn cuts its keys."""
    y = F.pad(x, (1, 1, 1, 1)).unfold(2, 6, 4).unfold(3, 6, 4)
    return y.reshape(x.shape[0], 4, 4, -1).permute(0, 2, 3, 1)


def _outlook(m: Any, x: Tensor) -> Tensor:
    """Unfold, weigh, fold back, as VOLO's OutlookAttention does."""
    columns = F.unfold(x, 3, padding=1, stride=2)
    return F.fold(columns * 0.5, (8, 8), 3, padding=1, stride=2)


_GRU = with_(rnn=lambda: nn.GRU(4, 6, batch_first=True))
_PLANE = with_(w=lambda: torch.randn(6, 4))
_SEQUENCE = lambda x: x.mean(2).permute(0, 2, 1)  # noqa: E731 (N, W, C)

MODULE_CASES: dict[str, ModuleCase] = {
    # comparisons and choice
    "gt-where": ModuleCase(lambda m, x: torch.where(x > 0, x, -0.1 * x)),
    "lt-where-number": ModuleCase(lambda m, x: torch.where(x < 0.5, x, 0.25)),
    "ge-times": ModuleCase(lambda m, x: (x >= x.mean((2, 3), keepdim=True)).float() * x),
    "le-both": ModuleCase(lambda m, x: torch.where(x[:, :2] <= x[:, 2:], x[:, :2], x[:, 2:])),
    "eq-ne": ModuleCase(
        lambda m, x: (x.relu() == 0).float() + (x.clamp(max=0) != 0).float() * 2, int8_db=15.0
    ),
    "and-or-not": ModuleCase(lambda m, x: (((x > -1) & (x < 1)) | ~(x > -2)).float() + x),
    "xor": ModuleCase(lambda m, x: torch.logical_xor(x > 0, x.flip(1) > 0).float(), int8_db=12.0),
    "any-all": ModuleCase(lambda m, x: (x > 1.5).any(1).float() + (x > -1).all(1).float()),
    "masked_fill": ModuleCase(lambda m, x: x.masked_fill(x > 1, 0.5)),
    "masked_fill-fixed": ModuleCase(
        lambda m, x: x.masked_fill(m.mask, 0.5), with_(mask=lambda: torch.eye(8).bool())
    ),
    "masked_fill-softmax": ModuleCase(
        _masked_scores, with_(mask=lambda: torch.ones(8, 8).triu(1).bool()), (1, 2, 8, 4)
    ),
    "where-softmax": ModuleCase(
        lambda m, x: torch.where(x >= x.mean(1, True), x, -1e9).softmax(1), int8_db=12.0
    ),
    "argmax": ModuleCase(lambda m, x: x.argmax(1).float(), agreement=0.9),
    "argmax-keepdim": ModuleCase(lambda m, x: x.argmax(2, keepdim=True), agreement=0.8),
    "argmin": ModuleCase(lambda m, x: x.argmin(-1), agreement=0.8),
    "argmax-of-all": ModuleCase(lambda m, x: x.argmax(), agreement=0.5),
    "max-of-a-dimension": ModuleCase(lambda m, x: x.max(1).values),
    "max-indices": ModuleCase(lambda m, x: x.max(1).indices, agreement=0.9),
    "min-both": ModuleCase(lambda m, x: x.min(2)[0] + x.min(2)[1] * 0.25, int8_db=15.0),
    "amin": ModuleCase(lambda m, x: x.amin((2, 3))),
    "topk": ModuleCase(lambda m, x: x.topk(2, 1).values),
    "topk-indices": ModuleCase(lambda m, x: x.flatten(1).topk(3).indices, agreement=0.6),
    "topk-smallest": ModuleCase(lambda m, x: x.topk(3, -1, largest=False).values),
    "sort": ModuleCase(lambda m, x: x.sort(-1).values),
    # activations
    "softplus": ModuleCase(lambda m, x: F.softplus(x * 8)),
    "softplus-beta": ModuleCase(lambda m, x: F.softplus(x, beta=2.0)),
    "mish-by-hand": ModuleCase(lambda m, x: x * F.softplus(x).tanh()),
    "log_sigmoid": ModuleCase(lambda m, x: F.logsigmoid(x * 4)),
    "log_softmax": ModuleCase(lambda m, x: x.mean((2, 3)).log_softmax(1)),
    "log_softmax-map": ModuleCase(lambda m, x: x.log_softmax(1)),
    "logsumexp": ModuleCase(lambda m, x: x.logsumexp(1)),
    "selu": ModuleCase(lambda m, x: F.selu(x)),
    "celu": ModuleCase(lambda m, x: F.celu(x, 2.0)),
    "glu": ModuleCase(lambda m, x: F.glu(x, 1)),
    "threshold": ModuleCase(lambda m, x: F.threshold(x, 0.5, -1.0)),
    "hardshrink": ModuleCase(lambda m, x: F.hardshrink(x, 0.5)),
    "softshrink": ModuleCase(lambda m, x: F.softshrink(x, 0.5)),
    "hardtanh": ModuleCase(lambda m, x: F.hardtanh(x, -0.5, 0.75)),
    "softsign": ModuleCase(lambda m, x: F.softsign(x)),
    "tanhshrink": ModuleCase(lambda m, x: F.tanhshrink(x)),
    # arithmetic
    "log1p": ModuleCase(lambda m, x: torch.log1p(x.abs())),
    "expm1": ModuleCase(lambda m, x: torch.expm1(x)),
    "log2": ModuleCase(lambda m, x: (x.abs() + 0.5).log2() + (x.abs() + 0.5).log10()),
    "reciprocal-square": ModuleCase(lambda m, x: (x.square() + 1).reciprocal()),
    "power-of-a-number": ModuleCase(lambda m, x: 2.0**x),
    "addcmul": ModuleCase(
        lambda m, x: torch.addcmul(x, m.g, x, value=0.5), with_(g=lambda: torch.randn(4, 1, 1))
    ),
    "addcdiv": ModuleCase(lambda m, x: torch.addcdiv(x, x, x.abs() + 1, value=0.5)),
    "lerp": ModuleCase(lambda m, x: torch.lerp(x, x.relu(), 0.3)),
    "floor-ceil-round": ModuleCase(lambda m, x: (x * 3).floor() + (x * 3).ceil() + (x * 3).round() * 0.5),
    "trunc-sign": ModuleCase(lambda m, x: (x * 3).trunc() + x.sign(), int8_db=15.0),
    "remainder": ModuleCase(lambda m, x: torch.remainder((x * 3).round(), 2.0) + x, int8_db=8.0),
    "sin-cos": ModuleCase(lambda m, x: x.sin() + x.cos()),
    "cast-to-whole": ModuleCase(lambda m, x: (x * 3).to(torch.int64).float(), int8_db=15.0),
    "clamp-by-tensors": ModuleCase(
        lambda m, x: x.clamp(m.low, m.low + 1), with_(low=lambda: torch.linspace(-1, 0, 8))
    ),
    # products
    "einsum-channels": ModuleCase(lambda m, x: torch.einsum("nchw,dc->ndhw", x, m.w), _PLANE),
    "einsum-weight-first": ModuleCase(lambda m, x: torch.einsum("dc,nchw->ndhw", m.w, x), _PLANE),
    "einsum-attention": ModuleCase(lambda m, x: torch.einsum("bhid,bhjd->bhij", x, x.sigmoid())),
    "einsum-values": ModuleCase(lambda m, x: torch.einsum("bhij,bhjd->bihd", x.softmax(-1), x)),
    "einsum-sum": ModuleCase(lambda m, x: torch.einsum("nchw->nc", x)),
    "einsum-outer": ModuleCase(lambda m, x: torch.einsum("nh,nw->nhw", x.mean((1, 3)), x.mean((1, 2)))),
    "einsum-ellipsis": ModuleCase(
        lambda m, x: torch.einsum("...i,ij->...j", x, m.w), with_(w=lambda: torch.randn(8, 5))
    ),
    "einsum-three": ModuleCase(
        lambda m, x: torch.einsum("nchw,c,dc->nhwd", x, m.g, m.w),
        with_(g=lambda: torch.randn(4), w=lambda: torch.randn(6, 4)),
    ),
    "addmm": ModuleCase(
        lambda m, x: torch.addmm(m.b, x.mean((2, 3)), m.w.t()),
        with_(b=lambda: torch.randn(6), w=lambda: torch.randn(6, 4)),
    ),
    "baddbmm": ModuleCase(lambda m, x: torch.baddbmm(x[:, 0], x[:, 1], x[:, 2], beta=0.5, alpha=2.0)),
    "matmul-vector": ModuleCase(lambda m, x: x @ m.v, with_(v=lambda: torch.randn(8))),
    "cumsum": ModuleCase(lambda m, x: x.cumsum(2)),
    "causal-attention": ModuleCase(_causal, shape=(1, 2, 8, 8)),
    "grouped-query-attention": ModuleCase(_grouped_query),
    "multi-query-attention": ModuleCase(_multi_query, with_(mask=lambda: torch.randn(8, 8))),
    "transposed": ModuleCase(lambda m, x: x.mean((2, 3)).t().t() * 2 + x.mT.mean((2, 3))),
    # convolutions
    "conv1d": ModuleCase(lambda m, x: m.line(x.flatten(2)), with_(line=lambda: nn.Conv1d(4, 6, 3, 2, 1))),
    "conv1d-same": ModuleCase(
        lambda m, x: m.line(x.flatten(2)),
        with_(line=lambda: nn.Conv1d(4, 4, 5, padding="same", groups=2, dilation=2)),
    ),
    "conv1d-channels": ModuleCase(
        _channel_attention, with_(line=lambda: nn.Conv1d(1, 1, 3, padding=1, bias=False))
    ),
    "conv_transpose1d": ModuleCase(
        lambda m, x: m.line(x.mean(2)), with_(line=lambda: nn.ConvTranspose1d(4, 6, 4, 2, 1))
    ),
    "im2col": ModuleCase(lambda m, x: F.unfold(x, (3, 2), padding=(1, 0), stride=2)),
    "col2im": ModuleCase(_outlook),
    "conv3d-flat": ModuleCase(
        lambda m, x: m.cube(x.view(x.shape[0], 1, 4, 8, 8)).flatten(3),
        with_(cube=lambda: nn.Conv3d(1, 3, (3, 5, 1), padding=(1, 2, 0))),
    ),
    "weight-standardisation": ModuleCase(_standardized, with_(conv=lambda: nn.Conv2d(4, 6, 3))),
    # normalisation, norms, spreads
    "instance_norm": ModuleCase(
        lambda m, x: m.norm(x) + x, with_(norm=lambda: nn.InstanceNorm2d(4, affine=True)), float_error=1e-4
    ),
    "instance_norm-tracked": ModuleCase(
        lambda m, x: m.norm(x), with_(norm=lambda: nn.InstanceNorm2d(4, track_running_stats=True))
    ),
    "group_norm-line": ModuleCase(
        lambda m, x: m.norm(x.flatten(2)), with_(norm=lambda: nn.GroupNorm(2, 4)), float_error=1e-4
    ),
    "rms_norm": ModuleCase(lambda m, x: m.norm(x), with_(norm=lambda: nn.RMSNorm(8)), float_error=1e-4),
    "rms_norm-plain": ModuleCase(lambda m, x: F.rms_norm(x, (8, 8), eps=1e-3), float_error=1e-4),
    "var": ModuleCase(lambda m, x: x.var((2, 3)), float_error=1e-4),
    "std": ModuleCase(lambda m, x: x.std(1, keepdim=True), float_error=1e-4),
    "var_mean": ModuleCase(
        lambda m, x: torch.var_mean(x, dim=1, correction=0)[0] + x.mean(1), float_error=1e-4
    ),
    "norm": ModuleCase(lambda m, x: x.norm(dim=1)),
    "norm-1-inf": ModuleCase(lambda m, x: x.norm(1, 1) + torch.linalg.vector_norm(x, float("inf"), 1)),
    "norm-3": ModuleCase(lambda m, x: torch.linalg.norm(x, 3, dim=1), float_error=1e-4),
    "cosine_similarity": ModuleCase(
        lambda m, x: F.cosine_similarity(x[:, :2], x[:, 2:], dim=1), float_error=1e-4
    ),
    "pairwise_distance": ModuleCase(lambda m, x: F.pairwise_distance(x[:, 0], x[:, 1])),
    # choosing and repeating
    "flip-channels": ModuleCase(lambda m, x: x[:, :3].flip(1)),
    "flip-width": ModuleCase(lambda m, x: x.flip(3)),
    "flip-two": ModuleCase(lambda m, x: x.flip((2, 3))),
    "index-channels": ModuleCase(lambda m, x: x[:, [2, 0, 3, 1, 1]]),
    "index-many": ModuleCase(lambda m, x: x[:, :, [5, 1, 7, 0, 2, 3, 3]]),
    "index-pairs": ModuleCase(lambda m, x: x[:, :, [0, 3, 5, 1, 7], [7, 1, 2, 2, 0]]),
    "index-mask": ModuleCase(
        lambda m, x: x[:, :, m.mask], with_(mask=lambda: torch.ones(8, 8).triu().bool())
    ),
    "index_select": ModuleCase(
        lambda m, x: x.index_select(3, m.i), with_(i=lambda: _index(7, 2, 2, 6, 0, 1, 5))
    ),
    "gather-fixed": ModuleCase(
        lambda m, x: x.gather(3, m.i.expand(1, 4, 8, 5)), with_(i=lambda: _index(7, 2, 2, 6, 0))
    ),
    "gather-elements": ModuleCase(
        lambda m, x: x.gather(2, m.i), with_(i=lambda: torch.randint(0, 8, (1, 4, 3, 8)))
    ),
    "repeat": ModuleCase(lambda m, x: x.repeat(1, 2, 1, 3)),
    "repeat-many": ModuleCase(lambda m, x: x.mean((2, 3)).repeat(1, 6)),
    "tile": ModuleCase(lambda m, x: x.tile((2,)) + 1),
    "repeat_interleave": ModuleCase(lambda m, x: x.repeat_interleave(2, 1) + x.repeat_interleave(2, dim=1)),
    "unfold": ModuleCase(_halo),
    "movedim": ModuleCase(lambda m, x: x.movedim(1, -1) * 2),
    # pooling and resizing
    "adaptive_max_pool-even": ModuleCase(lambda m, x: F.adaptive_max_pool2d(x, 4)),
    "adaptive_max_pool-uneven": ModuleCase(lambda m, x: F.adaptive_max_pool2d(x, (3, 5))),
    "max_pool1d": ModuleCase(lambda m, x: F.max_pool1d(x.flatten(2), 3, 2, 1)),
    "avg_pool1d": ModuleCase(
        lambda m, x: F.avg_pool1d(x.flatten(2), 4) + F.adaptive_avg_pool1d(x.mean(2), 4).mean()
    ),
    "avg_pool-divisor": ModuleCase(lambda m, x: F.avg_pool2d(x, 2, divisor_override=3)),
    "bicubic": ModuleCase(lambda m, x: F.interpolate(x, scale_factor=2, mode="bicubic")),
    "bicubic-corners": ModuleCase(lambda m, x: F.interpolate(x, (5, 13), mode="bicubic", align_corners=True)),
    "bicubic-antialias": ModuleCase(lambda m, x: F.interpolate(x, (5, 3), mode="bicubic", antialias=True)),
    "bilinear-antialias": ModuleCase(lambda m, x: F.interpolate(x, (4, 3), mode="bilinear", antialias=True)),
    "bilinear-between-pixels": ModuleCase(lambda m, x: F.interpolate(x, scale_factor=1.3, mode="bilinear")),
    "nearest-between-pixels": ModuleCase(lambda m, x: F.interpolate(x, scale_factor=1.3)),
    "nearest-exact": ModuleCase(lambda m, x: F.interpolate(x, (12, 5), mode="nearest-exact")),
    "linear-resize": ModuleCase(lambda m, x: F.interpolate(x.mean(2), 12, mode="linear")),
    # recurrent layers
    "gru": ModuleCase(lambda m, x: m.rnn(_SEQUENCE(x))[0], _GRU),
    "gru-last": ModuleCase(lambda m, x: m.rnn(_SEQUENCE(x))[1][-1], _GRU),
    "gru-no-bias": ModuleCase(
        lambda m, x: m.rnn(_SEQUENCE(x))[0], with_(rnn=lambda: nn.GRU(4, 6, batch_first=True, bias=False))
    ),
    "gru-both-ways": ModuleCase(
        lambda m, x: m.rnn(x.mean(2).permute(2, 0, 1))[0].permute(1, 0, 2),
        with_(rnn=lambda: nn.GRU(4, 5, 2, bidirectional=True)),
    ),
    "gru-given-state": ModuleCase(
        lambda m, x: m.rnn(_SEQUENCE(x), m.h)[0],
        with_(rnn=lambda: nn.GRU(4, 6, batch_first=True), h=lambda: torch.randn(1, 1, 6)),
    ),
    "lstm": ModuleCase(
        lambda m, x: m.rnn(_SEQUENCE(x))[0], with_(rnn=lambda: nn.LSTM(4, 6, batch_first=True))
    ),
    "lstm-both-ways": ModuleCase(
        lambda m, x: m.rnn(_SEQUENCE(x))[0].mean(1),
        with_(rnn=lambda: nn.LSTM(4, 5, 2, batch_first=True, bidirectional=True)),
    ),
    "rnn": ModuleCase(lambda m, x: m.rnn(_SEQUENCE(x))[0], with_(rnn=lambda: nn.RNN(4, 6, batch_first=True))),
    # regions
    "autocast-off": ModuleCase(_no_autocast),
    "overwritten": ModuleCase(_overwritten),
    "no_grad": ModuleCase(_no_grad),
}
