"""Large depthwise kernels in int8 as grouped convolutions of eight channels, all foreign taps zero.

The delegate's int8 depthwise kernels stop at 5x5; at 7x7 the grouped form takes an eighth of the time.
"""

from __future__ import annotations

import torch

from edgekit.ir import Graph, Value
from edgekit.targets import Target

GROUP = 8
LARGEST_FAST = 25  # taps


def widen_depthwise(graph: Graph, target: Target) -> int:
    """Rewrite quantized depthwise convolutions of more than 5x5 taps; returns how many."""
    count = 0
    use_counts = graph.use_counts()
    for node in graph.nodes:
        if node.op != "conv2d" or target.activations != "int8":
            continue
        x, weight = node.inputs[0], node.inputs[1]
        assert x is not None and weight is not None and weight.data is not None
        channels = x.shape[1]
        depthwise = node.attrs["groups"] == channels == weight.shape[0] and channels > 1
        large = weight.shape[2] * weight.shape[3] > LARGEST_FAST
        if not (depthwise and large and node.output.quant and x.quant and use_counts[weight] == 1):
            continue
        if channels % GROUP:
            continue
        o, _, kh, kw = weight.shape
        wide = torch.zeros(o, GROUP, kh, kw, dtype=weight.data.dtype)
        wide[torch.arange(o), torch.arange(o) % GROUP] = weight.data.detach()[:, 0]
        node.inputs[1] = Value(
            graph.fresh_name(f"{weight.name}.wide"),
            (o, GROUP, kh, kw),
            weight.dtype,
            wide,
            None,
            weight.quant,
        )
        node.attrs["groups"] = channels // GROUP
        count += 1
    return count
