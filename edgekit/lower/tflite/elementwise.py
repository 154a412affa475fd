"""Arithmetic of two tensors with broadcasting; integer where the runtime's integer form is delegated."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.graph.ir import Node, QuantParams, Value
from edgekit.lower.tflite import constants, layout
from edgekit.lower.tflite.builder import Tensor
from edgekit.lower.tflite.context import Context, lowers
from edgekit.lower.tflite.layout import Perm

SHORT_ROW = 64  # channels up to which a gate is multiplied several pixels at a time


def operand(
    ctx: Context, value: Value, rank: int, perm: Perm, *, integer: bool, dtype: str = "int8"
) -> Tensor:
    """`value`, broadcast from the right to `rank` dimensions, in layout `perm`.

    dtype: of the integers of a constant that has no parameters.
    """
    missing = rank - len(value.shape)
    if value.is_constant:
        data = constants.as_numpy(value)
        data = data.reshape((1,) * missing + data.shape).transpose(perm)
        if not integer:
            return ctx.constant(value.name, data)
        quant = value.quant or scalar_parameters(data, dtype)
        return ctx.constant(value.name, constants.quantize(data, quant), quant)
    if not missing:
        return ctx.read(value, perm, as_float=not integer)
    tensor = ctx.read(value, layout.identity(len(value.shape)), as_float=not integer)
    full = (1,) * missing + value.shape
    widened = ctx.like(tensor, f"{value.name}/broadcast", full)
    ctx.reshape(tensor, widened)
    if layout.moves_nothing(full, layout.identity(rank), perm):
        turned = ctx.like(widened, f"{value.name}/broadcast", layout.apply(perm, full))
        ctx.reshape(widened, turned)
    else:
        turned = ctx.like(widened, f"{value.name}/broadcast", layout.apply(perm, full))
        ctx.transpose(widened, turned, perm, value.name)
    return turned


def scalar_parameters(data: np.ndarray, dtype: str = "int8") -> QuantParams:
    """Per-tensor parameters of a constant that calibration gave none; a single number is met exactly."""
    return constants.symmetric(data, None, dtype)


def _scale(value: Value) -> float:
    quant = value.quant or scalar_parameters(constants.as_numpy(value))
    return quant.scale[0]


def _scales_fit(builtin: str, a: float, b: float, out: float) -> bool:
    """Whether the delegate's integer kernel takes these scales; others are served in float."""
    if builtin == "MUL":
        return 2.0**-16 <= a * b / out < 2.0**8
    return all(2.0**-10 <= scale / out < 2.0**8 for scale in (a, b))


def binary(
    ctx: Context, node: Node, builtin: str, options: Any = None, *, integer_kernel: bool = False
) -> None:
    a, b = node.inputs
    assert a is not None and b is not None
    rank = len(node.output.shape)
    whole = [v for v in (a, b) if not v.is_constant and len(v.shape) == rank]
    perm = ctx.preferred(*whole) if whole else layout.identity(rank)
    integer = integer_kernel and ctx.integer(node, *(v for v in (a, b) if not v.is_constant))
    if integer and ctx.computes_in(node) == "int8":
        integer = _scales_fit(builtin, _scale(a), _scale(b), _scale(node.output))
    dtype = ctx.computes_in(node)
    tensors = [operand(ctx, v, rank, perm, integer=integer, dtype=dtype) for v in (a, b)]
    result = ctx.write(node.output, perm, integer=integer)
    if integer and builtin == "MUL" and _gated(tensors):
        _in_longer_rows(ctx, tensors, result, options)
    else:
        ctx.emit(builtin, list(tensors), [result], options)


def _gated(tensors: list[Tensor]) -> bool:
    """Whether one operand is a short row (1, 1, 1, C) for every pixel (1, H, W, C) of the other."""
    image, gate = sorted(tensors, key=lambda t: -int(np.prod(t.shape)))
    return (
        len(image.shape) == 4
        and gate.shape == (1, 1, 1, image.shape[3])
        and image.shape[3] <= SHORT_ROW
        and image.shape[2] % 2 == 0
        and gate.data is None
    )


def _in_longer_rows(ctx: Context, tensors: list[Tensor], result: Tensor, options: Any) -> None:
    """The same product over two or four pixels at a time: rows of few channels are all overhead."""
    image, gate = sorted(tensors, key=lambda t: -int(np.prod(t.shape)))
    n, h, w, c = image.shape
    pixels = 4 if w % 4 == 0 else 2
    rows = ctx.like(image, f"{result.name}/rows", (n, h, w // pixels, c * pixels))
    gates = ctx.like(gate, f"{result.name}/gates", (1, 1, 1, c * pixels))
    product = ctx.like(result, f"{result.name}/product", rows.shape)
    ctx.reshape(image, rows)
    ctx.emit("CONCATENATION", [gate] * pixels, [gates], schema.ConcatenationOptionsT(axis=3))
    ctx.emit("MUL", [rows, gates], [product], options)
    ctx.reshape(product, result)


@lowers()
def add(ctx: Context, node: Node) -> None:
    code = constants.fused(node.attrs.get("activation"))
    binary(ctx, node, "ADD", schema.AddOptionsT(fusedActivationFunction=code), integer_kernel=True)


@lowers()
def sub(ctx: Context, node: Node) -> None:
    code = constants.fused(node.attrs.get("activation"))
    binary(ctx, node, "SUB", schema.SubOptionsT(fusedActivationFunction=code), integer_kernel=True)


@lowers()
def mul(ctx: Context, node: Node) -> None:
    code = constants.fused(node.attrs.get("activation"))
    binary(ctx, node, "MUL", schema.MulOptionsT(fusedActivationFunction=code), integer_kernel=True)


@lowers()
def div(ctx: Context, node: Node) -> None:
    code = constants.fused(node.attrs.get("activation"))
    binary(ctx, node, "DIV", schema.DivOptionsT(fusedActivationFunction=code))


@lowers()
def maximum(ctx: Context, node: Node) -> None:
    binary(ctx, node, "MAXIMUM", schema.MaximumMinimumOptionsT())


@lowers()
def minimum(ctx: Context, node: Node) -> None:
    binary(ctx, node, "MINIMUM", schema.MaximumMinimumOptionsT())
