"""Biases of integer layers carry the parameters they have in the file.

ONNX Runtime adds an int32 bias at input scale times weight scale. Where the input is coarse and the output
fine (squeeze-excite behind a branch that is nearly zero), half a step of it is several steps of the output,
so whoever holds the graph against the file must round it too.
"""

from __future__ import annotations

from edgekit.graph.ir import Graph, Node, QuantParams, Value
from edgekit.graph.ops import WEIGHT_AXIS
from edgekit.lower.onnx import constants
from edgekit.targets import Target


def round_biases(graph: Graph, target: Target) -> int:
    """Annotate the biases the file holds as integers; returns how many. A shared one is copied."""
    counts = graph.use_counts()
    count = 0
    for node in graph.nodes:
        quant = _parameters(node)
        if quant is None:
            continue
        bias = node.inputs[2]
        assert bias is not None
        if counts[bias] > 1:
            name = graph.fresh_name(bias.name)
            bias = node.inputs[2] = Value(name, bias.shape, bias.dtype, bias.data, bias.range)
        bias.quant = quant
        count += 1
    return count


def _parameters(node: Node) -> QuantParams | None:
    x, weight, bias = node.inputs if node.op in WEIGHT_AXIS else (None, None, None)
    if x is None or weight is None or bias is None or bias.data is None:
        return None
    if x.quant is None or weight.quant is None:
        return None
    if node.op == "linear" and len(x.shape) != 2:
        return None  # a MatMul, and its bias an Add of floats
    return constants.bias(constants.as_numpy(bias), x.quant.scale[0], weight.quant)[1]
