"""Resizing. Torch samples at half-pixel centres unless corners are aligned, and its nearest takes the
floor.
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.ir import Node
from edgekit.lower.tflite.context import NHWC, Context, lowers
from edgekit.lower.tflite.movement import moved


@lowers()
def resize_bilinear(ctx: Context, node: Node) -> None:
    """RESIZE_BILINEAR; in float with aligned corners, where the int8 reference kernel is wrong, and in
    int16, where the only kernel weighs with ten bits.
    """
    value = node.inputs[0]
    assert value is not None
    aligned = bool(node.attrs.get("align_corners", False))
    integer = not aligned and value.quant == node.output.quant and ctx.target.activations != "int16"
    x = ctx.read(value, NHWC, as_float=not integer)
    result = ctx.write(node.output, NHWC, integer=integer)
    size = ctx.constant("size", np.array(node.attrs["size"], np.int32))
    options = schema.ResizeBilinearOptionsT(alignCorners=aligned, halfPixelCenters=not aligned)
    ctx.emit("RESIZE_BILINEAR", [x, size], [result], options)


@lowers()
def resize_nearest(ctx: Context, node: Node) -> None:
    """RESIZE_NEAREST_NEIGHBOR with the floor rule, which is torch's."""
    x = moved(ctx, node, 0, NHWC)
    result = ctx.write(node.output, NHWC, integer=True)
    size = ctx.constant("size", np.array(node.attrs["size"], np.int32))
    options = schema.ResizeNearestNeighborOptionsT()
    ctx.emit("RESIZE_NEAREST_NEIGHBOR", [x, size], [result], options)
