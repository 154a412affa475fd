"""Importers of pools and reductions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgekit.capture.builder import Unsupported
from edgekit.capture.onnx.convolution import image, ints, on_row, window_pads
from edgekit.capture.onnx.registry import OnnxNode, importer, integers, positive
from edgekit.graph.ir import Value

if TYPE_CHECKING:
    from edgekit.capture.onnx.builder import Builder


def _window(node: OnnxNode, x: Value) -> dict[str, Any]:
    """Attributes of a pool whose borders count for nothing.

    A border only at the end is torch's ceil_mode: the windows that begin inside are clipped.
    """
    kernel, stride = ints(node, "kernel_shape", ()), ints(node, "strides", (1, 1))
    dilation = ints(node, "dilations", (1, 1))
    top, bottom, left, right = window_pads(node, x, kernel)
    ceil = bool(node.get("ceil_mode", 0))
    if (top, left) != (bottom, right):
        for low, high, size, k, s, d in zip(
            (top, left), (bottom, right), x.shape[2:], kernel, stride, dilation, strict=True
        ):
            reach = d * (k - 1) + 1
            plain = (size + low + high - reach) // s + 1
            clipped = -(-(size + 2 * low - reach) // s) + 1
            clipped -= (clipped - 1) * s >= size + low
            if plain != clipped:
                raise Unsupported(f"a padding of {low} before and {high} after")
        ceil = True
    attrs = {"kernel": kernel, "stride": stride, "padding": (top, left), "ceil_mode": ceil}
    return attrs


@importer("MaxPool")
@on_row
def max_pool(imp: Builder, node: OnnxNode, x: Any) -> tuple[Value, ...]:
    x = image(x)
    if len([o for o in node.outputs if o]) > 1:
        raise Unsupported("MaxPool with indices")
    attrs = _window(node, x)
    return (imp.emit("max_pool2d", (x,), dilation=ints(node, "dilations", (1, 1)), **attrs),)


@importer("AveragePool")
@on_row
def average_pool(imp: Builder, node: OnnxNode, x: Any) -> Value:
    x = image(x)
    if set(ints(node, "dilations", (1, 1))) != {1}:
        raise Unsupported("a dilated AveragePool")
    if not node.get("count_include_pad", 0):
        return imp.emit("avg_pool2d", (x,), count_include_pad=False, **_window(node, x))
    kernel = ints(node, "kernel_shape", ())
    top, bottom, left, right = window_pads(node, x, kernel)
    padding = (top, left)
    if padding != (bottom, right) or 2 * top > kernel[0] or 2 * left > kernel[1]:
        if node.get("ceil_mode", 0):
            raise Unsupported(f"ceil_mode with a padding of {(top, bottom, left, right)}")
        x = imp.emit("pad", (x,), pads=(left, right, top, bottom), mode="constant", value=0.0)
        padding = (0, 0)
    return imp.emit(
        "avg_pool2d",
        (x,),
        kernel=kernel,
        stride=ints(node, "strides", (1, 1)),
        padding=padding,
        ceil_mode=bool(node.get("ceil_mode", 0)),
        count_include_pad=True,
    )


@importer("GlobalAveragePool")
def global_average_pool(imp: Builder, node: OnnxNode, x: Any) -> Value:
    return imp.emit("mean", (x,), dims=tuple(range(2, len(x.shape))), keepdim=True)


@importer("GlobalMaxPool")
def global_max_pool(imp: Builder, node: OnnxNode, x: Any) -> Value:
    return imp.emit("amax", (x,), dims=tuple(range(2, len(x.shape))), keepdim=True)


def _reduce(imp: Builder, op: str, node: OnnxNode, x: Any, axes: Any = None) -> Value:
    """Axes are an attribute up to opset 12 (ReduceSum) or 17, then an input."""
    axes = node.get("axes") if axes is None else axes
    listed = integers(axes, "axes") if axes is not None else []
    if not listed and node.get("noop_with_empty_axes", 0):
        return x
    rank = len(x.shape)
    dims = tuple(sorted(positive(a, rank) for a in listed)) or tuple(range(rank))
    return imp.emit(op, (x,), dims=dims, keepdim=bool(node.get("keepdims", 1)))


for _onnx_op, _op in {"ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "amax"}.items():
    importer(_onnx_op)(lambda imp, node, x, axes=None, op=_op: _reduce(imp, op, node, x, axes))


@importer("ReduceMin")
def reduce_min(imp: Builder, node: OnnxNode, x: Any, axes: Any = None) -> Value:
    return imp.emit("neg", (_reduce(imp, "amax", node, imp.emit("neg", (x,)), axes),))


@importer("ReduceSumSquare", "ReduceL2")
def reduce_squares(imp: Builder, node: OnnxNode, x: Any, axes: Any = None) -> Value:
    total = _reduce(imp, "sum", node, imp.emit("mul", (x, x)), axes)
    return imp.emit("sqrt", (total,)) if node.op == "ReduceL2" else total


@importer("ReduceL1")
def reduce_absolute(imp: Builder, node: OnnxNode, x: Any, axes: Any = None) -> Value:
    return _reduce(imp, "sum", node, imp.emit("abs", (x,)), axes)


@importer("ReduceLogSum", "ReduceLogSumExp")
def reduce_log_sum(imp: Builder, node: OnnxNode, x: Any, axes: Any = None) -> Value:
    """log(sum(x)), or with the largest taken out, max + log(sum(exp(x - max)))."""
    if node.op == "ReduceLogSum":
        return imp.emit("log", (_reduce(imp, "sum", node, x, axes),))
    top = _reduce(imp, "amax", replace(node, attrs={**node.attrs, "keepdims": 1}), x, axes)
    total = _reduce(imp, "sum", node, imp.emit("exp", (imp.emit("sub", (x, top)),)), axes)
    low = imp.emit("log", (total,))
    return imp.emit("add", (low, top if low.shape == top.shape else imp.reshape(top, low.shape)))
