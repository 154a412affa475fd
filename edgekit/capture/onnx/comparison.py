"""Importers of comparisons, logic, choice, rounding and the places of the largest.

A truth is 1.0, a falsehood 0.0, a place its index, all of them floats in the graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.capture.builder import Unsupported
from edgekit.capture.onnx.registry import OnnxNode, importer, integers, number, positive
from edgekit.graph.ir import Value

if TYPE_CHECKING:
    from edgekit.capture.onnx.builder import Builder

_MASKED = -100.0  # instead of minus infinity before a softmax, as boolean masks of attention
_VAST = -1e4


def _numbers(x: Any) -> Any:
    return x.astype(np.float32) if isinstance(x, np.ndarray) else x


def _compare(onnx_op: str, op: str, *, swapped: bool = False) -> None:
    def fn(imp: Builder, node: OnnxNode, a: Any, b: Any) -> Value:
        a, b = _numbers(a), _numbers(b)
        return imp.emit(op, (b, a) if swapped else (a, b))

    importer(onnx_op)(fn)


_compare("Greater", "greater")
_compare("GreaterOrEqual", "greater_equal")
_compare("Less", "greater", swapped=True)
_compare("LessOrEqual", "greater_equal", swapped=True)
_compare("Equal", "equal")
_compare("And", "mul")
_compare("Or", "maximum")


@importer("Not")
def logical_not(imp: Builder, node: OnnxNode, x: Any) -> Value:
    return imp.emit("sub", (1.0, x))


@importer("Xor")
def logical_xor(imp: Builder, node: OnnxNode, a: Any, b: Any) -> Value:
    return logical_not(imp, node, imp.emit("equal", (_numbers(a), _numbers(b))))


@importer("Where")
def where(imp: Builder, node: OnnxNode, condition: Any, a: Any, b: Any) -> Value:
    """What blinds a softmax, numbers near minus infinity, becomes a mask that is added."""
    condition = _numbers(condition)
    if _is_vast(a) and isinstance(b, Value):
        return _hidden(imp, b, condition)
    if _is_vast(b) and isinstance(a, Value):
        kept = 1.0 - condition if isinstance(condition, np.ndarray) else logical_not(imp, node, condition)
        return _hidden(imp, a, kept)
    return imp.emit("where", (condition, a, b))


def _is_vast(x: Any) -> bool:
    return isinstance(x, np.ndarray) and bool((x <= _VAST).all())


def _hidden(imp: Builder, x: Value, mask: Any) -> Value:
    drop = mask * np.float32(_MASKED) if isinstance(mask, np.ndarray) else imp.emit("mul", (mask, _MASKED))
    return imp.emit("add", (x, drop))


# places
def _place(imp: Builder, node: OnnxNode, x: Any) -> Value:
    if node.get("select_last_index", 0):
        raise Unsupported(f"{node.op} of the last of equals (the first)")
    dim = positive(int(node.get("axis", 0)), len(x.shape))
    return imp.emit("argmax", (x,), dim=dim, keepdim=bool(node.get("keepdims", 1)))


@importer("ArgMax")
def argmax(imp: Builder, node: OnnxNode, x: Any) -> Value:
    return _place(imp, node, x)


@importer("ArgMin")
def argmin(imp: Builder, node: OnnxNode, x: Any) -> Value:
    return _place(imp, node, imp.emit("neg", (x,)))


@importer("TopK")
def topk(imp: Builder, node: OnnxNode, x: Any, k: Any = None) -> tuple[Value, Value]:
    """k is an attribute up to opset 9, then an input."""
    (count,) = integers(node.get("k") if k is None else k, "k")
    attrs = {"k": count, "dim": positive(int(node.get("axis", -1)), len(x.shape))}
    if node.get("largest", 1):
        return imp.emit("topk", (x,), **attrs), imp.emit("topk_indices", (x,), **attrs)
    turned = imp.emit("neg", (x,))
    values = imp.emit("neg", (imp.emit("topk", (turned,), **attrs),))
    return values, imp.emit("topk_indices", (turned,), **attrs)


# rounding and thresholds
@importer("Mod")
def mod(imp: Builder, node: OnnxNode, a: Any, b: Any) -> Value:
    """a - b * floor(a / b); with fmod towards zero."""
    a, b = _numbers(a), _numbers(b)
    quotient = imp.emit("div", (a, b))
    if node.get("fmod", 0):
        whole = imp.emit(
            "mul", (imp.emit("floor", (imp.emit("abs", (quotient,)),)), imp.emit("sign", (quotient,)))
        )
    else:
        whole = imp.emit("floor", (quotient,))
    return imp.emit("sub", (a, imp.emit("mul", (whole, b))))


@importer("ThresholdedRelu")
def thresholded_relu(imp: Builder, node: OnnxNode, x: Any) -> Value:
    """x above alpha, 0 elsewhere."""
    return imp.emit("where", (imp.emit("greater", (x, float(node.get("alpha", 1.0)))), x, 0.0))


@importer("Shrink")
def shrink(imp: Builder, node: OnnxNode, x: Any) -> Value:
    """x - bias above lambd, x + bias below -lambd, 0 between."""
    bound, bias = float(node.get("lambd", 0.5)), float(node.get("bias", 0.0))
    if bias == bound:
        return imp.emit("sub", (x, imp.emit("clamp", (x,), low=-bound, high=bound)))
    nearer = imp.emit("sub", (x, imp.emit("mul", (imp.emit("sign", (x,)), bias)))) if bias else x
    return imp.emit("where", (imp.emit("greater", (imp.emit("abs", (x,)), bound)), nearer, 0.0))


@importer("Cast", "CastLike")
def cast(imp: Builder, node: OnnxNode, x: Any, like: Any = None) -> Any:
    """Between floats nothing happens, the graph computes in float32; whole numbers lose their fraction."""
    wanted = int(node.get("to", 1))
    if like is not None and not isinstance(like, Value):
        wanted = {"f": 1, "b": 9}.get(like.dtype.kind, 7)
    if wanted in (1, 10, 11, 16) or (isinstance(x, Value) and imp.is_whole(x) and wanted != 9):
        return x
    if wanted == 9:
        return imp.emit("sub", (1.0, imp.emit("equal", (x, 0.0))))
    if wanted not in (2, 3, 4, 5, 6, 7, 12, 13):  # uint8, int8, uint16, int16, int32, int64, uint32, uint64
        raise Unsupported(f"Cast to type {wanted} (floats, whole numbers, bool)")
    return imp.emit("mul", (imp.emit("floor", (imp.emit("abs", (x,)),)), imp.emit("sign", (x,))))


@importer("CumSum")
def cumsum(imp: Builder, node: OnnxNode, x: Any, axis: Any) -> Value:
    """A product with a triangle of ones along the last dimension."""
    rank, at = len(x.shape), number(axis)
    if at is None:
        raise Unsupported("an axis that depends on the input")
    dim = positive(int(at), rank)
    ones = np.ones((x.shape[dim], x.shape[dim]), np.float32)
    triangle = np.tril(ones, -1 if node.get("exclusive", 0) else 0)
    triangle = np.ascontiguousarray(triangle.T if node.get("reverse", 0) else triangle)
    order = (*(d for d in range(rank) if d != dim), dim)
    y = imp.emit("linear", (imp.emit("permute", (x,), dims=order), triangle, None))
    return imp.emit("permute", (y,), dims=tuple(order.index(d) for d in range(rank)))
