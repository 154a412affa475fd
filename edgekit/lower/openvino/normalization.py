"""Normalisations. Statistics of a batch norm are folded into one multiplication and one addition."""

from __future__ import annotations

import numpy as np

from edgekit.graph.ir import Node
from edgekit.lower.openvino import constants
from edgekit.lower.openvino.context import Context, Output, lowers
from edgekit.targets import Target


def _constant_statistics(node: Node, target: Target) -> str | None:
    computed = any(not value.is_constant for value in node.operands[1:])
    return "its statistics are computed: constant ones" if computed else None


@lowers(_constant_statistics)
def batch_norm(ctx: Context, node: Node) -> Output:
    x, weight, bias, mean, variance = node.inputs
    assert x is not None and mean is not None and variance is not None
    wide = [v and constants.as_numpy(v).astype(np.float64) for v in (weight, bias, mean, variance)]
    factor = (1.0 if wide[0] is None else wide[0]) / np.sqrt(wide[3] + node.attrs["eps"])
    offset = (0.0 if wide[1] is None else wide[1]) - wide[2] * factor
    shape = (1, -1, *(1,) * (len(x.shape) - 2))
    y = ctx.emit("multiply", ctx.read(x), ctx.floats(f"{node.output.name}/factor", factor.reshape(shape)))
    return ctx.emit("add", y, ctx.floats(f"{node.output.name}/offset", offset.reshape(shape)))


@lowers()
def layer_norm(ctx: Context, node: Node) -> Output:
    """MVN over the last dimensions, then scale and shift."""
    x, weight, bias = node.inputs
    assert x is not None
    rank, count = len(x.shape), len(node.attrs["normalized_shape"])
    axes = np.arange(rank - count, rank, dtype=np.int64)
    y = ctx.emit("mvn", ctx.read(x), axes, True, node.attrs["eps"], "inside_sqrt")
    if weight is not None:
        y = ctx.emit("multiply", y, ctx.read(weight))
    return y if bias is None else ctx.emit("add", y, ctx.read(bias))


@lowers()
def rms_norm(ctx: Context, node: Node) -> Output:
    """x / sqrt(mean(x^2) + eps)."""
    x, weight = node.inputs
    assert x is not None
    rank, count = len(x.shape), len(node.attrs["normalized_shape"])
    data = ctx.read(x)
    axes = ctx.sizes(range(rank - count, rank))
    power = ctx.emit("reduce_mean", ctx.emit("multiply", data, data), axes, True)
    y = ctx.emit("divide", data, ctx.emit("sqrt", ctx.emit("add", power, ctx.scalar(node.attrs["eps"]))))
    return y if weight is None else ctx.emit("multiply", y, ctx.read(weight))


@lowers()
def group_norm(ctx: Context, node: Node) -> Output:
    x, weight, bias = node.inputs
    assert x is not None
    channels = x.shape[1]
    scale = ctx.read(weight) if weight else ctx.numbers([1.0] * channels)
    shift = ctx.read(bias) if bias else ctx.numbers([0.0] * channels)
    return ctx.emit("group_normalization", ctx.read(x), scale, shift, node.attrs["groups"], node.attrs["eps"])


@lowers()
def l2_normalize(ctx: Context, node: Node) -> Output:
    """x / max(norm, eps): NormalizeL2 compares squares."""
    axis = np.array([node.attrs["dim"] % len(node.output.shape)], np.int64)
    return ctx.emit("normalize_l2", ctx.first(node), axis, node.attrs["eps"] ** 2, "max")
