"""Resizing. Torch samples at half-pixel centres unless corners are aligned, and its nearest takes the
floor.
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.graph.ir import Node
from edgekit.lower.tflite.builder import Tensor
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
    integer = not aligned and value.quant == node.output.quant and ctx.computes_in(node) != "int16"
    x = ctx.read(value, NHWC, as_float=not integer)
    result = ctx.write(node.output, NHWC, integer=integer)
    size = ctx.constant("size", np.array(node.attrs["size"], np.int32))
    options = schema.ResizeBilinearOptionsT(alignCorners=aligned, halfPixelCenters=not aligned)
    ctx.emit("RESIZE_BILINEAR", [x, size], [result], options)


@lowers()
def resize_nearest(ctx: Context, node: Node) -> None:
    """Whole factors repeat rows and columns by CONCATENATION, which is delegated; any other size takes
    RESIZE_NEAREST_NEIGHBOR with the floor rule, which is torch's.
    """
    x = moved(ctx, node, 0, NHWC)
    (_, h, w, _), (oh, ow) = x.shape, node.attrs["size"]
    factors = [None if large % small else _factors(large // small) for large, small in ((oh, h), (ow, w))]
    if None in factors or (oh, ow) == (h, w):
        result = ctx.write(node.output, NHWC, integer=True)
        size = ctx.constant("size", np.array(node.attrs["size"], np.int32))
        options = schema.ResizeNearestNeighborOptionsT()
        ctx.emit("RESIZE_NEAREST_NEIGHBOR", [x, size], [result], options)
        return
    steps = [(axis, factor) for axis in (2, 1) for factor in factors[axis - 1] or ()]
    for axis, factor in steps:
        x = _repeated(ctx, x, axis, factor, node.output.name)
    ctx.alias(node.output, x, NHWC)


def _factors(number: int) -> list[int] | None:
    """`number` as factors that one CONCATENATION may join, or None."""
    found = []
    for factor in (5, 4, 3, 2):
        while number % factor == 0:
            found.append(factor)
            number //= factor
    return found[::-1] if number == 1 else None


def _repeated(ctx: Context, x: Tensor, axis: int, factor: int, stem: str) -> Tensor:
    """Every entry of `axis` `factor` times in a row."""
    outer, inner = int(np.prod(x.shape[: axis + 1])), int(np.prod(x.shape[axis + 1 :]))
    rows = ctx.like(x, f"{stem}/rows", (outer, inner))
    joined = ctx.like(x, f"{stem}/joined", (outer, factor * inner))
    ctx.reshape(x, rows)
    options = schema.ConcatenationOptionsT(axis=1)
    ctx.emit("CONCATENATION", [rows] * factor, [joined], options)
    shape = tuple(n * factor if i == axis else n for i, n in enumerate(x.shape))
    result = ctx.like(x, f"{stem}/repeated", shape)
    ctx.reshape(joined, result)
    return result
