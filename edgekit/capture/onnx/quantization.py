"""Importers of QuantizeLinear and DequantizeLinear: pairs become annotations, never nodes.

Constants are dequantized and keep the parameters that give their integers back exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.capture.builder import Unsupported
from edgekit.capture.onnx.builder import Builder
from edgekit.capture.onnx.registry import OnnxNode, constant, importer
from edgekit.capture.quantized import SIGNED, Quantized, annotate, parameters, span
from edgekit.graph.ir import QuantParams, Value


def _params(node: OnnxNode, scale: np.ndarray, zero_point: np.ndarray | None, dtype: str) -> QuantParams:
    if scale.ndim > 1 or node.get("block_size", 0):
        raise Unsupported(f"{node.op} in blocks")
    scales = scale.reshape(-1)
    zeros = np.zeros(len(scales), np.int64) if zero_point is None else zero_point.reshape(-1).astype(np.int64)
    axis = int(node.get("axis", 1)) if scale.ndim == 1 and scale.size > 1 else None
    return parameters(scales.tolist(), zeros.tolist(), dtype, axis, node.op)


@importer("QuantizeLinear")
def quantize(imp: Builder, node: OnnxNode, x: Any, scale: Any, zero_point: Any = None) -> Quantized:
    scale = constant(scale, "scales")
    dtype = "uint8" if zero_point is None else constant(zero_point, "zero points").dtype.name
    params = _params(node, scale, zero_point, dtype)
    made = annotate(x if isinstance(x, Value) else imp.value(x), params)
    imp.saturated.append(made.value)
    return made


@importer("DequantizeLinear")
def dequantize(imp: Builder, node: OnnxNode, x: Any, scale: Any, zero_point: Any = None) -> Any:
    if isinstance(x, Quantized):
        read = _params(node, constant(scale, "scales"), zero_point, _dtype(zero_point))
        made = x.value.quant
        return x.value if read == made else _rescaled(imp, x.value, made, read)
    if isinstance(x, Value) and x in imp.graph.inputs:  # whole numbers come in
        return _read_input(imp, x, constant(scale, "scales"), zero_point)
    if not isinstance(x, np.ndarray):
        raise Unsupported("DequantizeLinear of a tensor that no QuantizeLinear made")
    scale = constant(scale, "scales")
    axis = int(node.get("axis", 1)) % max(x.ndim, 1)
    shape = [-1 if i == axis and scale.size > 1 else 1 for i in range(x.ndim)]
    zeros = np.zeros(1, np.int64) if zero_point is None else zero_point.astype(np.int64)
    whole = x.astype(np.int64) - (zeros.reshape(shape) if zeros.size > 1 else zeros.reshape(-1)[0])
    data = (whole.astype(np.float32) * scale.astype(np.float32).reshape(shape)).astype(np.float32)
    if x.dtype.name != "int32":  # a bias has the parameters its input and weight give it
        params = _params(node, scale, zero_point, x.dtype.name)
        if params.axis is not None:
            params = QuantParams(params.scale, params.zero_point, params.dtype, params.axis % x.ndim)
        imp.remember(data, params)
    return data


def _read_input(imp: Builder, x: Value, scale: np.ndarray, zero_point: np.ndarray | None) -> Value:
    """(x - zero_point) * scale."""
    if zero_point is not None and zero_point.any():
        x = imp.emit("sub", (x, zero_point.astype(np.float32).reshape(())))
    return imp.emit("mul", (x, scale.astype(np.float32).reshape(())))


def _rescaled(imp: Builder, value: Value, made: QuantParams | None, read: QuantParams) -> Value:
    """The same integers by another scale: a product, and integer arithmetic has none to do for it."""
    if made is None or (made.zero_point, made.dtype, None) != (read.zero_point, read.dtype, read.axis):
        raise Unsupported("DequantizeLinear with another zero point or type than its QuantizeLinear")
    product = imp.emit("mul", (value, read.scale[0] / made.scale[0]))
    product.quant, product.range = read, span(read)
    return product


def _dtype(zero_point: Any) -> str:
    return "uint8" if zero_point is None else constant(zero_point, "zero points").dtype.name


def filled(x: Quantized, given: list[Any]) -> np.ndarray:
    """The number that a Pad of integers writes, as the real number it stands for."""
    assert x.value.quant is not None
    if not given or not isinstance(given[0], np.ndarray):
        raise Unsupported("Pad of integers without a constant value")
    dtype, (zero_point,) = given[0].dtype.name, x.value.quant.zero_point
    code = int(given[0].reshape(-1)[0]) - SIGNED[dtype][1]
    return np.array((code - zero_point) * x.value.quant.scale[0], np.float32)
