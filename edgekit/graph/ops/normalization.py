"""Normalizations: every element by statistics of many; and dropout, which training puts beside them."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from edgekit.graph.ops.row import FREE, MOVED, Fixed, Tensor, op


@op(channels="scale", ranges=FREE, layout="any", dtypes="floats", parameters=True)
def batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    *,
    eps: float,
    momentum: float | None = 0.1,
    batches: int = 0,
    statistics: str = "batch",
) -> Tensor:
    """Inference form, statistics (C,); without them those of the batch it is given.

    momentum (None: the mean of all batches), how many batches the statistics have seen and whether they
    are of a "batch" or of each "image" say how it trains.
    """
    return F.batch_norm(x, mean, var, weight, bias, mean is None, 0.0, eps)


@op(channels="normalize", ranges=FREE, layout="last", dtypes="floats", parameters=True)
def layer_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, *, normalized_shape: tuple[int, ...], eps: float
) -> Tensor:
    """Over the last len(normalized_shape) dimensions."""
    return F.layer_norm(x, normalized_shape, weight, bias, eps)


@op(channels="normalize", ranges=FREE, layout="last", dtypes="floats", parameters=True)
def rms_norm(x: Tensor, weight: Tensor | None, *, normalized_shape: tuple[int, ...], eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last len(normalized_shape) dimensions."""
    return F.rms_norm(x, normalized_shape, weight, eps)


@op(channels="normalize", ranges=FREE, layout="image", dtypes="floats", parameters=True)
def group_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, *, groups: int, eps: float) -> Tensor:
    return F.group_norm(x, groups, weight, bias, eps)


# L2_NORMALIZATION: the kernel asserts scale 1/128, zero point 0
@op(channels="along", ranges=Fixed(-1.0, 1.0, int8=(1 / 128, 0)), layout="any", dtypes="floats")
def l2_normalize(x: Tensor, *, dim: int, eps: float) -> Tensor:
    return F.normalize(x, dim=dim, eps=eps)


# SOFTMAX: the kernels assert scale 1/256, zero point -128
@op(channels="along", ranges=Fixed(0.0, 1.0, int8=(1 / 256, -128)), layout="any", dtypes="floats")
def softmax(x: Tensor, *, dim: int) -> Tensor:
    return torch.softmax(x, dim)


@op(
    channels="pass",
    ranges=MOVED,
    layout="any",
    dtypes="any",
    movement="view",
    homogeneous=True,
    composite=True,
)
def dropout(x: Tensor, *, p: float, mode: str) -> Tensor:
    """x itself, whole. Training leaves out the share p and scales the rest up.

    mode: what is left out: an "element", a "channel", a "row" (all of an image, stochastic depth) or the
    "batch"; "alpha" and "alpha channel" as self-normalizing networks want it.
    """
    return x
