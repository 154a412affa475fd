"""conv -> hardsigmoid in int8: the convolution's own saturation is the clamp.

hardsigmoid(x) = clamp(x / 6 + 1/2, 0, 1). Dividing weights and bias by six and adding a half leaves a clamp
to [0, 1], which an int8 tensor of scale 1/255 and zero point -128 performs by itself. The weight integers
stay the same, one rounding goes and so do four operators in every squeeze-and-excite block.
"""

from __future__ import annotations

import torch

from edgekit.graph.ir import Graph, Node, QuantParams, Value
from edgekit.targets import Target

_BIAS_LIMIT = 2.0**30  # half of int32: the accumulator needs the rest


def absorb_hardsigmoid(graph: Graph, target: Target) -> int:
    """Rewrite quantized conv2d/linear -> hardsigmoid into a scaled one and a clamp; returns how many."""
    producers, use_counts = graph.producers(), graph.use_counts()
    count = 0
    for node in graph.nodes:
        x = node.inputs[0] if node.op == "hardsigmoid" else None
        conv = producers.get(x) if x is not None else None
        if x is None or conv is None or conv.op not in ("conv2d", "linear"):
            continue
        quant = node.output.quant
        if quant is None or x.quant is None or {quant.dtype, x.quant.dtype} != {"int8"}:
            continue
        if quant.zero_point != (-128,):
            continue
        weight = conv.inputs[1]
        assert weight is not None
        own = all(use_counts[v] == 1 and v.is_constant for v in conv.operands[1:])
        if use_counts[x] != 1 or conv.attrs.get("activation") or not own or weight.quant is None:
            continue
        if abs(quant.scale[0] * 255 - 1.0) > 1e-3:  # only this scale saturates at one
            continue
        if not _bias_fits(conv, weight):
            continue
        _scale(graph, conv, weight)
        x.quant, x.range = quant, (0.0, 1.0)
        node.op, node.attrs = "clamp", {"low": 0.0, "high": 1.0}
        count += 1
    return count


def _bias_fits(conv: Node, weight: Value) -> bool:
    """Whether bias / 6 + 1/2 is an int32 at input scale x weight scale: a faint input makes it saturate."""
    source, bias = conv.inputs[0], conv.inputs[2]
    if source is None or source.quant is None or weight.quant is None:
        return False
    step = torch.tensor(weight.quant.scale, dtype=torch.float64) / 6.0 * source.quant.scale[0]
    largest = 0.5 if bias is None or bias.data is None else (bias.data.detach().double() / 6.0 + 0.5).abs()
    return bool((largest / step < _BIAS_LIMIT).all())


def _scale(graph: Graph, conv: Node, weight: Value) -> None:
    assert weight.data is not None and weight.quant is not None
    bias = conv.inputs[2]
    shift = torch.full((weight.shape[0],), 0.5)
    if bias is None:
        bias = Value(graph.fresh_name(f"{weight.name}.bias"), tuple(shift.shape), data=shift)
        conv.inputs[2] = bias
    else:
        assert bias.data is not None
        bias.data = bias.data.detach() / 6.0 + shift
    weight.data = weight.data.detach() / 6.0
    scale = tuple(float(s) for s in torch.tensor(weight.quant.scale, dtype=torch.float32) / 6.0)
    weight.quant = QuantParams(scale, weight.quant.zero_point, weight.quant.dtype, weight.quant.axis)
