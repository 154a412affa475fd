"""Activations: one float operator, or a short chain, whose DEQUANTIZE and QUANTIZE come from the context.

In int8 the delegate folds the whole chain into a 256-entry table, exactly rounded, at the price of one pass
over the tensor whatever the function is. The integer builtins (HARD_SWISH, GELU, RELU... on int8) are not
delegated and up to 88 times slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.graph.ir import Node, QuantParams
from edgekit.lower.tflite import layout
from edgekit.lower.tflite.builder import Tensor
from edgekit.lower.tflite.context import Context, lowers

Step = tuple[str, list[Tensor], Any]  # builtin, further inputs, options


def chain(ctx: Context, node: Node, steps: Sequence[Step]) -> None:
    """Apply builtins one after the other to the node's first input, in float."""
    value = node.inputs[0]
    assert value is not None
    perm = ctx.perm(value)
    x = ctx.read(value, perm, as_float=True)
    result = ctx.write(node.output, perm, integer=False)
    for i, (name, others, options) in enumerate(steps):
        last = i == len(steps) - 1
        step = result if last else ctx.temporary(f"{node.output.name}/step", x.shape)
        ctx.emit(name, [x, *others], [step], options)
        x = step


def scalar(ctx: Context, number: float) -> Tensor:
    return ctx.constant("scalar", np.array(number, np.float32))


@lowers()
def relu(ctx: Context, node: Node) -> None:
    chain(ctx, node, [("RELU", [], None)])


@lowers()
def relu6(ctx: Context, node: Node) -> None:
    chain(ctx, node, [("RELU6", [], None)])


@lowers()
def hardswish(ctx: Context, node: Node) -> None:
    chain(ctx, node, [("HARD_SWISH", [], schema.HardSwishOptionsT())])


@lowers()
def hardsigmoid(ctx: Context, node: Node) -> None:
    """relu6(x + 3) / 6: the runtime has no operator of its own for it."""
    kinds = schema.ActivationFunctionType
    steps = [
        ("ADD", [scalar(ctx, 3.0)], schema.AddOptionsT(fusedActivationFunction=kinds.RELU6)),
        ("MUL", [scalar(ctx, 1.0 / 6.0)], schema.MulOptionsT()),
    ]
    chain(ctx, node, steps)


@lowers()
def sigmoid(ctx: Context, node: Node) -> None:
    chain(ctx, node, [("LOGISTIC", [], None)])


@lowers()
def tanh(ctx: Context, node: Node) -> None:
    chain(ctx, node, [("TANH", [], None)])


@lowers()
def gelu(ctx: Context, node: Node) -> None:
    approximate = node.attrs.get("approximate", "none") == "tanh"
    chain(ctx, node, [("GELU", [], schema.GeluOptionsT(approximate=approximate))])


@lowers()
def elu(ctx: Context, node: Node) -> None:
    """ELU, which has alpha 1; another alpha scales what is negative afterwards."""
    alpha = float(node.attrs.get("alpha", 1.0))
    steps: list[Step] = [("ELU", [], None)]
    if alpha != 1.0:
        steps.append(("LEAKY_RELU", [], schema.LeakyReluOptionsT(alpha=alpha)))
    chain(ctx, node, steps)


@lowers()
def leaky_relu(ctx: Context, node: Node) -> None:
    options = schema.LeakyReluOptionsT(alpha=node.attrs["negative_slope"])
    chain(ctx, node, [("LEAKY_RELU", [], options)])


@lowers()
def clamp(ctx: Context, node: Node) -> None:
    bounds = (node.attrs["low"], node.attrs["high"])
    value = node.inputs[0]
    assert value is not None
    if value.quant is not None and value.quant == node.output.quant and within(value.quant, *bounds):
        ctx.alias(node.output, ctx.read(value), ctx.perm(value))
        return
    known = {(0.0, 6.0): "RELU6", (0.0, None): "RELU", (-1.0, 1.0): "RELU_N1_TO_1", (0.0, 1.0): "RELU_0_TO_1"}
    if bounds in known:
        chain(ctx, node, [(known[bounds], [], None)])
        return
    low, high = bounds
    options = schema.MaximumMinimumOptionsT()
    steps: list[Step] = []
    if low is not None:
        steps.append(("MAXIMUM", [scalar(ctx, low)], options))
    if high is not None:
        steps.append(("MINIMUM", [scalar(ctx, high)], options))
    chain(ctx, node, steps)


def within(quant: QuantParams, low: float | None, high: float | None) -> bool:
    """Whether no integer of these parameters lies outside the bounds by a tenth of a step."""
    smallest, largest = (-128, 127) if quant.dtype == "int8" else (-32768, 32767)
    step, zero = quant.scale[0], quant.zero_point[0]
    return (low is None or (smallest - zero) * step >= low - step / 10) and (
        high is None or (largest - zero) * step <= high + step / 10
    )


@lowers()
def abs_(ctx: Context, node: Node) -> None:
    chain(ctx, node, [("ABS", [], schema.AbsOptionsT())])


@lowers()
def neg(ctx: Context, node: Node) -> None:
    chain(ctx, node, [("NEG", [], schema.NegOptionsT())])


@lowers()
def exp(ctx: Context, node: Node) -> None:
    chain(ctx, node, [("EXP", [], schema.ExpOptionsT())])


@lowers()
def log(ctx: Context, node: Node) -> None:
    chain(ctx, node, [("LOG", [], None)])


@lowers()
def sqrt(ctx: Context, node: Node) -> None:
    chain(ctx, node, [("SQRT", [], None)])


@lowers()
def rsqrt(ctx: Context, node: Node) -> None:
    chain(ctx, node, [("RSQRT", [], None)])


@lowers()
def floor(ctx: Context, node: Node) -> None:
    chain(ctx, node, [("FLOOR", [], None)])


@lowers()
def ceil(ctx: Context, node: Node) -> None:
    chain(ctx, node, [("CEIL", [], None)])


@lowers()
def round_(ctx: Context, node: Node) -> None:
    """ROUND takes halves to the even number, as torch does."""
    chain(ctx, node, [("ROUND", [], None)])


@lowers()
def sign(ctx: Context, node: Node) -> None:
    chain(ctx, node, [("SIGN", [], None)])


@lowers()
def sin(ctx: Context, node: Node) -> None:
    chain(ctx, node, [("SIN", [], None)])


@lowers()
def cos(ctx: Context, node: Node) -> None:
    chain(ctx, node, [("COS", [], schema.CosOptionsT())])


@lowers()
def pow_(ctx: Context, node: Node) -> None:
    """Squares, roots and their inverses have operators that are delegated; the rest is POW."""
    known = {2.0: "SQUARE", 0.5: "SQRT", -0.5: "RSQRT"}
    exponent = float(node.attrs["exponent"])
    if exponent in known:
        chain(
            ctx,
            node,
            [(known[exponent], [], schema.SquareOptionsT() if known[exponent] == "SQUARE" else None)],
        )
    else:
        chain(ctx, node, [("POW", [scalar(ctx, exponent)], schema.PowOptionsT())])


@lowers()
def silu(ctx: Context, node: Node) -> None:
    """x * sigmoid(x) in float; `prepare` splits quantized ones, so that each half has a fast form."""
    _gated(ctx, node, [("LOGISTIC", [], None)])


@lowers()
def softplus(ctx: Context, node: Node) -> None:
    """max(x, 0) + log(1 + exp(-|x|)), which does not overflow."""
    value = node.inputs[0]
    assert value is not None
    perm = ctx.perm(value)
    x = small = ctx.read(value, perm, as_float=True)
    steps: list[Step] = [
        ("ABS", [], schema.AbsOptionsT()),
        ("NEG", [], schema.NegOptionsT()),
        ("EXP", [], schema.ExpOptionsT()),
        ("ADD", [scalar(ctx, 1.0)], schema.AddOptionsT()),
        ("LOG", [], None),
    ]
    for name, others, options in steps:
        step = ctx.temporary(f"{node.output.name}/bend", x.shape)
        ctx.emit(name, [small, *others], [step], options)
        small = step
    line = ctx.temporary(f"{node.output.name}/line", x.shape)
    ctx.emit("RELU", [x], [line])
    ctx.emit("ADD", [line, small], [ctx.write(node.output, perm, integer=False)], schema.AddOptionsT())


@lowers()
def mish(ctx: Context, node: Node) -> None:
    """x * tanh(log(1 + exp(x)))."""
    softplus = [
        ("EXP", [], schema.ExpOptionsT()),
        ("ADD", [scalar(ctx, 1.0)], schema.AddOptionsT()),
        ("LOG", [], None),
    ]
    _gated(ctx, node, [*softplus, ("TANH", [], None)])


def _gated(ctx: Context, node: Node, steps: Sequence[Step]) -> None:
    value = node.inputs[0]
    assert value is not None
    perm = ctx.perm(value)
    x = gate = ctx.read(value, perm, as_float=True)
    for name, others, options in steps:
        step = ctx.temporary(f"{node.output.name}/gate", x.shape)
        ctx.emit(name, [gate, *others], [step], options)
        gate = step
    result = ctx.write(node.output, perm, integer=False)
    ctx.emit("MUL", [x, gate], [result], schema.MulOptionsT())


@lowers()
def prelu(ctx: Context, node: Node) -> None:
    """PRELU in float, its slopes (C,) along the stored channel dimension."""
    value, slopes = node.inputs
    assert value is not None and slopes is not None and slopes.data is not None
    perm = ctx.perm(value)
    rank = len(value.shape)
    shape = [1] * rank
    shape[1 if rank > 1 else 0] = slopes.data.numel()
    alpha = slopes.data.detach().numpy().reshape(shape).transpose(perm).reshape(layout.apply(perm, shape)[1:])
    x = ctx.read(value, perm, as_float=True)
    result = ctx.write(node.output, perm, integer=False)
    ctx.emit("PRELU", [x, ctx.weight(slopes.name, alpha)], [result])
