"""Pooling and reductions.

A window that torch adds by rounding up is written as padding at the end, which every runtime counts alike.
"""

from __future__ import annotations

import numpy as np

from edgekit.graph.ir import Node
from edgekit.lower.onnx.context import Context, lowers


def _end(size: int, before: int, out: int, kernel: int, stride: int, dilation: int) -> int:
    """The padding after one dimension that its last window reads."""
    return max((out - 1) * stride + (kernel - 1) * dilation + 1 - size - before, 0)


def _pads(node: Node) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) that give exactly the output's size."""
    value = node.inputs[0]
    assert value is not None
    kernel, stride, padding = node.attrs["kernel"], node.attrs["stride"], node.attrs["padding"]
    dilation = node.attrs.get("dilation", (1, 1))
    bottom, right = (
        _end(value.shape[2 + i], padding[i], node.output.shape[2 + i], kernel[i], stride[i], dilation[i])
        for i in (0, 1)
    )
    return (padding[0], padding[1], bottom, right)


@lowers(integer=True)
def max_pool2d(ctx: Context, node: Node) -> str:
    dilation = tuple(node.attrs.get("dilation", (1, 1)))
    return ctx.emit(
        "MaxPool",
        ctx.first(node),
        kernel_shape=node.attrs["kernel"],
        strides=node.attrs["stride"],
        pads=_pads(node),
        dilations=None if dilation == (1, 1) else dilation,
    )


def _divisors(node: Node) -> np.ndarray:
    """How many elements torch divides each window's sum by, (oh, ow)."""
    value = node.inputs[0]
    assert value is not None
    counts = []
    for i in (0, 1):
        size, out, before = value.shape[2 + i], node.output.shape[2 + i], node.attrs["padding"][i]
        low, high = (-before, size + before) if node.attrs.get("count_include_pad", True) else (0, size)
        starts = np.arange(out) * node.attrs["stride"][i] - before
        ends = np.minimum(starts + node.attrs["kernel"][i], high)
        counts.append(ends - np.maximum(starts, low))
    return counts[0][:, None] * counts[1][None, :]


@lowers(integer=True)
def avg_pool2d(ctx: Context, node: Node) -> str:
    """AveragePool; a window cut by rounding up while padding counts is corrected by its true divisor."""
    kernel = tuple(node.attrs["kernel"])
    counted = bool(node.attrs.get("count_include_pad", True))
    pads = _pads(node)
    result = ctx.emit(
        "AveragePool",
        ctx.first(node),
        kernel_shape=kernel,
        strides=node.attrs["stride"],
        pads=pads,
        count_include_pad=int(counted and any(pads)),
    )
    divisors = _divisors(node)
    if not counted or bool((divisors == kernel[0] * kernel[1]).all()):
        return result
    correction = (kernel[0] * kernel[1] / divisors).astype(np.float32)
    return ctx.emit("Mul", result, ctx.constant(f"{node.output.name}/border", correction))


def _averages(size: int, out: int) -> np.ndarray:
    """(out, size): row i averages the elements of torch's i-th adaptive window."""
    matrix = np.zeros((out, size), np.float32)
    for i in range(out):
        start, end = i * size // out, -(-(i + 1) * size // out)
        matrix[i, start:end] = 1.0 / (end - start)
    return matrix


@lowers()
def adaptive_avg_pool2d(ctx: Context, node: Node) -> str:
    """Equal windows are an ordinary average pool; unequal ones two products with the averaging matrices."""
    value = node.inputs[0]
    assert value is not None
    size, out = value.shape[2:], node.output.shape[2:]
    if tuple(out) == (1, 1):
        return ctx.emit("GlobalAveragePool", ctx.first(node))
    if not any(n % o for n, o in zip(size, out, strict=True)):
        window = tuple(n // o for n, o in zip(size, out, strict=True))
        return ctx.emit("AveragePool", ctx.first(node), kernel_shape=window, strides=window)
    stem = node.output.name
    rows = ctx.constant(f"{stem}/rows", _averages(size[0], out[0]))
    columns = ctx.constant(f"{stem}/columns", np.ascontiguousarray(_averages(size[1], out[1]).T))
    return ctx.emit("MatMul", rows, ctx.emit("MatMul", ctx.first(node), columns))


def _axes(node: Node) -> tuple[int, ...]:
    value = node.inputs[0]
    assert value is not None
    return tuple(sorted(d % len(value.shape) for d in node.attrs["dims"]))


def is_global(node: Node) -> bool:
    """Whether a mean is the average over height and width that keeps them."""
    value = node.inputs[0]
    return value is not None and len(value.shape) == 4 and _axes(node) == (2, 3) and node.attrs["keepdim"]


@lowers(integer=is_global)
def mean(ctx: Context, node: Node) -> str:
    """GlobalAveragePool, which runtimes have an integer form of, or ReduceMean."""
    if is_global(node):
        return ctx.emit("GlobalAveragePool", ctx.first(node))
    return ctx.emit("ReduceMean", ctx.first(node), axes=_axes(node), keepdims=int(node.attrs["keepdim"]))


@lowers()
def sum_(ctx: Context, node: Node) -> str:
    return ctx.emit("ReduceSum", ctx.first(node), ctx.shape(_axes(node)), keepdims=int(node.attrs["keepdim"]))


@lowers()
def amax(ctx: Context, node: Node) -> str:
    return ctx.emit("ReduceMax", ctx.first(node), axes=_axes(node), keepdims=int(node.attrs["keepdim"]))
