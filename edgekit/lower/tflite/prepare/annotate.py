"""Give every value the parameters this target derives from its calibrated range."""

from __future__ import annotations

import torch

from edgekit.ir import Graph, QuantParams, Value
from edgekit.targets import Target

_WEIGHTED = {"conv2d": 0, "linear": 0, "conv_transpose2d": 1}


def annotate(graph: Graph, target: Target) -> int:
    """int8 keeps what calibration wrote; int16 is symmetric over the same range; float drops activations.

    Weights stay as they are for integer targets, are made int8 where a dynamic target finds none, and are
    float elsewhere. A value that calibration left in float stays float everywhere.
    """
    changed = 0
    integer_weights = target.weights == "int8"
    weights = {node.inputs[1] for node in graph.nodes if node.op in _WEIGHTED}
    for value in graph.values():
        if value.is_constant:
            keep = value in weights if target.activations != "int8" else True
            if value.quant is not None and not (keep and integer_weights):
                value.quant, changed = _derived(value, target), changed + 1
        elif value.quant is not None and value.quant.dtype != target.activations:
            value.quant, changed = _derived(value, target), changed + 1
    if integer_weights and not target.quantized:
        for node in graph.nodes:
            weight = node.inputs[1] if node.op in ("conv2d", "linear") else None
            if weight is not None and weight.data is not None and weight.quant is None:
                weight.quant, changed = _per_channel(weight.data, _WEIGHTED[node.op]), changed + 1
    return changed


def _derived(value: Value, target: Target) -> QuantParams | None:
    if target.activations == "float32":
        return None
    assert target.activations == "int16" and value.quant is not None
    if value.data is not None:
        peak = float(value.data.abs().max())
    elif value.range is not None:
        peak = max(abs(value.range[0]), abs(value.range[1]))
    else:
        zero, scale = value.quant.zero_point[0], value.quant.scale[0]
        peak = max(abs(-128 - zero), abs(127 - zero)) * scale
    scale = float(torch.tensor(max(peak, 1e-9) / 32767.0, dtype=torch.float32))
    return QuantParams((scale,), (0,), "int16")


def _per_channel(data: torch.Tensor, axis: int) -> QuantParams:
    peak = data.detach().abs().amax([d for d in range(data.ndim) if d != axis])
    scale = torch.where(peak > 0, peak / 127.0, torch.full_like(peak, 1.0 / 127.0))
    return QuantParams(tuple(scale.tolist()), (0,) * scale.numel(), "int8", axis)
