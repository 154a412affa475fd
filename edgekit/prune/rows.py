"""A layer with weights as a matrix product: what it reads and what it makes, row by row.

Enters: a conv2d or linear node and its input, of any number of images. Leaves: rows (R, G, K) of what each of
G groups reads for one output position, so that output rows are `rows @ weight`, and second moments of them.
Many positions of an image say the same: a seeded choice of them is enough.
"""

from __future__ import annotations

import math

import torch

from edgekit.graph.ir import Node, Value

Tensor = torch.Tensor
_CHUNK_BYTES = 1 << 27


def weight_of(node: Node) -> Value | None:
    """The constant weight of a layer that is a matrix product over rows; None for any other node."""
    if node.op not in ("conv2d", "linear"):
        return None
    weight = node.inputs[1]
    return weight if weight is not None and weight.is_constant else None


def groups_of(node: Node) -> int:
    return node.attrs["groups"] if node.op == "conv2d" else 1


def positions(node: Node, out: Tensor, most: int, rng: torch.Generator) -> Tensor:
    """At most `most` output positions of all images, sorted: (R,) indices into `out` seen as (N * L, O)."""
    count = out.numel() // out.shape[1 if node.op == "conv2d" else -1]
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=rng)[:most].sort().values


def read(node: Node, x: Tensor, at: Tensor) -> Tensor:
    """What the node reads at those output positions: (R, G, K), a row of its weight each."""
    if node.op == "linear":
        return x.reshape(-1, 1, x.shape[-1])[at]
    weight = node.inputs[1]
    assert weight is not None
    kh, kw = weight.shape[2:]
    top, bottom, left, right = node.attrs["padding"]
    (sh, sw), (dh, dw) = node.attrs["stride"], node.attrs["dilation"]
    height = (x.shape[2] + top + bottom - dh * (kh - 1) - 1) // sh + 1
    width = (x.shape[3] + left + right - dw * (kw - 1) - 1) // sw + 1
    image, place = at // (height * width), at % (height * width)
    row, column = place // width * sh - top, place % width * sw - left  # the window's upper left corner
    pixels = x.permute(0, 2, 3, 1)
    taps = []
    for u in range(kh):
        for v in range(kw):
            h, w = row + u * dh, column + v * dw
            inside = (h >= 0) & (h < x.shape[2]) & (w >= 0) & (w < x.shape[3])
            tap = pixels[image, h.clamp(0, x.shape[2] - 1), w.clamp(0, x.shape[3] - 1)]
            taps.append(tap if bool(inside.all()) else tap * inside[:, None])
    groups = node.attrs["groups"]
    return torch.stack(taps, 2).reshape(len(at), groups, -1)  # (R, C, taps) as the weight lists them


def made(node: Node, out: Tensor, at: Tensor) -> Tensor:
    """What the node made at those output positions: (R, O)."""
    if node.op == "conv2d":
        out = out.permute(0, 2, 3, 1)
    return out.reshape(-1, out.shape[-1])[at]


def matrix(node: Node, weight: Tensor) -> Tensor:
    """The weight as a matrix a group: (G, K, O / G)."""
    return weight.reshape(groups_of(node), -1, math.prod(weight.shape[1:])).transpose(1, 2)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Sum over rows of a b^T for each group, (R, G, K) and (R, G, M) -> (G, K, M) in float64.

    Products of a few rows are in float32, their sum in float64: what is lost is below the noise of the rows.
    """
    size = 4 * max(1, a[0].numel(), b[0].numel())
    step = max(64, min(1024, _CHUNK_BYTES // size))
    total = torch.zeros(a.shape[1], a.shape[2], b.shape[2], dtype=torch.float64)
    for some, others in zip(a.split(step), b.split(step), strict=True):
        total += some.permute(1, 2, 0) @ others.transpose(0, 1)
    return total


def factor(moments: Tensor, share: float) -> Tensor:
    """Cholesky factor of moments (G, K, K) with `share` of their mean diagonal added to it; more where
    rounding or few rows have left them without one.
    """
    level = moments.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)[:, None]
    while True:
        damped = moments.clone()
        damped.diagonal(dim1=1, dim2=2).add_(share * level)
        found, failed = torch.linalg.cholesky_ex(damped)
        if not failed.any():
            return found
        share *= 10
