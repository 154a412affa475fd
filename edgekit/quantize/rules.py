"""What quantization parameters each tensor may take: the one table, with the reason beside each row.

Source: the TensorFlow Lite 8-bit quantization specification
(https://ai.google.dev/edge/litert/models/quantization_spec) and the kernels' Prepare functions. The other
runtimes accept everything TensorFlow Lite does, so one set of rules serves all of them.

Enters: a float graph after the passes. Leaves: groups of values that share their parameters, the values whose
parameters the op itself dictates, and the ranges outside which no reader can tell values apart.
"""

from __future__ import annotations

import math

from edgekit.graph.ir import Graph, Node, QuantParams, Value

Range = tuple[float, float]

# Input and output share one scale and zero point.
_MOVES = "data only moves; a change of scale would be a second, lossy operator"
SAME: dict[str, str] = {
    "reshape": _MOVES,
    "permute": _MOVES,
    "split": _MOVES,
    "slice": _MOVES,
    "expand": _MOVES,
    "channel_shuffle": _MOVES,
    "pixel_shuffle": _MOVES,
    "pixel_unshuffle": _MOVES,
    "roll": _MOVES,
    "pad": "PAD writes the zero point of its input; the kernel checks that the output has the same",
    "concat": "CONCATENATION of unequal scales is rejected by XNNPACK and requantized inexactly elsewhere",
    "max_pool2d": "MAX_POOL_2D compares integers and checks equal parameters",
    "amax": "REDUCE_MAX compares integers",
    "maximum": "MAXIMUM compares integers of both inputs",
    "minimum": "MINIMUM compares integers of both inputs",
    "avg_pool2d": "AVERAGE_POOL_2D has no requantization: it divides by the window size only",
    "adaptive_avg_pool2d": "lowered to AVERAGE_POOL_2D windows",
    "resize_bilinear": "RESIZE_BILINEAR interpolates integers and checks equal parameters",
    "resize_nearest": "RESIZE_NEAREST_NEIGHBOR copies integers",
}

# Ops of SAME whose output integers all occur in the input (or are the zero point): nothing is rounded.
MOVES = frozenset(SAME) - {"avg_pool2d", "adaptive_avg_pool2d", "resize_bilinear"}

_INT16_UNIT = QuantParams((1 / 32768,), (0,), "int16")
# The op bounds its own output, and the kernel is a table built for exactly these parameters.
FIXED: dict[str, dict[str, QuantParams]] = {
    # SOFTMAX: kernels assert scale 1/256, zero point -128
    "softmax": {"int8": QuantParams((1 / 256,), (-128,)), "int16": _INT16_UNIT},
    # LOGISTIC: same assertion
    "sigmoid": {"int8": QuantParams((1 / 256,), (-128,)), "int16": _INT16_UNIT},
    # TANH: scale 1/128, zero point 0
    "tanh": {"int8": QuantParams((1 / 128,), (0,)), "int16": _INT16_UNIT},
    # L2_NORMALIZATION: scale 1/128, zero point 0
    "l2_normalize": {"int8": QuantParams((1 / 128,), (0,)), "int16": _INT16_UNIT},
    # no kernel dictates it: [0, 1] is reached exactly at both ends, so both ends must be integers
    "hardsigmoid": {
        "int8": QuantParams((1 / 255,), (-128,)),
        "int16": QuantParams((1 / 32767,), (0,), "int16"),
    },
}

# What the reader does with values outside is the same as at the bound, so steps spent there are wasted.
_INF = math.inf
CLIPS: dict[str, Range] = {
    "hardswish": (-3.0, _INF),  # zero at and below -3
    "hardsigmoid": (-3.0, 3.0),  # 0 at and below -3, 1 at and above 3
    "relu": (0.0, _INF),
    "relu6": (0.0, 6.0),
    "sigmoid": (-8.0, 8.0),  # within a third of a step of 0 or 1
    "tanh": (-4.0, 4.0),  # within a tenth of a step of -1 or 1
}

# Ops with an int8 weight: which axis of inputs[1] is the output channel. inputs[2] is the int32 bias.
WEIGHT_AXIS: dict[str, int] = {"conv2d": 0, "linear": 0, "conv_transpose2d": 1}

# Ops whose constant operands are parameters of a float computation (batch norm statistics, slopes).
FLOAT_PARAMETERS = frozenset({"batch_norm", "layer_norm", "group_norm", "prelu"})


def weight_of(node: Node) -> Value | None:
    """The constant int8 weight of a node, if it has one.

    A grouped transposed convolution stays float: its output channels lie along two axes of the weight.
    """
    if node.op == "conv_transpose2d" and node.attrs["groups"] != 1:
        return None
    if node.op in WEIGHT_AXIS and node.inputs[1] is not None and node.inputs[1].is_constant:
        return node.inputs[1]
    return None


def bias_of(node: Node) -> Value | None:
    return node.inputs[2] if weight_of(node) is not None else None


def activations(graph: Graph) -> list[Value]:
    """Every float tensor with one scale: graph inputs, results, and constants that are plain operands."""
    parameters: set[Value] = set()
    operands: set[Value] = set()
    for node in graph.nodes:
        for i, value in enumerate(node.inputs):
            if value is None or not value.is_constant:
                continue
            parametric = weight_of(node) is not None or node.op == "conv_transpose2d"
            own = i > 0 and (parametric or node.op in FLOAT_PARAMETERS)
            (parameters if own else operands).add(value)
    return [
        value
        for value in graph.values()
        if value.dtype.startswith("float")
        and (not value.is_constant or (value in operands and value not in parameters))
    ]


def groups(graph: Graph) -> list[list[Value]]:
    """Activations in sets that must share one scale, by union-find over the ops of SAME."""
    order = activations(graph)
    parent: dict[Value, Value] = {value: value for value in order}

    def root(value: Value) -> Value:
        while parent[value] is not value:
            parent[value] = parent[parent[value]]
            value = parent[value]
        return value

    for node in graph.nodes:
        if node.op in SAME:
            members = [v for v in (*node.operands, *node.outputs) if v in parent]
            for other in members[1:]:
                parent[root(other)] = root(members[0])
    found: dict[Value, list[Value]] = {}
    for value in order:
        found.setdefault(root(value), []).append(value)
    return list(found.values())


def fixed_quant(group: list[Value], producers: dict[Value, Node], dtype: str) -> QuantParams | None:
    """The parameters an op dictates for a group, when every tensor that enters the group agrees on them."""
    inner = [producers[v].op if v in producers else None for v in group]
    sources = {op for op in inner if op not in SAME}
    if len(sources) != 1:
        return None
    (op,) = sources
    return FIXED[op][dtype] if op in FIXED else None


def fixed_range(op: str) -> Range | None:
    """The range an op's output has by construction."""
    if op not in FIXED:
        return None
    return (-1.0, 1.0) if op in ("tanh", "l2_normalize") else (0.0, 1.0)


def reader_clip(group: list[Value], users: dict[Value, list[Node]], outputs: set[Value]) -> Range:
    """The interval outside which no reader of the group can tell values apart."""
    low, high = _INF, -_INF
    for value in group:
        if value in outputs:
            return (-_INF, _INF)
        for node in users.get(value, []):
            if node.op in MOVES:
                continue  # its output is in the same group and its readers are seen there
            a, b = CLIPS.get(node.op, (-_INF, _INF))
            if node.op == "clamp":
                a = -_INF if node.attrs["low"] is None else node.attrs["low"]
                b = _INF if node.attrs["high"] is None else node.attrs["high"]
            low, high = min(low, a), max(high, b)
    return (low, high) if low < high else (-_INF, _INF)
