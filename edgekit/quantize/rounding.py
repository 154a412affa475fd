"""Better weight integers: scales that minimise squared error, and GPTQ.

`shrink_scales` trades clipping the largest weights of a channel against a finer grid for all others.
`gptq` (Frantar et al. 2022, https://arxiv.org/abs/2210.17323) rounds the weights of a row one after another
and lets those not yet rounded make up for the error, as far as the layer's real inputs correlate. The inputs
come from the quantized graph, so the layer learns to live with the noise it will see.

Both leave .data on the float side: `gptq` writes weights that already lie on their grid.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from edgekit.graph.ir import Graph, Node, QuantParams
from edgekit.graph.ops import WEIGHT_AXIS
from edgekit.quantize import qparams, rules

Tensor = torch.Tensor
SHRINKS = (1.0, 0.97, 0.94, 0.91, 0.88, 0.85, 0.82, 0.78, 0.74, 0.7)
MAX_COLUMNS = 2304  # a larger Hessian costs more than it gains
MAX_ROWS = 8192  # input positions a Hessian is estimated from
DAMPING = 0.01
_BLOCK = 64
_CHUNK = 1 << 16  # weights searched at once: stays in cache


def shrink_scales(graph: Graph) -> None:
    """Give every weight the per-channel scales of least squared error."""
    for node in graph.nodes:
        weight = rules.weight_of(node)
        if weight is None or weight.data is None:
            continue
        axis = WEIGHT_AXIS[node.op]
        weight.quant = qparams.weight_quant(weight.data, axis, best_shrink(weight.data, axis))
        qparams.fit_bias(node)


def best_shrink(weight: Tensor, axis: int = 0) -> Tensor:
    """The factor of SHRINKS for each output channel: (O,)."""
    rows = weight.detach().transpose(0, axis).flatten(1)
    step = max(1, _CHUNK // rows.shape[1])
    return torch.cat([_best_of_rows(piece) for piece in rows.split(step)])


def _best_of_rows(rows: Tensor) -> Tensor:
    largest = rows.abs().amax(1, keepdim=True).clamp_min(1e-30)
    unit = rows * (qparams.WEIGHT_MAX / largest)  # in steps of the unshrunk scale
    least = torch.full((len(rows),), torch.inf)
    best = torch.ones(len(rows))
    for shrink in SHRINKS:
        snapped = torch.mul(unit, 1.0 / shrink).round_().clamp_(-qparams.WEIGHT_MAX, qparams.WEIGHT_MAX)
        error = snapped.mul_(shrink).sub_(unit).square_().sum(1)
        better = error < least * 0.999
        best[better] = shrink
        least = torch.where(better, error, least)
    return best


def applies(node: Node) -> bool:
    """Whether GPTQ is for this node: an output channel's weights are few enough for a Hessian."""
    weight = rules.weight_of(node)
    assert weight is not None and weight.data is not None
    return WEIGHT_AXIS[node.op] == 0 and weight.data[0].numel() <= MAX_COLUMNS


def gptq(weight: Tensor, quant: QuantParams, hessian: Tensor) -> Tensor:
    """Weights on the grid of `quant` that keep the layer's output close.

    Args:
        weight: (O, ...) with G groups of O / G rows.
        hessian: (G, K, K), the second moment of the inputs each group reads.
    Returns: the rounded weights, in the shape of `weight`.
    """
    groups, size = hessian.shape[0], hessian.shape[1]
    rows = weight.detach().reshape(groups, -1, size).clone()  # (G, O / G, K)
    scale = qparams.scales_of(quant, 1).reshape(groups, -1, 1)
    diagonal = hessian.diagonal(dim1=1, dim2=2).clone()
    order = diagonal.mean(0).argsort(descending=True) if groups == 1 else torch.arange(size)
    rows = rows[:, :, order]
    damped = hessian[:, order][:, :, order].clone()
    floor = DAMPING * diagonal.mean(1).clamp_min(1e-12)
    damped.diagonal(dim1=1, dim2=2).add_(floor[:, None])
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    upper = torch.linalg.cholesky(inverse, upper=True)  # (G, K, K)
    rounded = torch.empty_like(rows)
    limit = qparams.WEIGHT_MAX
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        errors = torch.empty(groups, rows.shape[1], stop - start)
        for i in range(start, stop):
            column = rows[:, :, i : i + 1]
            snapped = (column / scale).round_().clamp_(-limit, limit).mul_(scale)
            rounded[:, :, i : i + 1] = snapped
            error = (column - snapped) / upper[:, i : i + 1, i : i + 1]
            errors[:, :, i - start : i - start + 1] = error
            if i + 1 < stop:
                rows[:, :, i + 1 : stop] -= error @ upper[:, i : i + 1, i + 1 : stop]
        if stop < size:
            rows[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
    return rounded[:, :, order.argsort()].reshape(weight.shape)


def second_moment(node: Node, x: Tensor, most: int = MAX_ROWS) -> Tensor:
    """E[x x^T] over about `most` inputs of each group of a conv2d or linear node: (G, K, K)."""
    weight = rules.weight_of(node)
    assert weight is not None and weight.data is not None
    if node.op == "linear":
        flat = _some(x.reshape(-1, x.shape[-1]), most)
        return (flat.T @ flat)[None] / len(flat)
    groups, (kh, kw) = node.attrs["groups"], weight.data.shape[2:]
    if (kh, kw) == (1, 1) and groups == 1:
        sh, sw = node.attrs["stride"]
        flat = _some(x[:, :, ::sh, ::sw].permute(0, 2, 3, 1).reshape(-1, x.shape[1]), most)
        return (flat.T @ flat)[None] / len(flat)
    top, bottom, left, right = node.attrs["padding"]
    per_image = max(1, node.output.shape[2] * node.output.shape[3])
    x = x[:: max(1, len(x) * per_image // most)]
    patches = F.unfold(
        F.pad(x, (left, right, top, bottom)),
        (kh, kw),
        dilation=node.attrs["dilation"],
        stride=node.attrs["stride"],
    )  # (N, C * kh * kw, L)
    n, channels, places = patches.shape
    grouped = patches.reshape(n, groups, channels // groups, places).permute(1, 2, 0, 3)
    flat = grouped.reshape(groups, channels // groups, n * places)
    flat = flat[:, :, :: max(1, flat.shape[2] // most)]
    return flat @ flat.transpose(1, 2) / flat.shape[2]


def _some(rows: Tensor, most: int) -> Tensor:
    """At most about `most` rows, evenly spread over images and positions."""
    return rows[:: max(1, len(rows) // most)]
