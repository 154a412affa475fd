"""Convolutions and matrix products. Weights keep PyTorch's order; groups become a dimension of their own."""

from __future__ import annotations

from edgekit.graph.ir import Node
from edgekit.lower.openvino.activation import activated
from edgekit.lower.openvino.context import Context, Output, lowers
from edgekit.targets import Target


def _constant_weight(node: Node, target: Target) -> str | None:
    weight = node.inputs[1]
    return None if weight is not None and weight.is_constant else "its weight is computed: a constant one"


@lowers(_constant_weight)
def conv2d(ctx: Context, node: Node) -> Output:
    """Convolution, or GroupConvolution with weights (G, O/G, C/G, kh, kw)."""
    attrs, weight = node.attrs, node.operands[1]
    top, bottom, left, right = attrs["padding"]
    groups = attrs["groups"]
    shape = weight.shape if groups == 1 else (groups, weight.shape[0] // groups, *weight.shape[1:])
    y = ctx.emit(
        "convolution" if groups == 1 else "group_convolution",
        ctx.first(node),
        ctx.parameter(weight, shape),
        list(attrs["stride"]),
        [top, left],
        [bottom, right],
        list(attrs["dilation"]),
    )
    return activated(ctx, _biased(ctx, node, y, (1, -1, 1, 1)), attrs.get("activation"))


@lowers(_constant_weight)
def conv_transpose2d(ctx: Context, node: Node) -> Output:
    """ConvolutionBackpropData; PyTorch's (C, O/G, kh, kw) is its order too."""
    attrs, weight = node.attrs, node.operands[1]
    groups = attrs["groups"]
    shape = weight.shape if groups == 1 else (groups, weight.shape[0] // groups, *weight.shape[1:])
    y = ctx.emit(
        "convolution_backprop_data" if groups == 1 else "group_convolution_backprop_data",
        ctx.first(node),
        ctx.parameter(weight, shape),
        list(attrs["stride"]),
        pads_begin=list(attrs["padding"]),
        pads_end=list(attrs["padding"]),
        dilations=list(attrs["dilation"]),
        output_padding=list(attrs["output_padding"]),
    )
    return activated(ctx, _biased(ctx, node, y, (1, -1, 1, 1)), attrs.get("activation"))


@lowers()
def linear(ctx: Context, node: Node) -> Output:
    y = ctx.emit("matmul", ctx.first(node), ctx.read(node.operands[1]), False, True)
    rank = len(node.output.shape)
    return activated(ctx, _biased(ctx, node, y, (1,) * (rank - 1) + (-1,)), node.attrs.get("activation"))


@lowers()
def matmul(ctx: Context, node: Node) -> Output:
    a, b = ctx.operands(node)
    return ctx.emit("matmul", a, b, False, False)


@lowers()
def scaled_dot_product_attention(ctx: Context, node: Node) -> Output:
    q, k, v, mask = (value and ctx.read(value) for value in node.inputs)
    scale = node.attrs.get("scale") or node.operands[0].shape[-1] ** -0.5
    scores = ctx.emit("multiply", ctx.emit("matmul", q, k, False, True), ctx.scalar(scale))
    if mask is not None:
        scores = ctx.emit("add", scores, mask)
    return ctx.emit("matmul", ctx.emit("softmax", scores, -1), v, False, False)


def _biased(ctx: Context, node: Node, y: Output, view: tuple[int, ...]) -> Output:
    bias = node.inputs[2]
    if bias is None:
        return y
    if not bias.is_constant:
        return ctx.emit("add", y, ctx.emit("reshape", ctx.read(bias), ctx.sizes(view), False))
    shape = tuple(bias.shape[0] if d == -1 else d for d in view)
    return ctx.emit("add", y, ctx.parameter(bias, shape))
