"""Attention as one operator."""

from __future__ import annotations

import math
from math import prod

import torch.nn.functional as F

from edgekit.graph.ops.row import FREE, Tensor, op


@op(
    channels="product",
    ranges=FREE,
    layout="last",
    dtypes="floats",
    composite=True,
    macs=lambda shapes, out: (prod(shapes[0]) + prod(out)) * shapes[1][-2],
)
def scaled_dot_product_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    *,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """softmax(q k^T * scale + mask) v; scale defaults to 1/sqrt(head dimension).

    dropout says which share of the softmax's results training leaves out.
    """
    return F.scaled_dot_product_attention(q, k, v, mask, scale=scale or 1.0 / math.sqrt(q.shape[-1]))
