"""The weights with which a layer's output is nearest, in the least-squares sense, to what it is to be.

    min over W, b   sum |W x + b - y|^2  +  l sum_i S_ii |W_i - W0_i|^2

x: the layer's inputs (patches of a convolution), y: what comes out of the reference at the same place, S the
second moments of x, W0 the weights at hand. How much of the second term (l) is decided on the other half of
the images; where no l does better there than W0, W0 stays.

Enters: a conv2d or linear node, its inputs and the outputs it should have, one tensor a chunk of images.
Leaves: `Fitted` weights, a shift of the output, and the mean and variance of the new sums W x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F

from edgekit.graph.ir import Node

Tensor = torch.Tensor
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)
ONE_FOLD_RIDGE = 0.1  # of a single chunk of images, where nothing is left to decide on
MAX_UNKNOWNS = 4608  # an output; a 3x3 convolution over 512 channels
_FLOOR = 1e-6  # of the largest second moment: what varies less is not told from rounding
_LOST = 1e-10  # of the mean squared: what float64 no longer tells from it
_TINY = 1e-20
_FEW = 128  # unknowns up to which sums are made in float64
_ROWS = 16_384
_ROWS_AN_UNKNOWN = 24
_MANY_GROUPS = 4_096  # rows where each channel has its own few unknowns


@dataclass
class Moments:
    """Sums over rows of a layer's inputs x (G, rows, n) and wanted outputs y (G, rows, o), float64."""

    rows: int
    x: Tensor  # (G, n)
    y: Tensor  # (G, o)
    xx: Tensor  # (G, n, n)
    xy: Tensor  # (G, n, o)
    yy: Tensor  # (G, o)

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> Moments:
        if x.shape[2] <= _FEW:
            x, y = x.double(), y.double()
        mean_x, mean_y = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
        x, y = x - mean_x, y - mean_y  # around their mean: what varies little is not lost beside it
        mean_x, mean_y, t = mean_x.double(), mean_y.double(), x.transpose(1, 2)
        rows = x.shape[1]
        return cls(
            rows,
            mean_x.squeeze(1) * rows,
            mean_y.squeeze(1) * rows,
            (t @ x).double() + rows * mean_x.transpose(1, 2) * mean_x,
            (t @ y).double() + rows * mean_x.transpose(1, 2) * mean_y,
            y.double().square().sum(1) + rows * mean_y.squeeze(1).square(),
        )

    def __add__(self, other: Moments) -> Moments:
        return Moments(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Fitted:
    """weight: of the node's shape, float64. shift (O,): to be added to W x. mean, var (O,): of W x."""

    weight: Tensor
    shift: Tensor
    mean: Tensor
    var: Tensor


def fits(node: Node) -> bool:
    """Whether a layer can be fitted: its kind, its size, weights that are constants."""
    if node.op not in ("conv2d", "linear") or node.attrs.get("activation"):
        return False
    weight, bias = node.inputs[1], node.inputs[2]
    if weight is None or not weight.is_constant or not (bias is None or bias.is_constant):
        return False
    return weight.data is not None and weight.data[0].numel() <= MAX_UNKNOWNS


def fit(
    node: Node, weight: Tensor, inputs: Sequence[Tensor], meant: Sequence[Tensor], *, intercept: bool = True
) -> Fitted | None:
    """The best weights of a layer.

    Args:
        weight: where to start, of the node's shape.
        inputs, meant: one tensor a chunk of images; meant is W x + shift as it should be.
        intercept: whether there may be a shift.
    Returns: None where no weights were better on images they were not fitted to.
    """
    groups = node.attrs.get("groups", 1)
    start = weight.double().reshape(groups, weight.shape[0] // groups, -1)  # (G, o, n)
    halves: list[Moments | None] = [None, None]
    for i, part in enumerate(_rows(node, inputs, meant)):
        found, before = Moments.of(*part), halves[i % 2]
        halves[i % 2] = found if before is None else before + found
    one, two = halves
    assert one is not None
    ridge: float | None = ONE_FOLD_RIDGE
    whole = one
    if two is not None:
        whole = one + two
        trials = [(_candidates(a, start, intercept), a, b) for a, b in ((one, two), (two, one))]
        kept = sum(_error(b, start, _shift(a, start, intercept)) for _, a, b in trials)
        errors = [
            sum(_error(b, weights[k], _shift(a, weights[k], intercept)) for weights, a, b in trials)
            for k in range(len(RIDGES))
        ]
        best = min(range(len(RIDGES)), key=errors.__getitem__)
        ridge = RIDGES[best] if errors[best] < kept else None
    if ridge is None:
        if not intercept:
            return None
        found_weight = start
    else:
        found_weight = _candidates(whole, start, intercept, (ridge,))[0]
    if not bool(torch.isfinite(found_weight).all()):
        return None
    mean, var = _statistics(whole, found_weight)
    shift = _shift(whole, found_weight, intercept)
    return Fitted(found_weight.reshape(weight.shape), shift.flatten(), mean.flatten(), var.flatten())


def _candidates(m: Moments, start: Tensor, intercept: bool, ridges: Sequence[float] = RIDGES) -> list[Tensor]:
    """Weights (G, o, n), one for each ridge."""
    xx, xy = m.xx / m.rows, m.xy / m.rows
    whole = xx.diagonal(dim1=1, dim2=2).amax(1, keepdim=True)
    if intercept:
        mean = m.x / m.rows
        xx = xx - mean.unsqueeze(2) * mean.unsqueeze(1)
        xy = xy - mean.unsqueeze(2) * (m.y / m.rows).unsqueeze(1)
    residual = xy - xx @ start.transpose(1, 2)  # (G, n, o)
    size = xx.diagonal(dim1=1, dim2=2)
    least = _FLOOR * size.amax(1, keepdim=True) + _LOST * whole + _TINY
    unit = (size.clamp_min(0.0) + least).rsqrt()  # (G, n)
    matrix = xx * unit.unsqueeze(1) * unit.unsqueeze(2)
    found = []
    for ridge in ridges:
        factor, failed = torch.linalg.cholesky_ex(matrix + ridge * torch.eye(matrix.shape[1]).to(matrix))
        if bool(failed.any()):  # nothing but rounding to fit to
            found.append(start)
            continue
        step = torch.cholesky_solve(residual * unit.unsqueeze(2), factor)
        found.append(start + (step * unit.unsqueeze(2)).transpose(1, 2))
    return found


def _shift(m: Moments, weight: Tensor, intercept: bool) -> Tensor:
    """The best constant (G, o) beside a weight."""
    sums = (weight @ m.x.unsqueeze(2)).squeeze(2)
    return (m.y - sums) / m.rows if intercept else torch.zeros_like(sums)


def _error(m: Moments, weight: Tensor, shift: Tensor) -> float:
    """The mean squared error over all outputs."""
    cross = (weight * m.xy.transpose(1, 2)).sum(2)
    square = ((weight @ m.xx) * weight).sum(2)
    sums = (weight @ m.x.unsqueeze(2)).squeeze(2)
    total = m.yy - 2 * cross + square + 2 * shift * sums - 2 * shift * m.y + m.rows * shift.square()
    return float(total.sum()) / m.rows


def _statistics(m: Moments, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the sums W x, (G, o) each."""
    mean = (weight @ (m.x / m.rows).unsqueeze(2)).squeeze(2)
    square = ((weight @ (m.xx / m.rows)) * weight).sum(2)
    return mean, (square - mean.square()).clamp_min(0.0)


def _rows(node: Node, inputs: Sequence[Tensor], meant: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Per chunk (G, rows, n) and (G, rows, o): patches at some places of every image.

    A single chunk of several images is taken as two, so that there is something to decide on.
    """
    if len(inputs) == 1 and len(inputs[0]) > 1:
        inputs, meant = inputs[0].chunk(2), meant[0].chunk(2)
    weight = node.inputs[1]
    assert weight is not None
    groups = node.attrs.get("groups", 1)
    unknowns = weight.shape[1:].numel() if isinstance(weight.shape, torch.Size) else _prod(weight.shape[1:])
    wanted = _MANY_GROUPS if groups > 1 else max(_ROWS, _ROWS_AN_UNKNOWN * unknowns)
    images = sum(len(x) for x in inputs)
    generator = torch.Generator().manual_seed(0)
    return [
        (_linear_rows if node.op == "linear" else _patches)(node, x, y, -(-wanted // images), generator)
        for x, y in zip(inputs, meant, strict=True)
    ]


def _prod(sizes: Sequence[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total


def _linear_rows(
    node: Node, x: Tensor, y: Tensor, places: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    x, y = x.reshape(len(x), -1, x.shape[-1]), y.reshape(len(y), -1, y.shape[-1])
    index = _some(x.shape[1], places, generator)
    return x[:, index].flatten(0, 1).unsqueeze(0), y[:, index].flatten(0, 1).unsqueeze(0)


def _patches(
    node: Node, x: Tensor, y: Tensor, places: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    top, bottom, left, right = node.attrs["padding"]
    (down, along), (dy, dx), groups = node.attrs["stride"], node.attrs["dilation"], node.attrs["groups"]
    _, _, height, width = node.inputs[1].shape  # type: ignore[union-attr]
    x = F.pad(x, (left, right, top, bottom))
    windows = x.unfold(2, (height - 1) * dy + 1, down)[..., ::dy]
    windows = windows.unfold(3, (width - 1) * dx + 1, along)[..., ::dx]  # (N, C, H, W, kh, kw)
    rows, columns = windows.shape[2:4]
    index = _some(rows * columns, places, generator)
    at = (index // columns, index % columns)
    picked = windows[:, :, at[0], at[1]]  # (N, C, P, kh, kw)
    n, channels, p = picked.shape[:3]
    picked = picked.reshape(n, groups, channels // groups, p, height * width)
    picked = picked.permute(1, 0, 3, 2, 4).reshape(groups, n * p, -1)
    out = y[:, :, at[0], at[1]]  # (N, O, P)
    return picked, out.reshape(n, groups, -1, p).permute(1, 0, 3, 2).reshape(groups, n * p, -1)


def _some(count: int, wanted: int, generator: torch.Generator) -> Tensor:
    """Indices of `wanted` out of `count` places, or of all."""
    return (
        torch.arange(count)
        if wanted >= count
        else torch.randperm(count, generator=generator)[:wanted].sort().values
    )
