"""Poolings and reductions. `ceil_torch` is PyTorch's rule: no window starts in the padding at the end."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.graph.ir import Node
from edgekit.lower.openvino.context import Context, Output, lowers


def _rounding(node: Node) -> str:
    return "ceil_torch" if node.attrs.get("ceil_mode") else "floor"


@lowers()
def max_pool2d(ctx: Context, node: Node) -> Output:
    attrs = node.attrs
    pads = list(attrs["padding"])
    return ctx.emit(
        "max_pool",
        ctx.first(node),
        list(attrs["stride"]),
        list(attrs.get("dilation", (1, 1))),
        pads,
        pads,
        list(attrs["kernel"]),
        _rounding(node),
    )


@lowers()
def avg_pool2d(ctx: Context, node: Node) -> Output:
    attrs = node.attrs
    pads = list(attrs["padding"])
    excludes = not attrs.get("count_include_pad", True)
    return ctx.emit(
        "avg_pool",
        ctx.first(node),
        list(attrs["stride"]),
        pads,
        pads,
        list(attrs["kernel"]),
        excludes,
        _rounding(node),
    )


@lowers()
def adaptive_avg_pool2d(ctx: Context, node: Node) -> Output:
    return ctx.emit("adaptive_avg_pool", ctx.first(node), ctx.sizes(node.attrs["output_size"]))


def _reduce(ctx: Context, node: Node, op: str) -> Output:
    rank = len(node.operands[0].shape)
    axes: Any = np.array(sorted(d % rank for d in node.attrs["dims"]), np.int64)
    return ctx.emit(op, ctx.first(node), axes, node.attrs["keepdim"])


@lowers()
def mean(ctx: Context, node: Node) -> Output:
    return _reduce(ctx, node, "reduce_mean")


@lowers()
def sum_(ctx: Context, node: Node) -> Output:
    return _reduce(ctx, node, "reduce_sum")


@lowers()
def amax(ctx: Context, node: Node) -> Output:
    return _reduce(ctx, node, "reduce_max")
