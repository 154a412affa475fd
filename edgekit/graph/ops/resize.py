"""Resizing of images."""

from __future__ import annotations

import torch.nn.functional as F

from edgekit.graph.ops.row import Same, Tensor, op


@op(
    channels="window",
    ranges=Same("RESIZE_BILINEAR interpolates integers and checks equal parameters"),
    layout="image",
    dtypes="floats",
    homogeneous=True,
)
def resize_bilinear(x: Tensor, *, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=align_corners)


@op(
    channels="window",
    ranges=Same("RESIZE_NEAREST_NEIGHBOR copies integers"),
    layout="image",
    dtypes="floats",
    movement="place",
    homogeneous=True,
)
def resize_nearest(x: Tensor, *, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="nearest")
