"""Importers of activations and element-wise arithmetic."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from edgekit.capture.builder import Unsupported
from edgekit.capture.onnx.builder import Builder, ErfTerm
from edgekit.capture.onnx.registry import OnnxNode, constant, importer, number, positive
from edgekit.graph.ir import Value


def _unary(onnx_op: str, op: str) -> None:
    importer(onnx_op)(lambda imp, node, x: imp.emit(op, (x,)))


for _onnx_op, _op in {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "HardSwish": "hardswish",
    "Mish": "mish",
    "Abs": "abs",
    "Neg": "neg",
    "Exp": "exp",
    "Log": "log",
    "Sqrt": "sqrt",
    "Softplus": "softplus",
    "Floor": "floor",
    "Ceil": "ceil",
    "Round": "round",
    "Sign": "sign",
    "Sin": "sin",
    "Cos": "cos",
}.items():
    _unary(_onnx_op, _op)


@importer("Clip")
def clip(imp: Builder, node: OnnxNode, x: Any, low: Any = None, high: Any = None) -> Value:
    """Bounds are attributes up to opset 10; float32's own bounds are none."""
    bounds = []
    for given, name in ((low, "min"), (high, "max")):
        if isinstance(given, Value):
            raise Unsupported("bounds that depend on the input")
        bound = number(given) if given is not None else node.get(name)
        bounds.append(None if bound is None or abs(bound) >= 3.4e38 else float(bound))
    if bounds == [0, 6]:
        return imp.emit("relu6", (x,))
    if bounds == [0, None]:
        return imp.emit("relu", (x,))
    return x if bounds == [None, None] else imp.emit("clamp", (x,), low=bounds[0], high=bounds[1])


@importer("HardSigmoid")
def hard_sigmoid(imp: Builder, node: OnnxNode, x: Any) -> Value:
    """clip(alpha * x + beta, 0, 1)."""
    alpha, beta = float(node.get("alpha", 0.2)), float(node.get("beta", 0.5))
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return imp.emit("hardsigmoid", (x,))
    line = imp.emit("add", (imp.emit("mul", (x, alpha)), beta))
    return imp.emit("clamp", (line,), low=0.0, high=1.0)


@importer("Gelu")
def gelu(imp: Builder, node: OnnxNode, x: Any) -> Value:
    return imp.emit("gelu", (x,), approximate=node.get("approximate", "none"))


@importer("Elu")
def elu(imp: Builder, node: OnnxNode, x: Any) -> Value:
    return imp.emit("elu", (x,), alpha=float(node.get("alpha", 1.0)))


@importer("Selu")
def selu(imp: Builder, node: OnnxNode, x: Any) -> Value:
    """gamma * elu(x, alpha)."""
    alpha = float(node.get("alpha", 1.67326319217681884765625))
    gamma = float(node.get("gamma", 1.05070102214813232421875))
    return imp.emit("mul", (imp.emit("elu", (x,), alpha=alpha), gamma))


@importer("Celu")
def celu(imp: Builder, node: OnnxNode, x: Any) -> Value:
    """max(0, x) + min(0, alpha * (exp(x / alpha) - 1))."""
    alpha = float(node.get("alpha", 1.0))
    scaled = imp.emit("mul", (x, 1.0 / alpha))
    return imp.emit("mul", (imp.emit("elu", (scaled,), alpha=1.0), alpha))


@importer("LeakyRelu")
def leaky_relu(imp: Builder, node: OnnxNode, x: Any) -> Value:
    return imp.emit("leaky_relu", (x,), negative_slope=float(node.get("alpha", 0.01)))


@importer("PRelu")
def prelu(imp: Builder, node: OnnxNode, x: Any, slope: Any) -> Value:
    slope = constant(slope, "slopes")
    aligned = (1,) * (len(x.shape) - slope.ndim) + slope.shape
    if slope.size != 1 and (len(aligned) < 2 or aligned[1] != slope.size):
        raise Unsupported(f"slopes of shape {slope.shape} (one, or one a channel)")
    return imp.emit("prelu", (x, slope.reshape(-1)))


@importer("Softsign")
def softsign(imp: Builder, node: OnnxNode, x: Any) -> Value:
    return imp.emit("div", (x, imp.emit("add", (imp.emit("abs", (x,)), 1.0))))


@importer("Softmax")
def softmax(imp: Builder, node: OnnxNode, x: Any) -> Value:
    flat, dim = _softmax_axis(imp, node, x)
    y = imp.emit("softmax", (flat,), dim=dim)
    return y if flat is x else imp.reshape(y, x.shape)


@importer("LogSoftmax")
def log_softmax(imp: Builder, node: OnnxNode, x: Any) -> Value:
    """x - max - log(sum(exp(x - max)))."""
    flat, dim = _softmax_axis(imp, node, x)
    shifted = imp.emit("sub", (flat, imp.emit("amax", (flat,), dims=(dim,), keepdim=True)))
    total = imp.emit("sum", (imp.emit("exp", (shifted,)),), dims=(dim,), keepdim=True)
    y = imp.emit("sub", (shifted, imp.emit("log", (total,))))
    return y if flat is x else imp.reshape(y, x.shape)


def _softmax_axis(imp: Builder, node: OnnxNode, x: Value) -> tuple[Value, int]:
    """Up to opset 12 the sum runs over every dimension from `axis` on."""
    rank = len(x.shape)
    if imp.opset >= 13:
        return x, positive(int(node.get("axis", -1)), rank)
    dim = positive(int(node.get("axis", 1)), rank)
    if math.prod(x.shape[dim + 1 :]) == 1:
        return x, dim
    return imp.reshape(x, (math.prod(x.shape[:dim]), math.prod(x.shape[dim:]))), 1


# arithmetic
@importer("Erf")
def erf(imp: Builder, node: OnnxNode, x: Any) -> Any:
    scaled = imp.scaled(x)
    if scaled is None or abs(scaled[1] * math.sqrt(2) - 1) > 1e-4:
        raise Unsupported("Erf (only within GELU)")
    return ErfTerm(scaled[0])


def _of_erf(imp: Builder, op: str, term: ErfTerm, other: Any) -> Any:
    factor = number(other)
    if op == "add" and factor == 1 and term == ErfTerm(term.x):
        return replace(term, plus_one=True)
    if op not in ("mul", "div"):
        raise Unsupported("Erf (only within GELU)")
    if factor is not None:
        term = replace(term, factor=term.factor * factor if op == "mul" else term.factor / factor)
    elif op == "mul" and (scaled := imp.scaled(other)) is not None and scaled[0] is term.x:
        term = replace(term, power=term.power + 1, factor=term.factor * scaled[1])
    elif op == "mul" and other is term.x:
        term = replace(term, power=term.power + 1)
    else:
        raise Unsupported("Erf (only within GELU)")
    if term.plus_one and term.power == 1 and abs(term.factor - 0.5) < 1e-6:
        return imp.emit("gelu", (term.x,), approximate="none")
    return term


def _binary(imp: Builder, op: str, a: Any, b: Any) -> Any:
    if isinstance(b, ErfTerm) and op in ("add", "mul"):
        a, b = b, a
    if isinstance(a, ErfTerm):
        return _of_erf(imp, op, a, b)
    if op in ("add", "mul", "maximum", "minimum") and not isinstance(a, Value):
        a, b = b, a  # passes look for constants on the right
    return imp.emit(op, (a, b))


for _onnx_op, _op in {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div"}.items():
    importer(_onnx_op)(lambda imp, node, a, b, op=_op: _binary(imp, op, a, b))


def _many(imp: Builder, op: str, xs: tuple[Any, ...]) -> Any:
    result = xs[0]
    for x in xs[1:]:
        result = _binary(imp, op, result, x)
    return result


for _onnx_op, _op in {"Sum": "add", "Max": "maximum", "Min": "minimum"}.items():
    importer(_onnx_op)(lambda imp, node, *xs, op=_op: _many(imp, op, xs))


@importer("Mean")
def mean(imp: Builder, node: OnnxNode, *xs: Any) -> Value:
    return imp.emit("mul", (_many(imp, "add", xs), 1.0 / len(xs)))


@importer("Reciprocal")
def reciprocal(imp: Builder, node: OnnxNode, x: Any) -> Value:
    return imp.emit("div", (1.0, x))


@importer("Pow")
def power(imp: Builder, node: OnnxNode, x: Any, exponent: Any) -> Value:
    value = number(exponent)
    if value is None or not isinstance(x, Value):
        raise Unsupported("an exponent that is not one number")
    return imp.emit("mul", (x, x)) if value == 2 else imp.emit("pow", (x,), exponent=value)


@importer("Identity")
def identity(imp: Builder, node: OnnxNode, x: Any) -> Any:
    return x


@importer("Dropout")
def dropout(imp: Builder, node: OnnxNode, x: Any, ratio: Any = None, training: Any = None) -> tuple[Any]:
    if training is not None and (isinstance(training, Value) or np.asarray(training).any()):
        raise Unsupported("Dropout in training mode")
    return (x,)
