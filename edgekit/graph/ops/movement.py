"""Data movement: nothing is computed."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from edgekit.graph.ops.row import MOVED, Same, Tensor, op


@op(channels="move", ranges=MOVED, layout="order", dtypes="any", movement="view", homogeneous=True)
def reshape(x: Tensor, *, shape: tuple[int, ...]) -> Tensor:
    """shape[0] is -1 where the leading dimension carries the batch, so any N runs."""
    return torch.reshape(x, shape)


@op(channels="move", ranges=MOVED, layout="any", dtypes="any", movement="view", homogeneous=True)
def permute(x: Tensor, *, dims: tuple[int, ...]) -> Tensor:
    return x.permute(dims)


@op(
    channels="move",
    ranges=Same("CONCATENATION of unequal scales is rejected by XNNPACK and requantized inexactly elsewhere"),
    layout="any",
    dtypes="any",
    movement="place",
    homogeneous=True,
)
def concat(*xs: Tensor, dim: int) -> Tensor:
    """A constant piece recorded with batch 1 is repeated over the batch."""
    n = max(x.shape[0] for x in xs)
    if dim != 0:
        xs = tuple(x.expand(n, *x.shape[1:]) if x.shape[0] != n else x for x in xs)
    return torch.cat(xs, dim)


@op(channels="move", ranges=MOVED, layout="any", dtypes="any", movement="place", homogeneous=True)
def split(x: Tensor, *, sizes: tuple[int, ...], dim: int) -> tuple[Tensor, ...]:
    return torch.split(x, list(sizes), dim)


@op(channels="move", ranges=MOVED, layout="any", dtypes="any", movement="place", homogeneous=True)
def slice_(x: Tensor, *, dim: int, start: int, end: int, step: int = 1) -> Tensor:
    index = [slice(None)] * x.ndim
    index[dim] = slice(start, end, step)
    return x[tuple(index)]


@op(channels="move", ranges=MOVED, layout="any", dtypes="any", movement="place", homogeneous=True)
def gather(x: Tensor, *, dim: int, indices: tuple[int, ...]) -> Tensor:
    """The listed entries of one dimension, in their order."""
    return x.index_select(dim, torch.tensor(indices, device=x.device))


@op(
    channels="move",
    ranges=Same("PAD writes the zero point of its input; the kernel checks that the output has the same"),
    layout="any",
    dtypes="any",
    movement="place",
)
def pad(x: Tensor, *, pads: tuple[int, ...], mode: str = "constant", value: float = 0.0) -> Tensor:
    """pads as torch.nn.functional.pad: last dimension first, (low, high) pairs."""
    return F.pad(x, pads, mode, value if mode == "constant" else None)


@op(channels="move", ranges=MOVED, layout="any", dtypes="any", movement="place", homogeneous=True)
def expand(x: Tensor, *, shape: tuple[int, ...]) -> Tensor:
    """-1 keeps a dimension."""
    return x.expand(shape)


@op(channels="move", ranges=MOVED, layout="image", dtypes="any", movement="place", homogeneous=True)
def channel_shuffle(x: Tensor, *, groups: int) -> Tensor:
    """(N, g*k, H, W) -> channel i*k + j moves to j*g + i."""
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


@op(channels="move", ranges=MOVED, layout="image", dtypes="any", movement="place", homogeneous=True)
def pixel_shuffle(x: Tensor, *, factor: int) -> Tensor:
    return F.pixel_shuffle(x, factor)


@op(channels="move", ranges=MOVED, layout="image", dtypes="any", movement="place", homogeneous=True)
def pixel_unshuffle(x: Tensor, *, factor: int) -> Tensor:
    return F.pixel_unshuffle(x, factor)


@op(channels="move", ranges=MOVED, layout="any", dtypes="any", movement="place", homogeneous=True)
def roll(x: Tensor, *, shifts: tuple[int, ...], dims: tuple[int, ...]) -> Tensor:
    return torch.roll(x, shifts, dims)
