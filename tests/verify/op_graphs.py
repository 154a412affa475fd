"""One small quantized graph per op, for holding the integer formulas against the runtime."""

from __future__ import annotations

from typing import Any

import torch

from edgekit.graph.check import check
from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.run import run, run_node
from edgekit.quantize import annotate

_SHAPE = (1, 16, 12, 10)
_CONV = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1}
_TRANSPOSED = {
    "stride": (2, 2),
    "padding": (1, 1),
    "output_padding": (0, 0),
    "dilation": (1, 1),
    "groups": 1,
}
_POOL = {"kernel": (3, 3), "stride": (2, 2), "padding": (0, 0)}
_AVERAGE = {**_POOL, "count_include_pad": True}
W = "weight"

# id: (op, further inputs, attributes, shape of the input)
CASES: dict[str, tuple[str, list[Any], dict[str, Any], tuple[int, ...]]] = {
    "conv 3x3": ("conv2d", [(W, 24, 16, 3, 3), (W, 24)], _CONV, _SHAPE),
    "conv 3x3 relu": ("conv2d", [(W, 24, 16, 3, 3), (W, 24)], {**_CONV, "activation": "relu"}, _SHAPE),
    "conv 1x1 relu6": (
        "conv2d",
        [(W, 24, 16, 1, 1), (W, 24)],
        {**_CONV, "padding": (0, 0, 0, 0), "activation": "relu6"},
        _SHAPE,
    ),
    "conv no bias": ("conv2d", [(W, 24, 16, 3, 3), None], _CONV, _SHAPE),
    "conv stride 2 uneven pad": (
        "conv2d",
        [(W, 24, 16, 3, 3), (W, 24)],
        {**_CONV, "stride": (2, 2), "padding": (0, 1, 0, 1)},
        _SHAPE,
    ),
    "conv grouped": ("conv2d", [(W, 24, 4, 3, 3), (W, 24)], {**_CONV, "groups": 4}, _SHAPE),
    "conv dilated": (
        "conv2d",
        [(W, 8, 16, 3, 3), (W, 8)],
        {**_CONV, "dilation": (2, 2), "padding": (2, 2, 2, 2)},
        _SHAPE,
    ),
    "conv deep": ("conv2d", [(W, 8, 640, 1, 1), (W, 8)], {**_CONV, "padding": (0,) * 4}, (1, 640, 5, 5)),
    "conv stem": (
        "conv2d",
        [(W, 8, 3, 3, 3), (W, 8)],
        {**_CONV, "stride": (2, 2)},
        (1, 3, 16, 16),
    ),
    "depthwise 3x3": ("conv2d", [(W, 16, 1, 3, 3), (W, 16)], {**_CONV, "groups": 16}, _SHAPE),
    "depthwise 5x5 stride 2": (
        "conv2d",
        [(W, 16, 1, 5, 5), (W, 16)],
        {**_CONV, "groups": 16, "stride": (2, 2), "padding": (2, 2, 2, 2)},
        _SHAPE,
    ),
    "depthwise 7x7": (
        "conv2d",
        [(W, 16, 1, 7, 7), (W, 16)],
        {**_CONV, "groups": 16, "padding": (3, 3, 3, 3)},
        _SHAPE,
    ),
    "linear": ("linear", [(W, 10, 64), (W, 10)], {}, (1, 64)),
    "linear relu": ("linear", [(W, 10, 64), (W, 10)], {"activation": "relu"}, (1, 64)),
    "conv transpose": (
        "conv_transpose2d",
        [(W, 16, 8, 2, 2), (W, 8)],
        {**_TRANSPOSED, "padding": (0, 0)},
        _SHAPE,
    ),
    "mul": ("mul", ["square"], {}, _SHAPE),
    "mul by a gate": ("mul", ["gate"], {}, _SHAPE),
    "add": ("add", ["square"], {}, _SHAPE),
    "add relu": ("add", ["square"], {"activation": "relu"}, _SHAPE),
    "sub": ("sub", ["square"], {}, _SHAPE),
    "mean keepdim": ("mean", [], {"dims": (2, 3), "keepdim": True}, _SHAPE),
    "mean": ("mean", [], {"dims": (2, 3), "keepdim": False}, _SHAPE),
    "max pool": ("max_pool2d", [], _POOL, _SHAPE),
    "max pool padded": ("max_pool2d", [], {**_POOL, "padding": (1, 1)}, _SHAPE),
    "average pool": ("avg_pool2d", [], {**_AVERAGE, "kernel": (2, 2)}, _SHAPE),
    "average pool padded": ("avg_pool2d", [], {**_AVERAGE, "padding": (1, 1)}, _SHAPE),
    "average pool, border not counted": (
        "avg_pool2d",
        [],
        {**_AVERAGE, "stride": (1, 1), "padding": (1, 1), "count_include_pad": False},
        _SHAPE,
    ),
    "adaptive average pool": ("adaptive_avg_pool2d", [], {"output_size": (3, 5)}, _SHAPE),
    "amax": ("amax", [], {"dims": (2, 3), "keepdim": True}, _SHAPE),
    "concat": ("concat", ["square"], {"dim": 1}, _SHAPE),
    "pad": ("pad", [], {"pads": (1, 2, 0, 1)}, _SHAPE),
    "slice": ("slice", [], {"dim": 1, "start": 3, "end": 11}, _SHAPE),
    "reshape": ("reshape", [], {"shape": (-1, 16 * 12 * 10)}, _SHAPE),
    "pixel shuffle": ("pixel_shuffle", [], {"factor": 2}, _SHAPE),
    "channel shuffle": ("channel_shuffle", [], {"groups": 4}, _SHAPE),
    "resize nearest": ("resize_nearest", [], {"size": (24, 20)}, _SHAPE),
    "resize bilinear": ("resize_bilinear", [], {"size": (24, 20)}, _SHAPE),
    "hardswish": ("hardswish", [], {}, _SHAPE),
    "hardsigmoid": ("hardsigmoid", [], {}, _SHAPE),
    "sigmoid": ("sigmoid", [], {}, _SHAPE),
    "silu": ("silu", [], {}, _SHAPE),
    "tanh": ("tanh", [], {}, _SHAPE),
    "gelu": ("gelu", [], {}, _SHAPE),
    "elu": ("elu", [], {}, _SHAPE),
    "leaky relu": ("leaky_relu", [], {"negative_slope": 0.1}, _SHAPE),
    "relu6": ("relu6", [], {}, _SHAPE),
    "clamp": ("clamp", [], {"low": -0.5, "high": 1.5}, _SHAPE),
    "abs": ("abs", [], {}, _SHAPE),
    "exp": ("exp", [], {}, _SHAPE),
    "softmax": ("softmax", [], {"dim": -1}, (1, 40)),
    "layer norm": ("layer_norm", [(W, 64), (W, 64)], {"normalized_shape": (64,), "eps": 1e-5}, (1, 20, 64)),
    "matmul": ("matmul", ["turned"], {}, (1, 2, 12, 10)),
}


def op_graph(case: str, seed: int = 0) -> Graph:
    """input -> hardswish-free prelude that gives a second operand -> the op, all annotated int8."""
    op, extra, attrs, shape = CASES[case]
    generator = torch.Generator().manual_seed(seed)
    x = Value("x", shape)
    nodes: list[Node] = []

    def result(name: str, node_op: str, inputs: list[Value | None], node_attrs: dict[str, Any]) -> Value:
        node = Node(node_op, inputs, [Value(name, ())], node_attrs, f"layers.{name}")
        sample = [None if v is None else (torch.zeros(v.shape) if v.data is None else v.data) for v in inputs]
        node.output.shape = tuple(run_node(node, sample)[0].shape)
        nodes.append(node)
        return node.output

    operands: list[Value | None] = [x]
    for i, item in enumerate(extra):
        if item is None:
            operands.append(None)
        elif item == "square":
            operands.append(result("square", "tanh", [x], {}))
        elif item == "gate":
            operands.append(result("gate", "mean", [x], {"dims": (2, 3), "keepdim": True}))
        elif item == "turned":
            operands.append(result("turned", "permute", [x], {"dims": (0, 1, 3, 2)}))
        else:
            data = torch.randn(item[1:], generator=generator) * (0.2 if len(item) > 2 else 0.5)
            operands.append(Value(f"parameter{i}", tuple(item[1:]), data=data))
    out = result("out", op, operands, dict(attrs))
    graph = Graph([x], [out], nodes, case)
    check(graph)
    ranges: dict[Value, tuple[float, float]] = {}

    def observe(value: Value, tensor: torch.Tensor) -> torch.Tensor:
        if not value.is_constant:
            ranges[value] = (float(tensor.min()), float(tensor.max()))
        return tensor

    run(graph, [images(case, 8, seed)], on_value=observe)
    annotate(graph, ranges)
    return graph


def images(case: str, count: int, seed: int = 0) -> torch.Tensor:
    shape = CASES[case][3]
    generator = torch.Generator().manual_seed(1000 + seed)
    return torch.randn((count, *shape[1:]), generator=generator) * 2.0 + 0.3
