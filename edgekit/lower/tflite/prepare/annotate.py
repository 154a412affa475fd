"""Give every value the parameters this target derives from its calibrated range."""

from __future__ import annotations

import math

import torch

from edgekit.graph.boundaries import is_dynamic
from edgekit.graph.ir import Graph, Node, QuantParams, Value
from edgekit.graph.ops import WEIGHT_AXIS
from edgekit.targets import Target


def annotate(graph: Graph, target: Target) -> int:
    """int8 keeps what calibration wrote; int16 is symmetric over the same range; float drops activations.

    Weights stay as they are for integer targets, are made int8 where a dynamic target finds none, and are
    float elsewhere. A value that calibration left in float stays float everywhere.
    """
    changed = 0
    if target.activations == "int16":  # whose files have no dynamic kernels
        for node in filter(is_dynamic, graph.nodes):
            node.operands[1].quant, changed = None, changed + 1
    integer_weights = target.weights == "int8"
    weights = {node.inputs[1] for node in graph.nodes if node.op in WEIGHT_AXIS}
    for value in graph.values():
        if value.is_constant:
            keep = value in weights if target.activations != "int8" else True
            if value.quant is not None and not (keep and integer_weights):
                value.quant, changed = _derived(value, target), changed + 1
        elif value.quant is not None and value.quant.dtype != target.activations:
            value.quant, changed = _derived(value, target), changed + 1
        if value.quant is not None and value.quant.dtype == "int16" and any(value.quant.zero_point):
            value.quant, changed = _centred(value.quant), changed + 1
    if integer_weights and not target.quantized:
        for node in graph.nodes:
            weight = node.inputs[1] if node.op in ("conv2d", "linear") else None
            if weight is None or weight.data is None:
                continue
            if not dynamic_pays(node):
                weight.quant = None
            elif weight.quant is None:
                weight.quant = _per_channel(weight.data, WEIGHT_AXIS[node.op])
            changed += 1
    return changed


def _derived(value: Value, target: Target) -> QuantParams | None:
    if target.activations == "float32":
        return None
    if target.activations != "int16" or value.quant is None:
        return value.quant  # no type of this target's: the runner says so
    if value.data is not None:
        peak = float(value.data.abs().max())
    elif value.range is not None:
        peak = max(abs(value.range[0]), abs(value.range[1]))
    else:
        zero, scale = value.quant.zero_point[0], value.quant.scale[0]
        peak = max(abs(-128 - zero), abs(127 - zero)) * scale
    scale = float(torch.tensor(max(peak, 1e-9) / 32767.0, dtype=torch.float32))
    return QuantParams((scale,), (0,), "int16")


def _centred(quant: QuantParams) -> QuantParams:
    """int16 that was quantized elsewhere around another zero point, which kernels do not take."""
    zero = quant.zero_point[0]
    peak = max(abs(-32768 - zero), abs(32767 - zero)) * quant.scale[0]
    return QuantParams((float(torch.tensor(peak / 32767.0, dtype=torch.float32)),), (0,), "int16")


def dynamic_pays(node: Node) -> bool:
    """Whether int8 weights gain more than quantizing the input on the fly costs.

    Each pixel's channels are quantized anew: about 17 ns a pixel and 0.5 ns a number, against a product
    that takes 0.0033 instead of 0.0179 ns (one x86 core with VNNI). Depthwise convolutions have no
    delegated dynamic form.
    """
    x, weight = node.inputs[0], node.inputs[1]
    assert x is not None and weight is not None
    numbers = math.prod(x.shape)
    if node.op == "linear":
        pixels, products = numbers // x.shape[-1], numbers * weight.shape[0]
    else:
        if node.attrs["groups"] > 1:
            return not (weight.shape[1] == 1 and node.attrs["groups"] == x.shape[1])
        pixels, products = numbers // x.shape[1], math.prod(node.output.shape) * math.prod(weight.shape[1:])
    return products * 0.0146 > 17 * pixels + 0.5 * numbers


def _per_channel(data: torch.Tensor, axis: int) -> QuantParams:
    peak = data.detach().abs().amax([d for d in range(data.ndim) if d != axis])
    scale = torch.where(peak > 0, peak / 127.0, torch.full_like(peak, 1.0 / 127.0))
    return QuantParams(tuple(scale.tolist()), (0,) * scale.numel(), "int8", axis)
