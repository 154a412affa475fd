"""Importers of arithmetic, element by element."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from edgekit.capture.builder import Unsupported
from edgekit.capture.torch.registry import aten, importer, overloads
from edgekit.graph.ir import Value

if TYPE_CHECKING:
    from edgekit.capture.builder import Builder


def unary(op: str, *names: str) -> None:
    """Import these operators, by name, as the graph's `op` of one operand."""
    importer(*overloads(*names))(lambda imp, x: imp.emit(op, (x,)))


unary("abs", "abs", "abs_")
unary("neg", "neg", "neg_")
unary("exp", "exp", "exp_")
unary("log", "log", "log_")
unary("sqrt", "sqrt", "sqrt_")
unary("rsqrt", "rsqrt", "rsqrt_")


def scaled(imp: Builder, x: Any, factor: float) -> Any:
    """x * factor, and x itself for a factor of 1."""
    if factor == 1:
        return x
    return x * factor if not isinstance(x, Value) else imp.emit("mul", (x, float(factor)))


def _binary_op(imp: Builder, op: str, a: Any, b: Any, alpha: float) -> Value:
    return imp.emit(op, (a, scaled(imp, b, alpha)))


def binary(op: str, *names: str) -> None:
    """Import these operators as the graph's `op` of two operands."""
    importer(*overloads(*names))(lambda imp, a, b, alpha=1: _binary_op(imp, op, a, b, alpha))


binary("add", "add.Tensor", "add_.Tensor", "add.Scalar", "add_.Scalar")
binary("sub", "sub.Tensor", "sub_.Tensor", "sub.Scalar", "sub_.Scalar")
binary("mul", "mul.Tensor", "mul_.Tensor", "mul.Scalar", "mul_.Scalar")
binary("div", "div.Tensor", "div_.Tensor", "div.Scalar", "div_.Scalar")
binary("maximum", "maximum", "max.other", "fmax")
binary("minimum", "minimum", "min.other", "fmin")


@importer(aten.rsub.Scalar, aten.rsub.Tensor)
def rsub(imp: Builder, a, b, alpha=1):
    """b - alpha * a."""
    return _binary_op(imp, "sub", b, a, alpha)


@importer(*overloads("reciprocal", "reciprocal_"))
def reciprocal(imp: Builder, x):
    return imp.emit("div", (1.0, x))


@importer(*overloads("square", "square_"))
def square(imp: Builder, x):
    return imp.emit("mul", (x, x))


@importer(*overloads("pow.Tensor_Scalar", "pow_.Scalar"))
def power(imp: Builder, x, exponent):
    return imp.emit("mul", (x, x)) if exponent == 2 else imp.emit("pow", (x,), exponent=float(exponent))


@importer(*overloads("pow.Tensor_Tensor", "pow.Scalar", "pow_.Tensor"))
def power_of(imp: Builder, base, exponent):
    """A number to a power that is computed, base ** x = exp(x log(base)); no other."""
    number = float(base) if not isinstance(base, Value) and torch.as_tensor(base).numel() == 1 else 0.0
    if not isinstance(base, Value) and number > 0:
        return imp.emit("exp", (imp.emit("mul", (exponent, math.log(number))),))
    if not isinstance(exponent, Value) and torch.as_tensor(exponent).numel() == 1:
        return power(imp, base, float(exponent))
    raise Unsupported("a power whose exponent depends on the input (a number)")


@importer(*overloads("log1p", "log1p_"))
def log1p(imp: Builder, x):
    return imp.emit("log", (imp.emit("add", (x, 1.0)),))


@importer(*overloads("expm1", "expm1_"))
def expm1(imp: Builder, x):
    return imp.emit("sub", (imp.emit("exp", (x,)), 1.0))


def _logarithm(base: float, *names: str) -> None:
    importer(*overloads(*names))(lambda imp, x: scaled(imp, imp.emit("log", (x,)), 1.0 / math.log(base)))


_logarithm(2.0, "log2", "log2_")
_logarithm(10.0, "log10", "log10_")


@importer(*overloads("exp2", "exp2_"))
def exp2(imp: Builder, x):
    return power_of(imp, 2.0, x)


# several at once
@importer(*overloads("addcmul", "addcmul_"))
def addcmul(imp: Builder, x, a, b, *, value=1):
    """x + value * a * b."""
    return imp.emit("add", (x, scaled(imp, imp.emit("mul", (a, b)), value)))


@importer(*overloads("addcdiv", "addcdiv_"))
def addcdiv(imp: Builder, x, a, b, *, value=1):
    """x + value * a / b."""
    return imp.emit("add", (x, scaled(imp, imp.emit("div", (a, b)), value)))


@importer(*overloads("lerp.Scalar", "lerp.Tensor", "lerp_.Scalar", "lerp_.Tensor"))
def lerp(imp: Builder, a, b, weight):
    """a + weight * (b - a)."""
    return imp.emit("add", (a, imp.emit("mul", (imp.emit("sub", (b, a)), weight))))


@importer(*overloads("clamp", "clamp_", "clip", "clip_"))
def clamp(imp: Builder, x, low=None, high=None):
    if low == 0 and high == 6:
        return imp.emit("relu6", (x,))
    if low == 0 and high is None:
        return imp.emit("relu", (x,))
    return imp.emit("clamp", (x,), low=low, high=high)


@importer(*overloads("hardtanh", "hardtanh_"))
def hardtanh(imp: Builder, x, low=-1.0, high=1.0):
    return clamp(imp, x, low, high)


@importer(*overloads("clamp_max", "clamp_max_"))
def clamp_max(imp: Builder, x, high):
    return clamp(imp, x, None, high)


@importer(*overloads("clamp_min", "clamp_min_"))
def clamp_min(imp: Builder, x, low):
    return clamp(imp, x, low, None)


@importer(*overloads("clamp.Tensor", "clamp_min.Tensor", "clip.Tensor"))
def clamp_between(imp: Builder, x, low=None, high=None):
    """Bounds that are tensors."""
    y = x if low is None else imp.emit("maximum", (x, low))
    return y if high is None else imp.emit("minimum", (y, high))


@importer(*overloads("clamp_max.Tensor"))
def clamp_below(imp: Builder, x, high):
    return imp.emit("minimum", (x, high))
