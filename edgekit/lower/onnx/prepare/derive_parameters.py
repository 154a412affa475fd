"""Give every value the parameters this target derives from its calibrated range."""

from __future__ import annotations

import numpy as np

from edgekit.graph.ir import Graph, QuantParams, Value
from edgekit.targets import Target

_LEAST_PEAK = 1e-9


def derive_parameters(graph: Graph, target: Target) -> int:
    """Float targets drop every parameter, others keep those they find, or take symmetric ones instead."""
    changed = 0
    for value in graph.values():
        if value.quant is None or (target.quantized and "symmetric" not in target.forms):
            continue
        if not target.quantized:
            value.quant, changed = None, changed + 1
        elif value.quant.axis is None:
            value.quant, changed = symmetric(value), changed + 1
    return changed


def symmetric(value: Value) -> QuantParams:
    """int8 with zero point 0 over the calibrated range."""
    assert value.quant is not None
    if value.range is not None:
        peak = max(abs(value.range[0]), abs(value.range[1]))
    else:
        zero, scale = value.quant.zero_point[0], value.quant.scale[0]
        peak = max(abs(-128 - zero), abs(127 - zero)) * scale
    return QuantParams((float(np.float32(max(peak, _LEAST_PEAK) / 127.0)),), (0,))
