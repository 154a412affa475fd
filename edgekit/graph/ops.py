"""Every op of the graph: name, the torch function that runs it, how channels and ranges pass through it.

One row an op. PyTorch semantics in NCHW. Inputs are tensors (weights and biases too), everything else is a
keyword attribute that survives JSON: numbers, strings, tuples.

channels: how a channel index travels from input to output, for pruning and permutation
    "same"    channel i comes from channel i of every input (element-wise, pooling, depthwise-like)
    "mix"     every output channel reads every input channel (conv, linear)
    "move"    channels are rearranged or joined (concat, split, reshape, permute)
ranges: what quantization parameters the output may take
    "free"    its own calibrated range
    "same"    exactly those of its inputs (data only moves)
    "fixed"   bounded by the function itself (sigmoid, softmax, tanh, hard-sigmoid)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from edgekit.errors import GraphError

Tensor = torch.Tensor
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "relu6": F.relu6}


@dataclass(frozen=True)
class Op:
    name: str
    fn: Callable[..., Any]
    channels: str
    ranges: str
    doc: str


OPS: dict[str, Op] = {}


def _op(channels: str = "same", ranges: str = "free") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(fn: Callable[..., Any]) -> Callable[..., Any]:
        name = fn.__name__.rstrip("_")
        if name in OPS:
            raise GraphError(f"[ops] {name!r} is registered twice")
        OPS[name] = Op(name, fn, channels, ranges, (fn.__doc__ or "").strip())
        return fn

    return register


def _activate(x: Tensor, activation: str | None) -> Tensor:
    return ACTIVATIONS[activation](x) if activation else x


# convolution and matrix products
@_op("mix")
def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
    activation: str | None = None,
) -> Tensor:
    """x (N, C, H, W), weight (O, C/groups, kh, kw), bias (O,); padding is (top, bottom, left, right)."""
    top, bottom, left, right = padding
    if top == bottom and left == right:
        y = F.conv2d(x, weight, bias, stride, (top, left), dilation, groups)
    else:
        y = F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, stride, 0, dilation, groups)
    return _activate(y, activation)


@_op("mix")
def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: tuple[int, int],
    padding: tuple[int, int],
    output_padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    activation: str | None = None,
) -> Tensor:
    """x (N, C, H, W), weight (C, O/groups, kh, kw)."""
    y = F.conv_transpose2d(x, weight, bias, stride, padding, output_padding, groups, dilation)
    return _activate(y, activation)


@_op("mix")
def linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, activation: str | None = None) -> Tensor:
    """x (..., I), weight (O, I), bias (O,)."""
    return _activate(F.linear(x, weight, bias), activation)


@_op("mix")
def matmul(a: Tensor, b: Tensor) -> Tensor:
    """(..., M, K) x (..., K, N)."""
    return a @ b


# normalisation
@_op()
def batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, *, eps: float
) -> Tensor:
    """Inference form, statistics (C,)."""
    return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)


@_op("mix")
def layer_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, *, normalized_shape: tuple[int, ...], eps: float
) -> Tensor:
    """Over the last len(normalized_shape) dimensions."""
    return F.layer_norm(x, normalized_shape, weight, bias, eps)


@_op("mix")
def group_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, *, groups: int, eps: float) -> Tensor:
    return F.group_norm(x, groups, weight, bias, eps)


@_op("mix")
def l2_normalize(x: Tensor, *, dim: int, eps: float) -> Tensor:
    return F.normalize(x, dim=dim, eps=eps)


# activations
@_op()
def relu(x: Tensor) -> Tensor:
    return F.relu(x)


@_op()
def relu6(x: Tensor) -> Tensor:
    return F.relu6(x)


@_op()
def hardswish(x: Tensor) -> Tensor:
    """x * relu6(x + 3) / 6."""
    return F.hardswish(x)


@_op(ranges="fixed")
def hardsigmoid(x: Tensor) -> Tensor:
    """relu6(x + 3) / 6."""
    return F.hardsigmoid(x)


@_op(ranges="fixed")
def sigmoid(x: Tensor) -> Tensor:
    return torch.sigmoid(x)


@_op()
def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x)."""
    return F.silu(x)


@_op()
def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    return F.gelu(x, approximate=approximate)


@_op(ranges="fixed")
def tanh(x: Tensor) -> Tensor:
    return torch.tanh(x)


@_op()
def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.elu(x, alpha)


@_op()
def leaky_relu(x: Tensor, *, negative_slope: float) -> Tensor:
    return F.leaky_relu(x, negative_slope)


@_op()
def prelu(x: Tensor, weight: Tensor) -> Tensor:
    """weight (C,) or (1,)."""
    return F.prelu(x, weight)


@_op()
def mish(x: Tensor) -> Tensor:
    return F.mish(x)


@_op()
def clamp(x: Tensor, *, low: float | None, high: float | None) -> Tensor:
    return torch.clamp(x, low, high)


@_op("mix", "fixed")
def softmax(x: Tensor, *, dim: int) -> Tensor:
    return torch.softmax(x, dim)


# element-wise
@_op()
def add(a: Tensor, b: Tensor, *, activation: str | None = None) -> Tensor:
    return _activate(a + b, activation)


@_op()
def sub(a: Tensor, b: Tensor, *, activation: str | None = None) -> Tensor:
    return _activate(a - b, activation)


@_op()
def mul(a: Tensor, b: Tensor, *, activation: str | None = None) -> Tensor:
    return _activate(a * b, activation)


@_op()
def div(a: Tensor, b: Tensor, *, activation: str | None = None) -> Tensor:
    return _activate(a / b, activation)


@_op()
def maximum(a: Tensor, b: Tensor) -> Tensor:
    return torch.maximum(a, b)


@_op()
def minimum(a: Tensor, b: Tensor) -> Tensor:
    return torch.minimum(a, b)


@_op()
def abs_(x: Tensor) -> Tensor:
    return torch.abs(x)


@_op()
def neg(x: Tensor) -> Tensor:
    return -x


@_op()
def exp(x: Tensor) -> Tensor:
    return torch.exp(x)


@_op()
def log(x: Tensor) -> Tensor:
    return torch.log(x)


@_op()
def sqrt(x: Tensor) -> Tensor:
    return torch.sqrt(x)


@_op()
def rsqrt(x: Tensor) -> Tensor:
    return torch.rsqrt(x)


@_op()
def pow_(x: Tensor, *, exponent: float) -> Tensor:
    return torch.pow(x, exponent)


# pooling and reductions
@_op("same", "same")
def max_pool2d(
    x: Tensor,
    *,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
    ceil_mode: bool = False,
) -> Tensor:
    return F.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode)


@_op()
def avg_pool2d(
    x: Tensor,
    *,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    return F.avg_pool2d(x, kernel, stride, padding, ceil_mode, count_include_pad)


@_op()
def adaptive_avg_pool2d(x: Tensor, *, output_size: tuple[int, int]) -> Tensor:
    return F.adaptive_avg_pool2d(x, output_size)


@_op()
def mean(x: Tensor, *, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    return torch.mean(x, dims, keepdim)


@_op()
def sum_(x: Tensor, *, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    return torch.sum(x, dims, keepdim)


@_op("same", "same")
def amax(x: Tensor, *, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    return torch.amax(x, dims, keepdim)


# data movement
@_op("move", "same")
def reshape(x: Tensor, *, shape: tuple[int, ...]) -> Tensor:
    """shape[0] is -1 where the leading dimension carries the batch, so any N runs."""
    return torch.reshape(x, shape)


@_op("move", "same")
def permute(x: Tensor, *, dims: tuple[int, ...]) -> Tensor:
    return x.permute(dims)


@_op("move", "same")
def concat(*xs: Tensor, dim: int) -> Tensor:
    """A constant piece recorded with batch 1 is repeated over the batch."""
    n = max(x.shape[0] for x in xs)
    if dim != 0:
        xs = tuple(x.expand(n, *x.shape[1:]) if x.shape[0] != n else x for x in xs)
    return torch.cat(xs, dim)


@_op("move", "same")
def split(x: Tensor, *, sizes: tuple[int, ...], dim: int) -> tuple[Tensor, ...]:
    return torch.split(x, list(sizes), dim)


@_op("move", "same")
def slice_(x: Tensor, *, dim: int, start: int, end: int, step: int = 1) -> Tensor:
    index = [slice(None)] * x.ndim
    index[dim] = slice(start, end, step)
    return x[tuple(index)]


@_op("same", "same")
def pad(x: Tensor, *, pads: tuple[int, ...], mode: str = "constant", value: float = 0.0) -> Tensor:
    """pads as torch.nn.functional.pad: last dimension first, (low, high) pairs."""
    return F.pad(x, pads, mode, value if mode == "constant" else None)


@_op("move", "same")
def expand(x: Tensor, *, shape: tuple[int, ...]) -> Tensor:
    """-1 keeps a dimension."""
    return x.expand(shape)


@_op("move", "same")
def channel_shuffle(x: Tensor, *, groups: int) -> Tensor:
    """(N, g*k, H, W) -> channel i*k + j moves to j*g + i."""
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


@_op("move", "same")
def pixel_shuffle(x: Tensor, *, factor: int) -> Tensor:
    return F.pixel_shuffle(x, factor)


@_op("move", "same")
def pixel_unshuffle(x: Tensor, *, factor: int) -> Tensor:
    return F.pixel_unshuffle(x, factor)


@_op("same", "same")
def roll(x: Tensor, *, shifts: tuple[int, ...], dims: tuple[int, ...]) -> Tensor:
    return torch.roll(x, shifts, dims)


@_op("same", "same")
def resize_bilinear(x: Tensor, *, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=align_corners)


@_op("same", "same")
def resize_nearest(x: Tensor, *, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="nearest")


# composite, expanded by passes before quantization
@_op("mix")
def scaled_dot_product_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, scale: float | None = None
) -> Tensor:
    """softmax(q k^T * scale + mask) v; scale defaults to 1/sqrt(head dimension)."""
    return F.scaled_dot_product_attention(q, k, v, mask, scale=scale or 1.0 / math.sqrt(q.shape[-1]))
