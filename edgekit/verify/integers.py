"""The integers an int8 runtime must produce, op by op: node and operands -> codes.

A second implementation on purpose: it shares no code with `edgekit.quantize`, so that agreement with the
runtime proves both. Formulas are XNNPACK's, bit for bit where `is_exact` says so; sums are exact integers
(float32 while they stay below 2**24, float64 above).

    conv, linear, matmul, average   clamp(rint(f32(acc) * f32(s_in * s_w / s_out)))
    mul                             the same with (a - za)(b - zb)
    mean                            the same with the sum, and f32(s_in / s_out / n)
    add, sub                        integer multipliers at shift 20 - floor(log2(max(s_a, s_b) / s_out))
    moves, max-pool                 the integers themselves
    everything else                 real = code * scale; the float op; rint(real * f32(1 / s_out))

A code is integer - zero_point, carried in float32 or float64. Values without parameters carry reals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from edgekit.graph.ir import Node, QuantParams, Value
from edgekit.graph.run import run_node

Tensor = torch.Tensor
LIMITS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}
_FLOAT32_EXACT = 2.0**24
_MOVES = frozenset(
    ("reshape", "permute", "split", "slice", "expand", "channel_shuffle", "pixel_shuffle")
) | frozenset(
    ("pixel_unshuffle", "roll", "pad", "concat", "max_pool2d", "amax", "resize_nearest", "gather", "topk")
)
_INTEGER_SUMS = frozenset(
    ("conv2d", "linear", "mul", "mean", "add", "sub", "avg_pool2d", "adaptive_avg_pool2d")
)
_TABLES = frozenset(("hardswish", "relu", "relu6", "hardsigmoid", "sigmoid", "clamp", "leaky_relu"))
_EXACT = _MOVES | _INTEGER_SUMS | _TABLES


def is_exact(node: Node) -> bool:
    """Whether the formula is the kernel's own, so that any difference from the runtime is a defect."""
    int8 = node.output.quant is not None and node.output.quant.dtype == "int8"
    if node.op in ("avg_pool2d", "adaptive_avg_pool2d") and not _whole_windows(node):
        return False
    if any(v.quant is not None and v.quant.dtype == "int16" for v in node.operands):
        return False  # the integer conversion rounds ties its own way
    if any(v.quant is None and not v.is_constant for v in node.operands):
        return False  # float sums come out in an order of the kernel's own, and are rounded either way
    return int8 and node.op in _EXACT


def quantize_reals(reals: Tensor, quant: QuantParams) -> Tensor:
    """Reals to codes as the runtime's QUANTIZE does: rint(x * f32(1 / scale)), saturating."""
    inverse = float(np.float32(1.0) / np.float32(quant.scale[0]))
    return _saturate(torch.round(reals.float() * inverse), quant)


def dequantize(codes: Tensor, quant: QuantParams) -> Tensor:
    """Codes to float32 reals, per tensor."""
    return codes.float() * float(np.float32(quant.scale[0]))


def compute(node: Node, operands: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """The outputs of one node: codes for quantized values, reals for others.

    Args:
        operands: per input, codes when the value is quantized and computed; reals when it is not; None for an
            absent input and for every constant (constants are read from the graph).
    """
    quant = node.output.quant
    rule = _RULES.get(node.op)
    if rule and quant is not None and _integer_inputs(node):
        found = rule(node, operands)
        if found is not None:
            return (_saturate(found, quant, node.attrs.get("activation")),)
    if node.op in _MOVES and all(v.quant is not None for v in node.outputs):
        grids = {v.quant: _move(node, operands, v.quant) for v in node.outputs if v.quant is not None}
        return tuple(grids[v.quant][i] for i, v in enumerate(node.outputs) if v.quant is not None)
    reals = [_real_operand(node, i, operands[i]) for i in range(len(node.inputs))]
    if _dynamic(node) and reals[0] is not None:
        reals[0] = _on_own_grid(node, reals[0])
    results = (_hardsigmoid(reals[0]),) if node.op == "hardsigmoid" else run_node(node, reals)
    return tuple(
        r if v.quant is None else quantize_reals(r, v.quant)
        for v, r in zip(node.outputs, results, strict=True)
    )


def weight_codes(value: Value) -> Tensor:
    """The stored integers of a constant minus its zero point; symmetric per-channel keeps to [-127, 127]."""
    assert value.data is not None and value.quant is not None
    quant, data = value.quant, value.data.detach().float()
    shape = [1] * data.ndim
    if quant.axis is not None and len(quant.scale) > 1:
        shape[quant.axis] = -1
    scale = torch.tensor(quant.scale, dtype=torch.float32).reshape(shape)
    codes = _saturate(torch.round(data / scale), quant)
    return codes.clamp_(min=-127.0) if quant.axis is not None and quant.dtype == "int8" else codes


def _saturate(codes: Tensor, quant: QuantParams, activation: str | None = None) -> Tensor:
    low, high = (float(limit - quant.zero_point[0]) for limit in LIMITS[quant.dtype])
    if activation in ("relu", "relu6"):
        low = max(low, 0.0)
    if activation == "relu6":
        high = min(high, float(np.rint(np.float32(6.0) / np.float32(quant.scale[0]))))
    return codes.clamp(low, high)


def _integer_inputs(node: Node) -> bool:
    """Whether the data operands are quantized: all computed ones, and the weight where there is one."""
    if node.op in ("conv2d", "linear", "conv_transpose2d"):
        return all(v is not None and v.quant is not None for v in node.inputs[:2])
    if node.op == "matmul":
        return all(v.quant is not None for v in node.operands)
    return all(v.is_constant or v.quant is not None for v in node.operands)


def _params(node: Node, index: int) -> QuantParams:
    value = node.inputs[index]
    assert value is not None
    if value.quant is not None:
        return value.quant
    assert value.data is not None  # a plain number in an integer op: symmetric over its own peak
    peak = float(value.data.detach().abs().max())
    dtype = node.output.quant.dtype if node.output.quant is not None else "int8"
    limit = LIMITS[dtype][1]
    return QuantParams((float(np.float32(peak / limit if peak > 0 else 1 / limit)),), (0,), dtype)


def _codes(node: Node, index: int, operand: Tensor | None) -> Tensor:
    value = node.inputs[index]
    assert value is not None
    if operand is not None:
        return operand
    assert value.data is not None
    return weight_codes(Value(value.name, value.shape, value.dtype, value.data, None, _params(node, index)))


def _real_operand(node: Node, index: int, operand: Tensor | None) -> Tensor | None:
    value = node.inputs[index]
    if value is None:
        return None
    if not value.is_constant:
        assert operand is not None
        return operand if value.quant is None else dequantize(operand, value.quant)
    assert value.data is not None
    weighted = index == 1 and node.op in ("conv2d", "linear", "conv_transpose2d") and value.quant is not None
    if not weighted or value.quant is None:
        return value.data.detach()
    shape = [1] * len(value.shape)
    if len(value.quant.scale) > 1:
        shape[value.quant.axis or 0] = -1
    return weight_codes(value) * torch.tensor(value.quant.scale, dtype=torch.float32).reshape(shape)


def _dynamic(node: Node) -> bool:
    """Whether the runtime multiplies int8 weights by floats that it rounds itself."""
    if node.op not in ("conv2d", "linear") or node.inputs[1] is None:
        return False
    x, weight = node.inputs[0], node.inputs[1]
    if x is None or x.quant is not None or weight.quant is None or node.output.quant is not None:
        return False
    return node.op == "linear" or weight.shape[1] > 1 or node.attrs["groups"] == 1


def _on_own_grid(node: Node, x: Tensor) -> Tensor:
    """xnn_f32_qd8_asymmetric_quantization_params: by pixel of a plain 1x1 or linear, else by image."""
    weight = node.inputs[1]
    assert weight is not None
    dims: tuple[int, ...] = tuple(range(1, x.ndim))
    if node.op == "linear":
        dims = (x.ndim - 1,)
    elif weight.shape[2:] == (1, 1) and tuple(node.attrs["stride"]) == (1, 1) and node.attrs["groups"] == 1:
        dims = dims if any(node.attrs["padding"]) else (1,)
    low, high = torch.clamp(x.amin(dims, True), max=0.0), torch.clamp(x.amax(dims, True), min=0.0)
    steps = torch.div(torch.tensor(255.0), high - low)  # `255.0 / t` multiplies by a rounded reciprocal
    scale = torch.where(low == high, torch.ones_like(low), steps)
    from_low, from_high = -128.0 + low * scale, 127.0 + high * scale
    zero = torch.where(from_low + from_high > 0.0, -128.0 - low * scale, 127.0 - high * scale)
    zero = zero.clamp(-128.0, 127.0).round()
    codes = (torch.round(x * scale) + zero).clamp(-128.0, 127.0)
    return (codes - zero) * (1.0 / scale)


def _hardsigmoid(x: Tensor | None) -> Tensor:
    """relu6(x + 3) * f32(1 / 6), as the file spells it: with the input's usual scale every value is a tie."""
    assert x is not None
    return torch.nn.functional.relu6(x + 3.0) * float(np.float32(1.0 / 6.0))


def _f32_ratio(*scales: float) -> np.float32:
    """s0 * s1 / s2 (or s0 / s1) in float32, in the kernel's order."""
    *numerators, denominator = (np.float32(s) for s in scales)
    product = numerators[0]
    for factor in numerators[1:]:
        product = product * factor
    return product / denominator


def _requantize(acc: Tensor, multiplier: Tensor | np.float32) -> Tensor:
    factor = multiplier if isinstance(multiplier, Tensor) else torch.tensor(float(multiplier))
    return torch.round(acc.float() * factor.float())


def _weighted(node: Node, operands: Sequence[Tensor | None]) -> Tensor:
    x, weight, bias = node.inputs
    assert x is not None and x.quant and weight is not None and weight.quant and node.output.quant
    codes = operands[0]
    assert codes is not None
    acc = _exact_product(node, codes, weight_codes(weight))
    channel = (1, -1, 1, 1) if acc.ndim == 4 and node.op != "linear" else (-1,)
    scales = np.asarray(weight.quant.scale, np.float32)
    if bias is not None:
        assert bias.data is not None
        fine = np.float64(np.float32(x.quant.scale[0])) * scales.astype(np.float64)
        integers = torch.round(bias.data.detach().double() / torch.from_numpy(fine))
        acc = acc.double() + integers.reshape(channel)
    multipliers = np.float32(x.quant.scale[0]) * scales / np.float32(node.output.quant.scale[0])
    return _requantize(acc, torch.from_numpy(np.atleast_1d(multipliers)).reshape(channel))


def _exact_product(node: Node, x: Tensor, weight: Tensor) -> Tensor:
    """The integer accumulator without bias, exact: float32 where every partial sum stays below 2**24."""
    attrs = {**node.attrs, "activation": None}
    plain = Node(node.op, node.inputs, node.outputs, attrs, node.source)
    taps = weight.abs().sum([d for d in range(weight.ndim) if d != 0]).max()
    if node.op == "conv_transpose2d":
        taps = weight.abs().sum((0, 2, 3)).max()
    if float(taps) * float(x.abs().max()) < _FLOAT32_EXACT:
        return run_node(plain, (x.float(), weight.float(), None))[0]
    splittable = node.op == "linear" or (node.op == "conv2d" and node.attrs["groups"] == 1)
    if splittable and weight.shape[1] > 1:
        half = weight.shape[1] // 2
        dim = -1 if node.op == "linear" else 1
        low, high = x.split([half, x.shape[dim] - half], dim)
        first = _exact_product(node, low, weight[:, :half])
        return first.double() + _exact_product(node, high, weight[:, half:]).double()
    return run_node(plain, (x.double(), weight.double(), None))[0]


def _matmul(node: Node, operands: Sequence[Tensor | None]) -> Tensor:
    a, b = _codes(node, 0, operands[0]).double(), _codes(node, 1, operands[1]).double()
    out = node.output.quant
    assert out is not None
    ratio = _f32_ratio(_params(node, 0).scale[0], _params(node, 1).scale[0], out.scale[0])
    return _requantize(a @ b, ratio)


def _mul(node: Node, operands: Sequence[Tensor | None]) -> Tensor:
    a, b = _codes(node, 0, operands[0]), _codes(node, 1, operands[1])
    out = node.output.quant
    assert out is not None
    ratio = _f32_ratio(_params(node, 0).scale[0], _params(node, 1).scale[0], out.scale[0])
    return _requantize(a * b, ratio)


def _add(node: Node, operands: Sequence[Tensor | None]) -> Tensor:
    out = node.output.quant
    assert out is not None
    ratios = [_f32_ratio(_params(node, i).scale[0], out.scale[0]) for i in (0, 1)]
    shift = 20 - math.floor(math.log2(float(max(ratios))))
    a_factor, b_factor = (float(np.rint(np.ldexp(np.float64(r), shift))) for r in ratios)
    a, b = _codes(node, 0, operands[0]).double(), _codes(node, 1, operands[1]).double()
    total = a * a_factor + b * (b_factor if node.op == "add" else -b_factor)
    return torch.floor((total + 2.0 ** (shift - 1)) / 2.0**shift)


def _mean(node: Node, operands: Sequence[Tensor | None]) -> Tensor:
    x, out = _codes(node, 0, operands[0]).double(), node.output.quant
    assert out is not None
    dims = node.attrs["dims"]
    count = math.prod(x.shape[d] for d in dims)
    total = x.sum(dims, keepdim=node.attrs["keepdim"])
    return _requantize(total, _f32_ratio(_params(node, 0).scale[0], out.scale[0]) / np.float32(count))


def _whole_windows(node: Node) -> bool:
    """Whether every average is over k^2 elements, padding included."""
    x, attrs = node.inputs[0], node.attrs
    assert x is not None
    if node.op == "adaptive_avg_pool2d":
        return not any(n % cells for n, cells in zip(x.shape[2:], attrs["output_size"], strict=True))
    return not attrs.get("ceil_mode") and (
        not any(attrs["padding"]) or bool(attrs.get("count_include_pad", True))
    )


def _average(node: Node, operands: Sequence[Tensor | None]) -> Tensor | None:
    """Whole windows: a depthwise convolution with weights 1, scale 1 / k^2. None: others go through float."""
    x, out, attrs = _codes(node, 0, operands[0]), node.output.quant, node.attrs
    assert out is not None
    if not _whole_windows(node):
        return None
    if node.op == "adaptive_avg_pool2d":
        cells = attrs["output_size"]
        kernel = stride = (x.shape[2] // cells[0], x.shape[3] // cells[1])
        padding = (0, 0)
    else:
        kernel, stride, padding = (tuple(attrs[k]) for k in ("kernel", "stride", "padding"))
    total = torch.nn.functional.avg_pool2d(x.double(), kernel, stride, padding, divisor_override=1)
    unit = np.float32(1.0 / (kernel[0] * kernel[1]))
    return _requantize(total, _f32_ratio(_params(node, 0).scale[0], float(unit), out.scale[0]))


def _move(node: Node, operands: Sequence[Tensor | None], quant: QuantParams) -> tuple[Tensor, ...]:
    """Integers that only change place; an operand on another grid is exchanged through float first."""
    moved: list[Tensor | None] = []
    for i, value in enumerate(node.inputs):
        if value is None:
            moved.append(None)
            continue
        real = None if value.quant == quant and not value.is_constant else _real_operand(node, i, operands[i])
        moved.append(operands[i] if real is None else quantize_reals(real, quant))
    attrs = node.attrs
    if node.op == "pad" and attrs.get("value"):
        attrs = {**attrs, "value": float(quantize_reals(torch.tensor(attrs["value"]), quant))}
    return run_node(Node(node.op, node.inputs, node.outputs, attrs, node.source), moved)


_RULES: dict[str, Callable[[Node, Sequence[Tensor | None]], Tensor | None]] = {
    "conv2d": _weighted,
    "conv_transpose2d": _weighted,
    "linear": _weighted,
    "matmul": _matmul,
    "mul": _mul,
    "add": _add,
    "sub": _add,
    "mean": _mean,
    "avg_pool2d": _average,
    "adaptive_avg_pool2d": _average,
}
