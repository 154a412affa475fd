"""Resizing to a fixed size, with PyTorch's choice of sample positions."""

from __future__ import annotations

import numpy as np

from edgekit.graph.ir import Node
from edgekit.lower.openvino.context import Context, Output, lowers

_AXES = np.array([2, 3], np.int64)


@lowers()
def resize_bilinear(ctx: Context, node: Node) -> Output:
    return ctx.emit(
        "interpolate",
        ctx.first(node),
        ctx.sizes(node.attrs["size"]),
        "linear_onnx",
        "sizes",
        coordinate_transformation_mode="align_corners" if node.attrs.get("align_corners") else "half_pixel",
        axes=_AXES,
    )


@lowers()
def resize_nearest(ctx: Context, node: Node) -> Output:
    return ctx.emit(
        "interpolate",
        ctx.first(node),
        ctx.sizes(node.attrs["size"]),
        "nearest",
        "sizes",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
        axes=_AXES,
    )
