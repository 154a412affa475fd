"""Normalisation with the statistics known (batch norm) or computed from the input."""

from __future__ import annotations

import numpy as np

from edgekit.graph.ir import Node, Value
from edgekit.lower.onnx import constants
from edgekit.lower.onnx.context import Context, lowers


def _parameter(ctx: Context, value: Value | None, stem: str, shape: tuple[int, ...], missing: float) -> str:
    if value is None:
        return ctx.constant(stem, np.full(shape, missing, np.float32))
    return ctx.constant(value.name, constants.as_numpy(value))


@lowers()
def batch_norm(ctx: Context, node: Node) -> str:
    x, weight, bias, mean, var = node.inputs
    assert x is not None and mean is not None and var is not None
    stem, shape = node.output.name, mean.shape
    return ctx.emit(
        "BatchNormalization",
        ctx.read(x),
        _parameter(ctx, weight, f"{stem}/ones", shape, 1.0),
        _parameter(ctx, bias, f"{stem}/zeros", shape, 0.0),
        ctx.read(mean),
        ctx.read(var),
        epsilon=float(node.attrs["eps"]),
    )


@lowers()
def layer_norm(ctx: Context, node: Node) -> str:
    x, weight, bias = node.inputs
    assert x is not None
    shape = tuple(node.attrs["normalized_shape"])
    return ctx.emit(
        "LayerNormalization",
        ctx.read(x),
        _parameter(ctx, weight, f"{node.output.name}/ones", shape, 1.0),
        None if bias is None else ctx.read(bias),
        axis=-len(shape),
        epsilon=float(node.attrs["eps"]),
    )


@lowers()
def rms_norm(ctx: Context, node: Node) -> str:
    """x / sqrt(mean(x^2) + eps); opset 17 has no node for it."""
    x, weight = node.inputs
    assert x is not None
    data = ctx.read(x)
    axes = tuple(range(-len(node.attrs["normalized_shape"]), 0))
    power = ctx.emit("ReduceMean", ctx.emit("Mul", data, data), axes=axes, keepdims=1)
    length = ctx.emit("Sqrt", ctx.emit("Add", power, ctx.scalar(float(node.attrs["eps"]))))
    y = ctx.emit("Div", data, length)
    return y if weight is None else ctx.emit("Mul", y, ctx.read(weight))


@lowers()
def group_norm(ctx: Context, node: Node) -> str:
    """Each group as one channel of an InstanceNormalization; opset 17 has no normalisation of groups."""
    x, weight, bias = node.inputs
    assert x is not None
    groups = node.attrs["groups"]
    parts = [ctx.constant("number", np.full(groups, n, np.float32)) for n in (1.0, 0.0)]
    grouped = ctx.emit("Reshape", ctx.read(x), ctx.shape((0, groups, -1)))
    normal = ctx.emit("InstanceNormalization", grouped, *parts, epsilon=float(node.attrs["eps"]))
    result = ctx.emit("Reshape", normal, ctx.shape((0, *x.shape[1:])))
    for op_type, value in (("Mul", weight), ("Add", bias)):
        if value is not None:
            data = constants.as_numpy(value).reshape(-1, *[1] * (len(x.shape) - 2))
            result = ctx.emit(op_type, result, ctx.constant(value.name, data))
    return result


@lowers()
def l2_normalize(ctx: Context, node: Node) -> str:
    """x / max(|x|, eps)."""
    x = ctx.first(node)
    length = ctx.emit("ReduceL2", x, axes=(node.attrs["dim"],), keepdims=1)
    return ctx.emit("Div", x, ctx.emit("Max", length, ctx.scalar(float(node.attrs["eps"]))))
