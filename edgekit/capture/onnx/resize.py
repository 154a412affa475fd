"""Importers of Resize and Upsample, where ONNX's many ways to sample agree with torch's two."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgekit.capture.builder import Unsupported
from edgekit.capture.onnx.registry import OnnxNode, constant, importer, integers, positive
from edgekit.graph.ir import Value

if TYPE_CHECKING:
    from edgekit.capture.onnx.builder import Builder

_ROUND = {
    "floor": math.floor,
    "ceil": math.ceil,
    "round_prefer_floor": lambda p: math.ceil(p - 0.5),
    "round_prefer_ceil": lambda p: math.floor(p + 0.5),
}


@importer("Resize")
def resize(imp: Builder, node: OnnxNode, x: Any, *rest: Any) -> Value:
    """(x, scales) in opset 10, (x, roi, scales, sizes) from 11."""
    if imp.opset < 11:
        scales, sizes, place = rest[0], None, "asymmetric"
    else:
        _roi, scales, sizes = (*rest, None, None, None)[:3]
        place = node.get("coordinate_transformation_mode", "half_pixel")
    rounding = node.get("nearest_mode", "round_prefer_floor") if imp.opset >= 11 else "floor"
    if node.get("antialias", 0) or node.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Unsupported("Resize with antialias or a kept aspect ratio")
    return _resized(imp, node, x, scales, sizes, place, rounding)


@importer("Upsample")
def upsample(imp: Builder, node: OnnxNode, x: Any, scales: Any = None) -> Value:
    scales = node.get("scales") if scales is None else scales
    return _resized(imp, node, x, scales, None, "asymmetric", "floor")


def _resized(
    imp: Builder, node: OnnxNode, x: Any, scales: Any, sizes: Any, place: str, rounding: str
) -> Value:
    if not isinstance(x, Value) or len(x.shape) != 4:
        raise Unsupported(f"{node.op} of {len(x.shape)} dimensions (only images, 4)")
    axes = [positive(a, 4) for a in node.get("axes", range(4))]
    target, factors = list(x.shape), [1.0] * 4
    if sizes is not None and len(wanted := integers(sizes, "sizes")):
        for axis, length in zip(axes, wanted, strict=True):
            target[axis], factors[axis] = length, length / x.shape[axis]
    else:
        given = scales if isinstance(scales, list | tuple) else constant(scales, "scales").reshape(-1)
        for axis, factor in zip(axes, given, strict=True):
            factors[axis] = float(factor)
            target[axis] = math.floor(x.shape[axis] * float(factor))
    if target[:2] != list(x.shape[:2]):
        raise Unsupported(f"{node.op} of batch or channels")
    size = (target[2], target[3])
    if size == tuple(x.shape[2:]):
        return x
    mode = node.get("mode", "nearest")
    if mode == "nearest":
        for n, out, factor in zip(x.shape[2:], size, factors[2:], strict=True):
            if not _same_pixels(n, out, factor, place, rounding):
                raise Unsupported(f"nearest {node.op} with {place} and {rounding}")
        return imp.emit("resize_nearest", (x,), size=size)
    whole = all(abs(n * f - out) < 1e-3 for n, out, f in zip(x.shape[2:], size, factors[2:], strict=True))
    if mode != "linear" or not whole or place not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        raise Unsupported(f"{mode} {node.op} with {place} from {tuple(x.shape[2:])} to {size}")
    if place == "pytorch_half_pixel" and 1 in size:
        raise Unsupported(f"{mode} {node.op} with {place} to {size}")
    return imp.emit("resize_bilinear", (x,), size=size, align_corners=place == "align_corners")


def _same_pixels(n: int, out: int, factor: float, place: str, rounding: str) -> bool:
    """Does every output pixel come from the one torch takes, floor(i * n / out)?"""
    for i in range(out):
        if place in ("half_pixel", "half_pixel_symmetric") or (place == "pytorch_half_pixel" and out > 1):
            at = (i + 0.5) / factor - 0.5
        elif place == "align_corners":
            at = i * (n - 1) / (out - 1) if out > 1 else 0.0
        elif place == "asymmetric":
            at = i / factor
        else:
            return False
        # A hair of float error must not push a whole number below itself.
        at = round(at, 6)
        if min(max(_ROUND[rounding](at), 0), n - 1) != min(i * n // out, n - 1):
            return False
    return True
