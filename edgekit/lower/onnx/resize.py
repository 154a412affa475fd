"""Resizing. Torch samples at half-pixel centres unless corners are aligned, and its nearest takes the floor.

Sizes are given as scales, which leave the batch alone.
"""

from __future__ import annotations

import numpy as np

from edgekit.graph.ir import Node
from edgekit.lower.onnx.context import Context, lowers


def _scales(ctx: Context, size: tuple[int, ...], out: tuple[int, ...]) -> str:
    """Scales whose product with `size`, rounded down, is exactly `out`.

    Readers multiply in float32 or in float64: a float32 quotient below the true one gives the latter a size
    that is one short, so the product is made exact or larger.
    """
    found = []
    for n, o in zip(size, out, strict=True):
        scale = np.float32(o / n)
        if n * float(scale) < o:
            scale = np.nextafter(scale, np.float32(np.inf))
        found.append(scale)
    return ctx.constant("scales", np.array([1.0, 1.0, *found], np.float32))


@lowers()
def resize_bilinear(ctx: Context, node: Node) -> str:
    x = node.operands[0]
    aligned = bool(node.attrs.get("align_corners", False))
    return ctx.emit(
        "Resize",
        ctx.first(node),
        None,
        _scales(ctx, x.shape[2:], node.output.shape[2:]),
        mode="linear",
        coordinate_transformation_mode="align_corners" if aligned else "half_pixel",
    )


@lowers()
def resize_nearest(ctx: Context, node: Node) -> str:
    """Whole factors are a Resize; else each row's source is stated, since runtimes round the quotient
    differently.
    """
    x = node.operands[0]
    size, out = x.shape[2:], node.output.shape[2:]
    tensor = ctx.first(node)
    if not any(o % n for n, o in zip(size, out, strict=True)):
        return ctx.emit(
            "Resize",
            tensor,
            None,
            _scales(ctx, size, out),
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
    for axis, (n, o) in enumerate(zip(size, out, strict=True), start=2):
        if n != o:
            rows = np.floor(np.arange(o, dtype=np.float32) * np.float32(n / o)).astype(np.int64)
            tensor = ctx.emit("Gather", tensor, ctx.constant("rows", np.minimum(rows, n - 1)), axis=axis)
    return tensor
