"""Importers of activations. Those without an op of their own are written in the ops there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgekit.capture.builder import Unsupported
from edgekit.capture.torch.elementwise import scaled, unary
from edgekit.capture.torch.reduction import sum_of
from edgekit.capture.torch.registry import aten, importer, overloads, positive
from edgekit.graph.ir import Value

if TYPE_CHECKING:
    from edgekit.capture.builder import Builder

_LINEAR_FROM = 14.0  # log(1 + exp(x)) - x is below a float's step there

unary("relu", "relu", "relu_")
unary("relu6", "relu6", "relu6_")
unary("hardswish", "hardswish", "hardswish_")
unary("hardsigmoid", "hardsigmoid", "hardsigmoid_")
unary("sigmoid", "sigmoid", "sigmoid_")
unary("silu", "silu", "silu_")
unary("tanh", "tanh", "tanh_")
unary("mish", "mish", "mish_")


@importer(*overloads("gelu", "gelu_"))
def gelu(imp: Builder, x, *, approximate="none"):
    return imp.emit("gelu", (x,), approximate=approximate)


@importer(*overloads("elu", "elu_"))
def elu(imp: Builder, x, alpha=1.0, scale=1.0, input_scale=1.0):
    """scale * elu(x), the negative side of which is alpha * (exp(input_scale * x) - 1)."""
    if input_scale == 1:
        return scaled(imp, imp.emit("elu", (x,), alpha=float(alpha)), scale)
    y = imp.emit("elu", (scaled(imp, x, input_scale),), alpha=float(alpha) * float(input_scale))
    return scaled(imp, y, float(scale) / float(input_scale))


@importer(*overloads("selu", "selu_"))
def selu(imp: Builder, x):
    return elu(imp, x, 1.67326319217681884765625, 1.05070102214813232421875)


@importer(*overloads("celu", "celu_"))
def celu(imp: Builder, x, alpha=1.0):
    """max(0, x) + min(0, alpha * (exp(x / alpha) - 1))."""
    return elu(imp, x, alpha, 1.0, 1.0 / float(alpha))


@importer(*overloads("leaky_relu", "leaky_relu_"))
def leaky_relu(imp: Builder, x, negative_slope=0.01):
    return imp.emit("leaky_relu", (x,), negative_slope=float(negative_slope))


@importer(*overloads("rrelu", "rrelu_"))
def rrelu(imp: Builder, x, low=0.125, high=1 / 3, training=False, generator=None):
    """In eval mode the slope is the mean of both."""
    return leaky_relu(imp, x, (float(low) + float(high)) / 2)


@importer(aten.prelu.default)
def prelu(imp: Builder, x, weight):
    return imp.emit("prelu", (x, weight))


@importer(aten.softplus.default)
def softplus(imp: Builder, x, beta=1, threshold=20):
    """log(1 + exp(beta * x)) / beta; above the threshold torch takes x, which is the same number."""
    if threshold < _LINEAR_FROM:
        raise Unsupported(f"softplus with a threshold of {threshold} (at least {_LINEAR_FROM:.0f})")
    return scaled(imp, imp.emit("softplus", (scaled(imp, x, beta),)), 1.0 / float(beta))


@importer(*overloads("log_sigmoid"))
def log_sigmoid(imp: Builder, x):
    """-softplus(-x)."""
    return imp.emit("neg", (imp.emit("softplus", (imp.emit("neg", (x,)),)),))


@importer(aten.log_sigmoid_forward.default)
def log_sigmoid_forward(imp: Builder, x):
    return log_sigmoid(imp, x), None


@importer(aten.glu.default)
def glu(imp: Builder, x, dim=-1):
    """One half gates the other."""
    dim = positive(dim, len(x.shape))
    half = x.shape[dim] // 2
    value, gate = imp.emit_many("split", (x,), sizes=(half, half), dim=dim)
    return imp.emit("mul", (value, imp.emit("sigmoid", (gate,))))


@importer(*overloads("threshold", "threshold_"))
def threshold(imp: Builder, x, threshold, value):
    """x above the threshold, `value` elsewhere."""
    if threshold == 0 and value == 0:
        return imp.emit("relu", (x,))
    return imp.emit("where", (imp.emit("greater", (x, float(threshold))), x, float(value)))


@importer(aten.hardshrink.default)
def hardshrink(imp: Builder, x, lambd=0.5):
    """x outside [-lambd, lambd], 0 within."""
    far = imp.emit("greater", (imp.emit("abs", (x,)), float(lambd)))
    return imp.emit("where", (far, x, 0.0))


@importer(aten.softshrink.default)
def softshrink(imp: Builder, x, lambd=0.5):
    """x less what lies within [-lambd, lambd] of it."""
    return imp.emit("sub", (x, imp.emit("clamp", (x,), low=-float(lambd), high=float(lambd))))


# over a dimension
@importer(aten.softmax.int, aten._softmax.default)
def softmax(imp: Builder, x, dim, dtype=None):
    return imp.emit("softmax", (x,), dim=positive(dim, len(x.shape)))


@importer(aten.log_softmax.int, aten._log_softmax.default)
def log_softmax(imp: Builder, x, dim, dtype=None):
    """x - max - log(sum(exp(x - max)))."""
    shifted, total = _exponentials(imp, x, positive(dim, len(x.shape)))
    return imp.emit("sub", (shifted, imp.emit("log", (total,))))


@importer(aten.logsumexp.default)
def logsumexp(imp: Builder, x, dims, keepdim=False):
    if len(dims) != 1:
        raise Unsupported("logsumexp over several dimensions (one)")
    dim = positive(dims[0], len(x.shape))
    _, total = _exponentials(imp, x, dim)
    y = imp.emit("add", (imp.emit("log", (total,)), imp.emit("amax", (x,), dims=(dim,), keepdim=True)))
    return y if keepdim else imp.reshape(y, [d for i, d in enumerate(x.shape) if i != dim])


def _exponentials(imp: Builder, x: Any, dim: int) -> tuple[Value, Value]:
    """x less its largest, and the sum of the exponentials of that."""
    shifted = imp.emit("sub", (x, imp.emit("amax", (x,), dims=(dim,), keepdim=True)))
    return shifted, sum_of(imp, imp.emit("exp", (shifted,)), (dim,), True)
