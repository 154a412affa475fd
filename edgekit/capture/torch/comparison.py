"""Importers of comparisons, logic and choice: a truth is 1.0, a falsehood 0.0."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from edgekit.capture.builder import Unsupported
from edgekit.capture.torch.elementwise import unary
from edgekit.capture.torch.registry import importer, overloads
from edgekit.graph.ir import Value

if TYPE_CHECKING:
    from edgekit.capture.builder import Builder

MASKED = (
    -100.0
)  # instead of minus infinity before a softmax: exp(-100) is nothing, and an int8 range holds it
_VAST = -1e4  # what models write for minus infinity, and all below it

unary("floor", "floor", "floor_")
unary("ceil", "ceil", "ceil_")
unary("round", "round", "round_")
unary("sign", "sign", "sign_", "sgn")
unary("sin", "sin", "sin_")
unary("cos", "cos", "cos_")


def _compare(name: str, op: str, *, swapped: bool = False, turned: bool = False) -> None:
    def fn(imp: Builder, a, b):
        found = imp.emit(op, (b, a) if swapped else (a, b))
        return opposite(imp, found) if turned else found

    importer(*overloads(f"{name}.Scalar", f"{name}.Tensor"))(fn)


def opposite(imp: Builder, x: Any) -> Value:
    """1 - x."""
    return imp.emit("sub", (1.0, x))


_compare("gt", "greater")
_compare("lt", "greater", swapped=True)
_compare("ge", "greater_equal")
_compare("le", "greater_equal", swapped=True)
_compare("eq", "equal")
_compare("ne", "equal", turned=True)


# logic of numbers that are 0 or 1
def _is_bool(imp: Builder, index: int) -> bool:
    """Whether the operator's argument was boolean in torch."""
    given = imp.args[index]
    meta = given.meta.get("val") if hasattr(given, "meta") else given
    return isinstance(meta, bool) or getattr(meta, "dtype", None) == torch.bool


def truth(imp: Builder, x: Any, index: int) -> Any:
    """`x`, the operator's argument `index`, as 0 or 1."""
    if _is_bool(imp, index):
        return x
    if not isinstance(x, Value):
        return (torch.as_tensor(x) != 0).float()
    return opposite(imp, imp.emit("equal", (x, 0.0)))


def _logic(op: str, *names: str) -> None:
    def fn(imp: Builder, a, b):
        return imp.emit(op, (truth(imp, a, 0), truth(imp, b, 1)))

    importer(*overloads(*names))(fn)


_logic("mul", "logical_and", "logical_and_")
_logic("maximum", "logical_or", "logical_or_")


def _bitwise(op: str, *names: str) -> None:
    def fn(imp: Builder, a, b):
        if not (_is_bool(imp, 0) and _is_bool(imp, 1)):
            raise Unsupported("bitwise operators of whole numbers (of booleans)")
        return imp.emit(op, (a, b))

    importer(*overloads(*names))(fn)


_bitwise("mul", "bitwise_and.Tensor", "__and__.Tensor", "bitwise_and_.Tensor", "bitwise_and.Scalar")
_bitwise("maximum", "bitwise_or.Tensor", "__or__.Tensor", "bitwise_or_.Tensor", "bitwise_or.Scalar")


@importer(*overloads("logical_xor", "bitwise_xor.Tensor", "__xor__.Tensor"))
def logical_xor(imp: Builder, a, b):
    return opposite(imp, imp.emit("equal", (truth(imp, a, 0), truth(imp, b, 1))))


@importer(*overloads("logical_not", "bitwise_not"))
def logical_not(imp: Builder, x):
    return opposite(imp, truth(imp, x, 0))


# choice
@importer(*overloads("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar"))
def where(imp: Builder, condition, a, b):
    if not isinstance(condition, Value):
        condition = condition.float()
    if _is_vast(a) and isinstance(b, Value):
        return _hidden(imp, b, condition)
    if _is_vast(b) and isinstance(a, Value):
        kept = opposite(imp, condition) if isinstance(condition, Value) else 1.0 - condition
        return _hidden(imp, a, kept)
    return imp.emit("where", (condition, a, b))


def _hidden(imp: Builder, x: Value, mask: Any) -> Value:
    """`x`, so low that a softmax gives it nothing, where the mask is 1."""
    drop = imp.emit("mul", (mask, MASKED)) if isinstance(mask, Value) else mask * MASKED
    return imp.emit("add", (x, drop))


def _is_vast(x: Any) -> bool:
    return not isinstance(x, Value) and bool((torch.as_tensor(x) <= _VAST).all())


@importer(
    *overloads("masked_fill.Scalar", "masked_fill.Tensor", "masked_fill_.Scalar", "masked_fill_.Tensor")
)
def masked_fill(imp: Builder, x, mask, value):
    return where(imp, mask, value, x)


# rounding that is not to the nearest
def truncated(imp: Builder, x: Any) -> Value:
    """Towards zero: sign(x) * floor(|x|)."""
    whole = imp.emit("floor", (imp.emit("abs", (x,)),))
    return imp.emit("mul", (whole, imp.emit("sign", (x,))))


@importer(*overloads("trunc", "trunc_", "fix"))
def trunc(imp: Builder, x):
    return truncated(imp, x)


@importer(*overloads("frac"))
def frac(imp: Builder, x):
    return imp.emit("sub", (x, truncated(imp, x)))


@importer(*overloads("div.Tensor_mode", "div.Scalar_mode", "div_.Tensor_mode"))
def div_rounded(imp: Builder, a, b, *, rounding_mode=None):
    quotient = imp.emit("div", (a, b))
    if rounding_mode is None:
        return quotient
    return imp.emit("floor", (quotient,)) if rounding_mode == "floor" else truncated(imp, quotient)


@importer(*overloads("floor_divide", "floor_divide.Scalar"))
def floor_divide(imp: Builder, a, b):
    return imp.emit("floor", (imp.emit("div", (a, b)),))


@importer(*overloads("remainder.Scalar", "remainder.Tensor"))
def remainder(imp: Builder, a, b):
    """a - b * floor(a / b)."""
    return imp.emit("sub", (a, imp.emit("mul", (floor_divide(imp, a, b), b))))


@importer(*overloads("fmod.Scalar", "fmod.Tensor"))
def fmod(imp: Builder, a, b):
    """a - b * trunc(a / b)."""
    return imp.emit("sub", (a, imp.emit("mul", (truncated(imp, imp.emit("div", (a, b))), b))))
