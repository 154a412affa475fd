"""Comparisons, choice and the places of the largest: the runtime's own kernels, which XNNPACK leaves to it.

A truth is 1.0 or 0.0 between operators, a bool within one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.graph.ir import Node, QuantParams, Value
from edgekit.lower.tflite import layout
from edgekit.lower.tflite.attention import last
from edgekit.lower.tflite.builder import Tensor
from edgekit.lower.tflite.context import Context, lowers
from edgekit.lower.tflite.elementwise import operand
from edgekit.lower.tflite.layout import Perm

_FLOAT = schema.TensorType.FLOAT32


def _spread(ctx: Context, node: Node) -> Perm:
    """The layout of the largest operand of the result's rank."""
    rank = len(node.output.shape)
    whole = [v for v in node.operands if not v.is_constant and len(v.shape) == rank]
    return ctx.preferred(*whole) if whole else layout.identity(rank)


def _compare(ctx: Context, node: Node, builtin: str, options: Any) -> None:
    rank, perm = len(node.output.shape), _spread(ctx, node)
    sides = [operand(ctx, value, rank, perm, integer=False) for value in node.operands]
    found = ctx.temporary(f"{node.output.name}/truth", layout.apply(perm, node.output.shape), "bool")
    ctx.emit(builtin, list(sides), [found], options)
    result = ctx.write(node.output, perm, integer=False)
    ctx.emit("CAST", [found], [result], schema.CastOptionsT(schema.TensorType.BOOL, _FLOAT))


@lowers()
def greater(ctx: Context, node: Node) -> None:
    _compare(ctx, node, "GREATER", schema.GreaterOptionsT())


@lowers()
def greater_equal(ctx: Context, node: Node) -> None:
    _compare(ctx, node, "GREATER_EQUAL", schema.GreaterEqualOptionsT())


@lowers()
def equal(ctx: Context, node: Node) -> None:
    _compare(ctx, node, "EQUAL", schema.EqualOptionsT())


@lowers()
def where(ctx: Context, node: Node) -> None:
    """SELECT_V2; what is chosen between is read as float, since both may lie on grids of their own."""
    condition, a, b = node.operands
    rank, perm = len(node.output.shape), _spread(ctx, node)
    asked = operand(ctx, condition, rank, perm, integer=False)
    chosen = ctx.temporary(f"{node.output.name}/chosen", asked.shape, "bool")
    zero = ctx.constant("zero", np.array(0.0, np.float32))
    ctx.emit("NOT_EQUAL", [asked, zero], [chosen], schema.NotEqualOptionsT())
    sides = [operand(ctx, value, rank, perm, integer=False) for value in (a, b)]
    ctx.emit(
        "SELECT_V2",
        [chosen, *sides],
        [ctx.write(node.output, perm, integer=False)],
        schema.SelectV2OptionsT(),
    )


def _whole(ctx: Context, value: Value, tensor: Tensor, perm: Perm) -> None:
    """`value` is the int32 `tensor`, as floats."""
    result = ctx.write(value, perm, integer=False)
    ctx.emit("CAST", [tensor], [result], schema.CastOptionsT(schema.TensorType.INT32, _FLOAT))


@lowers()
def argmax(ctx: Context, node: Node) -> None:
    """ARG_MAX, which compares int8 as well as floats and takes the first of equals."""
    value = node.operands[0]
    rank, perm = len(value.shape), ctx.perm(value)
    dim = node.attrs["dim"] % rank
    x = ctx.read(value, perm, as_float=value.quant is not None and value.quant.dtype != "int8")
    axis = ctx.constant("axis", np.array(perm.index(dim), np.int32))
    left = [d for d in range(rank) if d != dim]
    shape = tuple(value.shape[d] for d in perm if d != dim)
    found = ctx.temporary(f"{node.output.name}/place", shape, "int32")
    ctx.emit("ARG_MAX", [x, axis], [found], schema.ArgMaxOptionsT(schema.TensorType.INT32))
    if not node.attrs["keepdim"]:
        _whole(ctx, node.output, found, tuple(left.index(d) for d in perm if d != dim))
        return
    wide = ctx.temporary(f"{node.output.name}/kept", layout.apply(perm, node.output.shape), "int32")
    ctx.reshape(found, wide)
    _whole(ctx, node.output, wide, perm)


def _topk(ctx: Context, node: Node, quant: QuantParams | None) -> tuple[Tensor, Tensor, Perm]:
    """TOPK_V2 over the last stored dimension: values with these parameters, int32 indices, their layout."""
    value = node.operands[0]
    perm = last(ctx, value, node.attrs["dim"])
    x = ctx.read_as(value, quant, perm)
    shape = layout.apply(perm, node.output.shape)
    values = ctx.like(x, f"{node.output.name}/values", shape)
    places = ctx.temporary(f"{node.output.name}/places", shape, "int32")
    count = ctx.constant("k", np.array(node.attrs["k"], np.int32))
    ctx.emit("TOPK_V2", [x, count], [values, places], schema.TopKV2OptionsT())
    return values, places, perm


@lowers()
def topk(ctx: Context, node: Node) -> None:
    values, _, perm = _topk(ctx, node, node.output.quant)
    ctx.alias(node.output, values, perm)


@lowers()
def topk_indices(ctx: Context, node: Node) -> None:
    _, places, perm = _topk(ctx, node, node.operands[0].quant)
    _whole(ctx, node.output, places, perm)
