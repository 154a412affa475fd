"""Matrix products, softmax and normalisation.

BATCH_MATMUL runs in integers and takes a transposed second operand for free. Softmax and layer norm are float
islands: DEQUANTIZE, delegated float operators, QUANTIZE, which is faster and more exact than their integer
forms.
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.graph.ir import Node, Value
from edgekit.lower.tflite import constants, layout
from edgekit.lower.tflite.builder import Tensor
from edgekit.lower.tflite.context import NHWC, Context, lowers
from edgekit.lower.tflite.convolution import VALID
from edgekit.lower.tflite.elementwise import operand
from edgekit.lower.tflite.layout import Perm


def _swap_last(perm: Perm) -> Perm:
    return (*perm[:-2], perm[-1], perm[-2])


@lowers()
def matmul(ctx: Context, node: Node) -> None:
    """BATCH_MATMUL; an operand that lies transposed is read as it lies."""
    a, b = node.inputs
    assert a is not None and b is not None
    rank = len(node.output.shape)
    plain = layout.identity(rank)
    integer = ctx.integer(node)
    flags, tensors = [], []
    for value in (a, b):
        swapped = rank == len(value.shape) and not value.is_constant and ctx.perm(value) == _swap_last(plain)
        tensors.append(operand(ctx, value, rank, _swap_last(plain) if swapped else plain, integer=integer))
        flags.append(swapped)
    if flags[0]:  # XNNPACK takes a transposed second operand only
        tensors[0] = operand(ctx, a, rank, plain, integer=integer)
        flags[0] = False
    result = ctx.write(node.output, plain, integer=integer)
    options = schema.BatchMatMulOptionsT(adjX=flags[0], adjY=flags[1])
    ctx.emit("BATCH_MATMUL", list(tensors), [result], options)


def last(ctx: Context, value: Value, dim: int) -> Perm:
    """A layout of `value` with `dim` last, the present one if it is."""
    rank = len(value.shape)
    dim %= rank
    perm = ctx.perm(value)
    return perm if perm[-1] == dim else (*(d for d in range(rank) if d != dim), dim)


@lowers()
def softmax(ctx: Context, node: Node) -> None:
    """SOFTMAX over the last stored dimension, in float."""
    value = node.inputs[0]
    assert value is not None
    perm = last(ctx, value, node.attrs["dim"])
    x = ctx.read(value, perm, as_float=True)
    result = ctx.write(node.output, perm, integer=False)
    ctx.emit("SOFTMAX", [x], [result], schema.SoftmaxOptionsT(beta=1.0))


def _step(ctx: Context, node: Node, name: str, inputs: list[Tensor | None], shape: tuple[int, ...]) -> Tensor:
    options = {
        "ADD": schema.AddOptionsT,
        "SUB": schema.SubOptionsT,
        "MUL": schema.MulOptionsT,
        "SQUARED_DIFFERENCE": schema.SquaredDifferenceOptionsT,
    }.get(name)
    result = ctx.temporary(f"{node.output.name}/{name.lower()}", shape)
    ctx.emit(name, inputs, [result], options() if options else None)
    return result


def _standardised(ctx: Context, node: Node, x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    """(x - mean) / sqrt(var + eps) over `axes`."""
    reduced = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    which = ctx.constant("axes", np.array(axes, np.int32))
    keep = schema.ReducerOptionsT(keepDims=True)
    mean = ctx.temporary(f"{node.output.name}/mean", reduced)
    ctx.emit("MEAN", [x, which], [mean], keep)
    centred = _step(ctx, node, "SUB", [x, mean], x.shape)
    square = _step(ctx, node, "SQUARED_DIFFERENCE", [x, mean], x.shape)
    variance = ctx.temporary(f"{node.output.name}/variance", reduced)
    ctx.emit("MEAN", [square, which], [variance], keep)
    epsilon = ctx.constant("epsilon", np.array(eps, np.float32))
    inverse = _step(ctx, node, "RSQRT", [_step(ctx, node, "ADD", [variance, epsilon], reduced)], reduced)
    return _step(ctx, node, "MUL", [centred, inverse], x.shape)


def _affine(
    ctx: Context, node: Node, x: Tensor, result: Tensor, scale: Tensor | None, shift: Tensor | None
) -> None:
    """x * scale + shift into `result`."""
    steps = [(n, t) for n, t in (("MUL", scale), ("ADD", shift)) if t is not None]
    options = {"MUL": schema.MulOptionsT, "ADD": schema.AddOptionsT}
    if not steps:
        steps = [("MUL", ctx.constant("one", np.array(1.0, np.float32)))]
    for i, (name, other) in enumerate(steps):
        target = result if i == len(steps) - 1 else ctx.temporary(f"{result.name}/scaled", x.shape)
        ctx.emit(name, [x, other], [target], options[name]())
        x = target


@lowers()
def layer_norm(ctx: Context, node: Node) -> None:
    """Mean, variance and scaling over the last dimensions, in float."""
    value, weight, bias = node.inputs
    assert value is not None
    rank, count = len(value.shape), len(node.attrs["normalized_shape"])
    perm = last(ctx, value, rank - 1) if count == 1 else layout.identity(rank)
    x = ctx.read(value, perm, as_float=True)
    normal = _standardised(ctx, node, x, tuple(range(rank - count, rank)), node.attrs["eps"])
    result = ctx.write(node.output, perm, integer=False)
    scale, shift = (None if v is None else ctx.read(v, as_float=True) for v in (weight, bias))
    _affine(ctx, node, normal, result, scale, shift)


@lowers()
def rms_norm(ctx: Context, node: Node) -> None:
    """x / sqrt(mean(x^2) + eps), in float."""
    value, weight = node.inputs
    assert value is not None
    rank, count = len(value.shape), len(node.attrs["normalized_shape"])
    perm = last(ctx, value, rank - 1) if count == 1 else layout.identity(rank)
    x = ctx.read(value, perm, as_float=True)
    axes = ctx.constant("axes", np.arange(rank - count, rank, dtype=np.int32))
    reduced = (*x.shape[: rank - count], *(1,) * count)
    square = _step(ctx, node, "MUL", [x, x], x.shape)
    power = ctx.temporary(f"{node.output.name}/power", reduced)
    ctx.emit("MEAN", [square, axes], [power], schema.ReducerOptionsT(keepDims=True))
    epsilon = ctx.constant("epsilon", np.array(node.attrs["eps"], np.float32))
    inverse = _step(ctx, node, "RSQRT", [_step(ctx, node, "ADD", [power, epsilon], reduced)], reduced)
    scale = None if weight is None else ctx.read(weight, as_float=True)
    result = ctx.write(node.output, perm, integer=False)
    target = result if scale is None else ctx.temporary(f"{node.output.name}/normal", x.shape)
    ctx.emit("MUL", [x, inverse], [target], schema.MulOptionsT())
    if scale is not None:
        ctx.emit("MUL", [target, scale], [result], schema.MulOptionsT())


@lowers()
def group_norm(ctx: Context, node: Node) -> None:
    """Groups of channels as a dimension of their own, normalised over space and the group."""
    value, weight, bias = node.inputs
    assert value is not None
    x = ctx.read(value, NHWC, as_float=True)
    n, h, w, c = x.shape
    groups = node.attrs["groups"]
    view = ctx.temporary(f"{node.output.name}/groups", (n, h, w, groups, c // groups))
    ctx.reshape(x, view)
    normal = _standardised(ctx, node, view, (1, 2, 4), node.attrs["eps"])
    flat = ctx.temporary(f"{node.output.name}/flat", x.shape)
    ctx.reshape(normal, flat)
    result = ctx.write(node.output, NHWC, integer=False)
    scale, shift = (None if v is None else ctx.read(v, as_float=True) for v in (weight, bias))
    _affine(ctx, node, flat, result, scale, shift)


@lowers()
def batch_norm(ctx: Context, node: Node) -> None:
    """A batch norm that no convolution took in: a 1x1 depthwise convolution, twice as fast as MUL and ADD."""
    value, weight, bias, mean, var = node.inputs
    assert value is not None and mean is not None and var is not None
    scale = 1.0 / np.sqrt(constants.as_numpy(var) + node.attrs["eps"])
    if weight is not None:
        scale = scale * constants.as_numpy(weight)
    shift = -constants.as_numpy(mean) * scale
    if bias is not None:
        shift = shift + constants.as_numpy(bias)
    scale, shift = scale.astype(np.float32), shift.astype(np.float32)
    stem = f"{node.output.name}/scale"
    if len(value.shape) != 4:
        perm = last(ctx, value, 1)
        x = ctx.read(value, perm, as_float=True)
        result = ctx.write(node.output, perm, integer=False)
        _affine(ctx, node, x, result, ctx.constant(stem, scale), ctx.constant(f"{stem}/bias", shift))
        return
    x = ctx.read(value, NHWC, as_float=True)
    result = ctx.write(node.output, NHWC, integer=False)
    filters = ctx.weight(stem, scale.reshape(1, 1, 1, -1))
    options = schema.DepthwiseConv2DOptionsT(padding=VALID, strideH=1, strideW=1, depthMultiplier=1)
    ctx.emit("DEPTHWISE_CONV_2D", [x, filters, ctx.weight(f"{stem}/bias", shift)], [result], options)


@lowers()
def l2_normalize(ctx: Context, node: Node) -> None:
    """x / max(|x|, eps), spelled out: L2_NORMALIZATION is not delegated."""
    value = node.inputs[0]
    assert value is not None
    perm = last(ctx, value, node.attrs["dim"])
    x = ctx.read(value, perm, as_float=True)
    reduced = (*x.shape[:-1], 1)
    square = _step(ctx, node, "MUL", [x, x], x.shape)
    total = ctx.temporary(f"{node.output.name}/total", reduced)
    axes = ctx.constant("axes", np.array([len(perm) - 1], np.int32))
    ctx.emit("SUM", [square, axes], [total], schema.ReducerOptionsT(keepDims=True))
    floor = ctx.constant("epsilon", np.array(node.attrs["eps"] ** 2, np.float32))
    inverse = _step(ctx, node, "RSQRT", [_step(ctx, node, "ADD", [total, floor], reduced)], reduced)
    result = ctx.write(node.output, perm, integer=False)
    ctx.emit("MUL", [x, inverse], [result], schema.MulOptionsT())
