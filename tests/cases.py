"""OP_CASES: op x inputs, one row a case, for every backend.

Each row builds a small float graph with one image input. `float_tolerance` is the largest error relative to
the largest output; `int8_lsb` counts output steps between the runtime and the simulated quantization. Seeds
are local.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from edgekit.graph.check import check
from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.run import run_node

Build = Callable[["Sketch"], Value]


class Sketch:
    """A graph in the making: every call appends one node, with shapes from running it."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.rng = torch.Generator().manual_seed(0)
        self.input = Value("image", shape)
        self.nodes: list[Node] = []
        self.names: dict[str, int] = {}

    def name(self, stem: str) -> str:
        self.names[stem] = self.names.get(stem, 0) + 1
        return f"{stem}_{self.names[stem]}"

    def const(self, *shape: int, scale: float = 1.0, positive: bool = False) -> Value:
        data = torch.randn(shape, generator=self.rng) * scale
        return self.fixed(data.abs() + 0.1 if positive else data)

    def fixed(self, data: torch.Tensor) -> Value:
        return Value(self.name("const"), tuple(data.shape), data=data)

    def ops(self, op: str, *inputs: Value | None, **attrs: Any) -> list[Value]:
        rng = torch.Generator().manual_seed(1)
        samples = [
            None if v is None else v.data if v.data is not None else torch.rand(v.shape, generator=rng)
            for v in inputs
        ]
        node = Node(op, list(inputs), [], attrs, source=f"{op}.{len(self.nodes)}")
        node.outputs = [Value(self.name(op), tuple(t.shape)) for t in run_node(node, samples)]
        self.nodes.append(node)
        return node.outputs

    def op(self, op: str, *inputs: Value | None, **attrs: Any) -> Value:
        return self.ops(op, *inputs, **attrs)[0]

    def conv(
        self,
        x: Value,
        out: int,
        kernel: int | tuple[int, int] = 1,
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, ...] = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        activation: str | None = None,
    ) -> Value:
        kh, kw = (kernel, kernel) if isinstance(kernel, int) else kernel
        c = x.shape[1] // groups
        weight = self.const(out, c, kh, kw, scale=(c * kh * kw) ** -0.5)
        pads = (padding,) * 4 if isinstance(padding, int) else padding
        return self.op(
            "conv2d",
            x,
            weight,
            self.const(out, scale=0.3) if bias else None,
            stride=(stride, stride) if isinstance(stride, int) else stride,
            padding=pads,
            dilation=(dilation, dilation),
            groups=groups,
            activation=activation,
        )

    def linear(self, x: Value, out: int, activation: str | None = None, bias: bool = True) -> Value:
        weight = self.const(out, x.shape[-1], scale=x.shape[-1] ** -0.5)
        return self.op("linear", x, weight, self.const(out) if bias else None, activation=activation)

    def tokens(self, x: Value) -> Value:
        """(N, C, H, W) -> (N, H*W, C)."""
        _, c, h, w = x.shape
        return self.op("permute", self.op("reshape", x, shape=(-1, c, h * w)), dims=(0, 2, 1))

    def graph(self, *outputs: Value) -> Graph:
        graph = Graph([self.input], list(outputs), self.nodes, "case")
        check(graph)
        return graph


@dataclass(frozen=True)
class Case:
    build: Build
    shape: tuple[int, ...] = (1, 8, 10, 12)
    float_tolerance: float = 2e-6
    int8_lsb: int = 1
    xfail: dict[str, str] = field(default_factory=dict)  # target name -> reason

    def graph(self) -> Graph:
        sketch = Sketch(self.shape)
        result = self.build(sketch)
        return sketch.graph(*result) if isinstance(result, list | tuple) else sketch.graph(result)

    def images(self, count: int = 4) -> torch.Tensor:
        rng = torch.Generator().manual_seed(7)
        return torch.randn((count, *self.shape[1:]), generator=rng) * 2.0


def unary(op: str, **attrs: Any) -> Build:
    return lambda s: s.op(op, s.input, **attrs)


def positive(op: str, **attrs: Any) -> Build:
    """The op on numbers in (0.3, 1.3)."""

    def build(s: Sketch) -> Value:
        squashed = s.op("sigmoid", s.input)
        return s.op(op, s.op("add", squashed, s.fixed(torch.tensor([0.3])), activation=None), **attrs)

    return build


def binary(op: str, **attrs: Any) -> Build:
    """The image with a second tensor of another scale."""
    return lambda s: s.op(op, s.input, s.op("hardswish", s.input), **attrs)


def conv(out: int, kernel: int | tuple[int, int], **kwargs: Any) -> Build:
    return lambda s: s.conv(s.input, out, kernel, **kwargs)


def _bias_only(s: Sketch) -> Value:
    return s.op("mul", s.input, s.const(1, 8, 1, 1), activation=None)


def _channel_gate(s: Sketch) -> Value:
    """Squeeze and excite."""
    pooled = s.op("mean", s.input, dims=(2, 3), keepdim=True)
    gate = s.op("hardsigmoid", s.conv(s.conv(pooled, 4, activation="relu"), 8))
    return s.op("mul", gate, s.input, activation=None)


def _transposed(groups: int = 1, dilation: tuple[int, int] = (1, 1), **attrs: Any) -> Build:
    sizes = {"stride": (2, 2), "padding": (1, 1), "output_padding": (1, 1), **attrs}

    def build(s: Sketch) -> Value:
        out = 6 if groups == 1 else 2 * groups
        operands = (s.input, s.const(8, out // groups, 3, 3, scale=0.2), s.const(out))
        return s.op("conv_transpose2d", *operands, groups=groups, dilation=dilation, activation=None, **sizes)

    return build


def _batch_norm(s: Sketch) -> Value:
    gamma, beta, mean, var = (s.const(8, positive=p) for p in (True, False, False, True))
    return s.op("batch_norm", s.input, gamma, beta, mean, var, eps=1e-5)


def _matmul(s: Sketch) -> Value:
    """q k^T, with k transposed."""
    q, k = s.tokens(s.input), s.tokens(s.op("hardswish", s.input))
    return s.op("matmul", q, s.op("permute", k, dims=(0, 2, 1)))


def _attention(s: Sketch) -> Value:
    x = s.tokens(s.input)
    scale = s.fixed(torch.tensor([0.1]))
    q, k, v = (s.op("reshape", s.linear(x, 8), shape=(-1, x.shape[1], 2, 4)) for _ in range(3))
    q = s.op("mul", q, scale, activation=None)
    q, v = s.op("permute", q, dims=(0, 2, 1, 3)), s.op("permute", v, dims=(0, 2, 1, 3))
    scores = s.op("matmul", q, s.op("permute", k, dims=(0, 2, 3, 1)))
    mixed = s.op("matmul", s.op("softmax", scores, dim=-1), v)
    back = s.op("reshape", s.op("permute", mixed, dims=(0, 2, 1, 3)), shape=(-1, x.shape[1], 8))
    return s.linear(back, 8)


def _multi_query(s: Sketch) -> Value:
    """Two heads ask one key and one value."""
    x = s.tokens(s.input)
    q = s.op("permute", s.op("reshape", s.linear(x, 8), shape=(-1, x.shape[1], 2, 4)), dims=(0, 2, 1, 3))
    k, v = (s.op("reshape", s.linear(x, 4), shape=(-1, 1, x.shape[1], 4)) for _ in range(2))
    q = s.op("mul", q, s.fixed(torch.tensor([0.1])), activation=None)
    scores = s.op("matmul", q, s.op("permute", k, dims=(0, 1, 3, 2)))
    mixed = s.op("matmul", s.op("softmax", scores, dim=-1), v)
    back = s.op("reshape", s.op("permute", mixed, dims=(0, 2, 1, 3)), shape=(-1, x.shape[1], 8))
    return s.linear(back, 8)


def _window_layer(s: Sketch) -> Value:
    """A layer on windows that are folded into the leading dimension."""
    x = s.op("permute", s.input, dims=(0, 2, 3, 1))
    h, w, c = x.shape[1:]
    x = s.op("reshape", x, shape=(-1, h // 4, 4, w // 4, 4, c))
    x = s.op("reshape", s.op("permute", x, dims=(0, 1, 3, 2, 4, 5)), shape=(-1, 16, c))
    y = s.linear(x, 12, "relu")
    y = s.op("reshape", y, shape=(-1, h // 4, w // 4, 4, 4, 12))
    return s.op("reshape", s.op("permute", y, dims=(0, 1, 3, 2, 4, 5)), shape=(-1, h, w, 12))


def _unequal_pieces(s: Sketch) -> Value:
    """A sigmoid joined with forty times itself, which another layer reads too."""
    gate = s.op("sigmoid", s.input)
    large = s.op("mul", gate, s.fixed(torch.tensor([40.0])), activation=None)
    joined = s.op("concat", gate, large, dim=1)
    return s.op("add", s.conv(joined, 8, 1), s.conv(gate, 8, 1), activation=None)


def _one_piece_unread(s: Sketch) -> Value:
    return s.op("mul", s.ops("split", s.input, sizes=(5, 3), dim=1)[0], s.const(1), activation=None)


def _layer_norm(s: Sketch) -> Value:
    x = s.tokens(s.input)
    return s.op("layer_norm", x, s.const(8, positive=True), s.const(8), normalized_shape=(8,), eps=1e-6)


def _channels_last_norm(s: Sketch) -> Value:
    """permute, layer_norm, linear, permute back: ConvNeXt's block."""
    x = s.op("permute", s.conv(s.input, 8, 7, padding=3, groups=8), dims=(0, 2, 3, 1))
    x = s.op("layer_norm", x, s.const(8, positive=True), s.const(8), normalized_shape=(8,), eps=1e-6)
    x = s.linear(s.op("gelu", s.linear(x, 32)), 8)
    return s.op("add", s.input, s.op("permute", x, dims=(0, 3, 1, 2)), activation=None)


def _split(sizes: tuple[int, ...]) -> Build:
    def build(s: Sketch) -> Value:
        pieces = s.ops("split", s.input, sizes=sizes, dim=1)
        return s.op("concat", *pieces[::-1], dim=1)

    return build


def _concat_many(s: Sketch) -> Value:
    pieces = [s.conv(s.input, 4, activation="relu") for _ in range(7)]
    return s.op("concat", *pieces, dim=1)


def _shuffle(s: Sketch) -> Value:
    """Two convolutions around a shuffle."""
    both = s.op("concat", s.conv(s.input, 6), s.conv(s.input, 6), dim=1)
    first, second = s.ops("split", s.op("channel_shuffle", both, groups=2), sizes=(6, 6), dim=1)
    return s.op("concat", s.conv(first, 4), s.conv(second, 4), dim=1)


def _windows(s: Sketch) -> Value:
    """Swin's window partition and back, with a shift."""
    x = s.op("permute", s.input, dims=(0, 2, 3, 1))
    x = s.op("roll", x, shifts=(-2, -2), dims=(1, 2))
    x = s.op("permute", s.op("reshape", x, shape=(-1, 2, 5, 3, 4, 8)), dims=(0, 1, 3, 2, 4, 5))
    x = s.linear(s.op("reshape", x, shape=(-1, 20, 8)), 8)
    x = s.op("permute", s.op("reshape", x, shape=(-1, 2, 3, 5, 4, 8)), dims=(0, 1, 3, 2, 4, 5))
    return s.op("permute", s.op("reshape", x, shape=(-1, 10, 12, 8)), dims=(0, 3, 1, 2))


def _flatten(s: Sketch) -> Value:
    return s.linear(s.op("reshape", s.conv(s.input, 4), shape=(-1, 480)), 5)


def _head(s: Sketch) -> Value:
    pooled = s.op("mean", s.input, dims=(2, 3), keepdim=True)
    return s.linear(s.op("reshape", pooled, shape=(-1, 8)), 5)


def _class_token(s: Sketch) -> Value:
    x = s.op("concat", s.op("expand", s.const(1, 1, 8), shape=(1, -1, -1)), s.tokens(s.input), dim=1)
    x = s.op("add", x, s.const(1, 121, 8), activation=None)
    return s.op("reshape", s.op("slice", x, dim=1, start=0, end=1, step=1), shape=(-1, 8))


def _relu_pool(**attrs: Any) -> Build:
    """Padding with zeros is right where nothing is negative."""
    return lambda s: s.op(
        "max_pool2d", s.op("add", s.input, s.op("hardswish", s.input), activation="relu"), **attrs
    )


def _grown_pool(activation: str | None) -> Build:
    def build(s: Sketch) -> Value:
        x = s.conv(s.input, 6, 5, stride=2, padding=2, activation=activation)
        return s.op("max_pool2d", x, kernel=(3, 3), stride=(2, 2), padding=(1, 1))

    return build


def _compared(op: str) -> Build:
    """The image with a second tensor that it crosses."""
    return lambda s: s.op(op, s.input, s.op("hardsigmoid", s.input))


def _where(s: Sketch) -> Value:
    """Chosen between two grids, by a comparison."""
    asked = s.op("greater", s.input, s.fixed(torch.tensor(0.25)))
    return s.op("where", asked, s.input, s.op("mul", s.input, s.fixed(torch.tensor([-0.1])), activation=None))


def _where_number(s: Sketch) -> Value:
    return s.op(
        "where", s.op("greater", s.input, s.op("relu6", s.input)), s.fixed(torch.tensor(0.5)), s.input
    )


def _where_channels(s: Sketch) -> Value:
    """A fixed condition that broadcasts."""
    return s.op("where", s.fixed((torch.arange(8.0) % 2).view(8, 1, 1)), s.input, s.op("hardswish", s.input))


_POOL = {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1)}
_EVEN = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0)}
_STEM = (1, 3, 32, 32)

OP_CASES: dict[str, Case] = {
    # convolutions
    "conv2d-1x1": Case(conv(16, 1)),
    "conv2d-1x1-relu": Case(conv(16, 1, activation="relu")),
    "conv2d-1x1-stride2": Case(conv(16, 1, stride=2)),
    "conv2d-3x3-same": Case(conv(16, 3, padding=1, activation="relu6")),
    "conv2d-3x3-no-bias": Case(conv(16, 3, bias=False)),
    "conv2d-3x3-stride2": Case(conv(16, 3, stride=2, padding=1)),
    "conv2d-3x3-stride2-odd": Case(conv(16, 3, stride=2, padding=1), (1, 8, 11, 13)),
    "conv2d-5x5-stride2": Case(conv(8, 5, stride=2, padding=2)),
    "conv2d-asymmetric": Case(conv(8, 3, stride=2, padding=(0, 1, 2, 1))),
    "conv2d-1x7": Case(conv(8, (1, 7), padding=(0, 0, 3, 3))),
    "conv2d-7x1": Case(conv(8, (7, 1), padding=(3, 3, 0, 0))),
    "conv2d-stride-1x2": Case(conv(8, 3, stride=(1, 2), padding=1)),
    "conv2d-dilated": Case(conv(8, 3, padding=2, dilation=2)),
    "conv2d-grouped": Case(conv(16, 3, padding=1, groups=4)),
    "conv2d-stem-3x3": Case(conv(8, 3, stride=2, padding=1, activation="relu"), _STEM),
    "conv2d-stem-7x7": Case(conv(8, 7, stride=2, padding=3), _STEM),
    "conv2d-stem-odd": Case(conv(8, 3, stride=2), (1, 3, 31, 31)),
    "conv2d-patches": Case(conv(16, 8, stride=8), _STEM),
    "conv2d-overlapping-patches": Case(conv(16, 7, stride=4, padding=3), _STEM),
    "conv2d-stem-11x11": Case(conv(8, 11, stride=4, padding=2), _STEM),
    "conv2d-depthwise": Case(conv(8, 3, padding=1, groups=8)),
    "conv2d-depthwise-5x5-stride2": Case(conv(8, 5, stride=2, padding=2, groups=8, activation="relu")),
    "conv2d-depthwise-7x7": Case(conv(8, 7, padding=3, groups=8)),
    "conv2d-depthwise-dilated": Case(conv(8, 3, padding=2, dilation=2, groups=8)),
    "conv2d-depthwise-multiplier": Case(conv(16, 3, padding=1, groups=8)),
    "conv_transpose2d": Case(_transposed()),
    "conv_transpose2d-grouped": Case(_transposed(groups=4)),
    "conv_transpose2d-depthwise": Case(_transposed(groups=8)),
    "conv_transpose2d-dilated": Case(_transposed(dilation=(2, 1), output_padding=(0, 1))),
    "conv_transpose2d-more-output-padding": Case(_transposed(padding=(0, 1), output_padding=(1, 1))),
    "linear": Case(_head),
    "linear-flatten": Case(_flatten),
    "linear-tokens": Case(lambda s: s.linear(s.tokens(s.input), 12, "relu")),
    "linear-channels-last": Case(lambda s: s.linear(s.op("permute", s.input, dims=(0, 2, 3, 1)), 12)),
    "linear-windows": Case(_window_layer, (1, 8, 8, 8)),
    "linear-no-bias": Case(lambda s: s.linear(s.tokens(s.input), 12, bias=False)),
    "matmul": Case(_matmul),
    "matmul-constant": Case(lambda s: s.op("matmul", s.tokens(s.input), s.const(8, 5))),
    "matmul-constant-positive": Case(lambda s: s.op("matmul", s.input, s.const(12, 1, positive=True))),
    "matmul-constant-batched": Case(lambda s: s.op("matmul", s.tokens(s.input), s.const(1, 8, 5))),
    "matmul-constant-rank4": Case(lambda s: s.op("matmul", s.input, s.const(1, 8, 12, 6))),
    "matmul-constant-left": Case(lambda s: s.op("matmul", s.const(6, 120), s.tokens(s.input))),
    "matmul-constant-left-rank4": Case(lambda s: s.op("matmul", s.const(1, 8, 6, 10), s.input)),
    "attention": Case(_attention, int8_lsb=2),
    "attention-multi-query": Case(_multi_query, int8_lsb=2),
    # normalisation
    "batch_norm": Case(_batch_norm),
    "layer_norm": Case(_layer_norm, float_tolerance=1e-5),
    "layer_norm-channels-last": Case(_channels_last_norm, float_tolerance=1e-5, int8_lsb=2),
    "group_norm": Case(
        lambda s: s.op("group_norm", s.input, s.const(8), s.const(8), groups=4, eps=1e-5),
        float_tolerance=1e-5,
    ),
    "rms_norm": Case(
        lambda s: s.op("rms_norm", s.tokens(s.input), s.const(8), normalized_shape=(8,), eps=1e-6),
        float_tolerance=1e-5,
    ),
    "rms_norm-image": Case(
        lambda s: s.op("rms_norm", s.input, None, normalized_shape=(10, 12), eps=1e-3), float_tolerance=1e-5
    ),
    "l2_normalize": Case(unary("l2_normalize", dim=1, eps=1e-12), float_tolerance=1e-5),
    # activations
    "relu": Case(unary("relu")),
    "relu6": Case(unary("relu6")),
    "hardswish": Case(unary("hardswish")),
    "hardsigmoid": Case(unary("hardsigmoid")),
    "sigmoid": Case(unary("sigmoid")),
    "silu": Case(unary("silu")),
    "gelu": Case(unary("gelu"), float_tolerance=1e-5),
    "gelu-tanh": Case(unary("gelu", approximate="tanh"), float_tolerance=1e-5),
    "tanh": Case(unary("tanh")),
    "elu": Case(unary("elu", alpha=1.0), float_tolerance=1e-5),
    "elu-alpha": Case(unary("elu", alpha=0.5), float_tolerance=1e-5),
    "elu-large-alpha": Case(unary("elu", alpha=1.7), float_tolerance=1e-5),
    "leaky_relu": Case(unary("leaky_relu", negative_slope=0.2)),
    "prelu": Case(lambda s: s.op("prelu", s.input, s.const(8))),
    "mish": Case(unary("mish"), float_tolerance=1e-5),
    "softplus": Case(unary("softplus"), float_tolerance=1e-5),
    "clamp": Case(unary("clamp", low=-0.5, high=1.5)),
    "clamp-low": Case(unary("clamp", low=-0.5, high=None)),
    "softmax": Case(unary("softmax", dim=1)),
    "softmax-tokens": Case(lambda s: s.op("softmax", s.tokens(s.input), dim=-1)),
    # element-wise
    "add": Case(binary("add", activation=None)),
    "add-relu": Case(binary("add", activation="relu")),
    "add-constant": Case(lambda s: s.op("add", s.input, s.const(8, 1, 1), activation=None)),
    "sub": Case(binary("sub", activation=None)),
    "mul": Case(binary("mul", activation=None)),
    "mul-channels": Case(_bias_only),
    "mul-gate": Case(_channel_gate),
    "div": Case(lambda s: s.op("div", s.input, s.const(1, 8, 1, 1, positive=True), activation=None)),
    "maximum": Case(binary("maximum")),
    "minimum": Case(binary("minimum")),
    "abs": Case(unary("abs")),
    "neg": Case(unary("neg")),
    "exp": Case(lambda s: s.op("exp", s.op("tanh", s.input)), float_tolerance=1e-5),
    "log": Case(positive("log"), float_tolerance=1e-5),
    "sqrt": Case(positive("sqrt"), float_tolerance=1e-5),
    "rsqrt": Case(positive("rsqrt"), float_tolerance=1e-5),
    "pow": Case(unary("pow", exponent=2.0)),
    "pow-3": Case(positive("pow", exponent=3.0), float_tolerance=1e-5),
    "floor": Case(unary("floor")),
    "ceil": Case(unary("ceil")),
    "round": Case(unary("round")),
    "sign": Case(unary("sign")),
    "sin": Case(unary("sin"), float_tolerance=1e-5),
    "cos": Case(unary("cos"), float_tolerance=1e-5),
    "greater": Case(_compared("greater")),
    "greater-number": Case(lambda s: s.op("greater", s.input, s.fixed(torch.tensor(0.5)))),
    "greater_equal": Case(_compared("greater_equal")),
    "greater_equal-channels": Case(lambda s: s.op("greater_equal", s.input, s.const(8, 1, 1))),
    "equal": Case(lambda s: s.op("equal", s.op("relu", s.input), s.fixed(torch.tensor(0.0)))),
    "where": Case(_where),
    "where-number": Case(_where_number),
    "where-channels": Case(_where_channels),
    "argmax": Case(unary("argmax", dim=1, keepdim=False)),
    "argmax-keepdim": Case(unary("argmax", dim=3, keepdim=True)),
    "argmax-tokens": Case(lambda s: s.op("argmax", s.tokens(s.input), dim=-1, keepdim=False)),
    "topk": Case(unary("topk", k=3, dim=1)),
    "topk-width": Case(unary("topk", k=2, dim=3)),
    "topk_indices": Case(unary("topk_indices", k=3, dim=1)),
    # pooling and reductions
    "max_pool2d": Case(unary("max_pool2d", **_EVEN)),
    "max_pool2d-padded": Case(unary("max_pool2d", **_POOL)),
    "max_pool2d-padded-odd": Case(unary("max_pool2d", **_POOL), (1, 8, 11, 13)),
    "max_pool2d-same": Case(unary("max_pool2d", kernel=(3, 3), stride=(1, 1), padding=(1, 1))),
    "max_pool2d-ceil": Case(
        unary("max_pool2d", kernel=(3, 3), stride=(2, 2), padding=(0, 0), ceil_mode=True)
    ),
    "max_pool2d-dilated": Case(
        unary("max_pool2d", kernel=(3, 2), stride=(1, 1), padding=(1, 1), dilation=(2, 1))
    ),
    "max_pool2d-dilated-stride2": Case(
        unary("max_pool2d", kernel=(2, 3), stride=(2, 2), padding=(0, 1), dilation=(2, 2))
    ),
    "max_pool2d-after-relu": Case(_relu_pool(**_POOL)),
    "max_pool2d-grown": Case(_grown_pool("relu"), (1, 3, 32, 32)),
    "max_pool2d-grown-signed": Case(_grown_pool(None), (1, 3, 32, 40)),
    "avg_pool2d": Case(unary("avg_pool2d", **_EVEN)),
    "avg_pool2d-padded": Case(unary("avg_pool2d", kernel=(3, 3), stride=(1, 1), padding=(1, 1))),
    "avg_pool2d-border": Case(
        unary("avg_pool2d", kernel=(3, 3), stride=(1, 1), padding=(1, 1), count_include_pad=False)
    ),
    "avg_pool2d-border-stride2": Case(unary("avg_pool2d", **_POOL, count_include_pad=False)),
    "avg_pool2d-ceil": Case(
        unary("avg_pool2d", **_EVEN, ceil_mode=True, count_include_pad=False), (1, 8, 11, 13)
    ),
    "adaptive_avg_pool2d": Case(unary("adaptive_avg_pool2d", output_size=(5, 4))),
    "adaptive_avg_pool2d-uneven": Case(unary("adaptive_avg_pool2d", output_size=(7, 5))),
    "adaptive_avg_pool2d-grown": Case(unary("adaptive_avg_pool2d", output_size=(14, 12))),
    "mean": Case(unary("mean", dims=(2, 3), keepdim=True)),
    "mean-flat": Case(unary("mean", dims=(2, 3), keepdim=False)),
    "mean-tokens": Case(lambda s: s.op("mean", s.tokens(s.input), dims=(1,), keepdim=False)),
    "mean-channels": Case(unary("mean", dims=(1,), keepdim=True)),
    "sum": Case(unary("sum", dims=(2, 3), keepdim=True)),
    "amax": Case(unary("amax", dims=(1,), keepdim=True)),
    # data movement
    "reshape": Case(unary("reshape", shape=(-1, 8, 120))),
    "permute": Case(lambda s: s.linear(s.op("permute", s.input, dims=(0, 3, 1, 2)), 6)),
    "concat": Case(lambda s: s.op("concat", s.input, s.op("relu", s.input), dim=1)),
    "concat-many": Case(_concat_many),
    "concat-unequal": Case(_unequal_pieces),
    "split": Case(_split((4, 4))),
    "split-uneven": Case(_split((2, 5, 1))),
    "split-unread": Case(_one_piece_unread),
    "slice": Case(unary("slice", dim=2, start=1, end=9, step=1)),
    "slice-step": Case(unary("slice", dim=3, start=1, end=12, step=2)),
    "slice-step-uneven": Case(unary("slice", dim=2, start=1, end=10, step=3)),
    "slice-twice": Case(
        lambda s: s.op("slice", s.op("slice", s.input, dim=2, start=1, end=9), dim=3, start=2, end=-1)
    ),
    "pad": Case(unary("pad", pads=(1, 2, 0, 1))),
    "pad-negative": Case(unary("pad", pads=(-1, 2, 1, -2))),
    "pad-value": Case(unary("pad", pads=(1, 1), value=1.5)),
    "pad-reflect": Case(unary("pad", pads=(1, 1, 2, 2), mode="reflect")),
    "pad-reflect-uneven": Case(unary("pad", pads=(0, 2, 1, 0), mode="reflect")),
    "pad-reflect-far": Case(unary("pad", pads=(3, 3, 3, 3), mode="reflect")),
    "expand": Case(_class_token),
    "channel_shuffle": Case(unary("channel_shuffle", groups=2)),
    "channel_shuffle-folded": Case(_shuffle),
    "pixel_shuffle": Case(unary("pixel_shuffle", factor=2)),
    "pixel_unshuffle": Case(unary("pixel_unshuffle", factor=2)),
    "gather": Case(unary("gather", dim=1, indices=(7, 0, 3, 3, 1))),
    "gather-width": Case(unary("gather", dim=3, indices=tuple(range(12))[::-1])),
    "roll": Case(unary("roll", shifts=(-2, 3), dims=(2, 3))),
    "windows": Case(_windows),
    "resize_bilinear": Case(unary("resize_bilinear", size=(20, 18)), int8_lsb=1),
    "resize_bilinear-corners": Case(unary("resize_bilinear", size=(20, 18), align_corners=True)),
    "resize_bilinear-17-to-33": Case(unary("resize_bilinear", size=(33, 21)), (1, 8, 17, 11)),
    "resize_bilinear-26-to-51": Case(unary("resize_bilinear", size=(51, 21)), (1, 8, 26, 11), 5e-6),
    "resize_bilinear-corners-17-to-33": Case(
        unary("resize_bilinear", size=(33, 21), align_corners=True), (1, 8, 17, 11)
    ),
    "resize_bilinear-smaller": Case(unary("resize_bilinear", size=(17, 11)), (1, 8, 33, 21), 5e-6),
    "resize_bilinear-corners-smaller": Case(
        unary("resize_bilinear", size=(17, 11), align_corners=True), (1, 8, 33, 21)
    ),
    "resize_nearest": Case(unary("resize_nearest", size=(20, 24))),
    "resize_nearest-8": Case(unary("resize_nearest", size=(80, 36))),
    "resize_nearest-uneven": Case(unary("resize_nearest", size=(17, 12))),
    "resize_nearest-17-to-33": Case(unary("resize_nearest", size=(33, 21)), (1, 8, 17, 11)),
}
