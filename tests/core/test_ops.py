"""Every row of OPS against the torch call it stands for, on small inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from graphs import noise

from edgekit.errors import GraphError
from edgekit.graph.ir import Node, Value
from edgekit.graph.ops import OPS
from edgekit.graph.run import run_node
from edgekit.graph.shapes import infer_shapes

X = noise(2, 4, 5, 6)
Y = noise(2, 4, 5, 6, seed=1)
POSITIVE = X.abs() + 0.1
CHANNEL = noise(4, seed=2)
VARIANCE = CHANNEL.abs() + 0.5
WEIGHT = noise(6, 4, 3, 2, seed=3)
UP_WEIGHT = noise(4, 3, 3, 3, seed=4)
BIAS = noise(6, seed=5)
TOKENS = noise(2, 3, 7, 8, seed=6)
MASK = noise(7, 7, seed=7)
CONV = {"stride": (2, 1), "padding": (0, 1, 1, 0), "dilation": (1, 2), "groups": 1}
UP = {"stride": (2, 2), "padding": (1, 0), "output_padding": (1, 0), "dilation": (1, 1), "groups": 2}
POOL = {"kernel": (3, 2), "stride": (2, 2), "padding": (1, 0)}

Case = tuple[str, list[torch.Tensor | None], dict[str, Any], Callable[[], Any]]
CASES: dict[str, Case] = {
    "conv2d": (
        "conv2d",
        [X, WEIGHT, BIAS],
        CONV,
        lambda: F.conv2d(F.pad(X, (1, 0, 0, 1)), WEIGHT, BIAS, (2, 1), 0, (1, 2)),
    ),
    "conv2d relu6": (
        "conv2d",
        [X, WEIGHT, None],
        {**CONV, "padding": (1, 1, 2, 2), "activation": "relu6"},
        lambda: F.relu6(F.conv2d(X, WEIGHT, None, (2, 1), (1, 2), (1, 2))),
    ),
    "conv_transpose2d": (
        "conv_transpose2d",
        [X, UP_WEIGHT, BIAS],
        UP,
        lambda: F.conv_transpose2d(X, UP_WEIGHT, BIAS, 2, (1, 0), (1, 0), 2),
    ),
    "linear": ("linear", [X, noise(3, 6), None], {}, lambda: X @ noise(3, 6).T),
    "linear relu": (
        "linear",
        [X, noise(3, 6), noise(3)],
        {"activation": "relu"},
        lambda: (X @ noise(3, 6).T + noise(3)).relu(),
    ),
    "matmul": ("matmul", [X, Y.mT], {}, lambda: torch.einsum("bcij,bckj->bcik", X, Y)),
    "batch_norm": (
        "batch_norm",
        [X, CHANNEL, None, CHANNEL, VARIANCE],
        {"eps": 1e-3},
        lambda: (X - CHANNEL.view(4, 1, 1)) / (VARIANCE + 1e-3).sqrt().view(4, 1, 1) * CHANNEL.view(4, 1, 1),
    ),
    "layer_norm": (
        "layer_norm",
        [X, noise(6), None],
        {"normalized_shape": (6,), "eps": 1e-6},
        lambda: F.layer_norm(X, (6,), noise(6), None, 1e-6),
    ),
    "group_norm": (
        "group_norm",
        [X, CHANNEL, CHANNEL],
        {"groups": 2, "eps": 1e-5},
        lambda: F.group_norm(X, 2, CHANNEL, CHANNEL),
    ),
    "l2_normalize": (
        "l2_normalize",
        [X],
        {"dim": 1, "eps": 1e-12},
        lambda: X / X.square().sum(1, True).sqrt(),
    ),
    "relu": ("relu", [X], {}, lambda: X.clamp(min=0)),
    "relu6": ("relu6", [X * 9], {}, lambda: (X * 9).clamp(0, 6)),
    "hardswish": ("hardswish", [X * 4], {}, lambda: X * 4 * F.relu6(X * 4 + 3) / 6),
    "hardsigmoid": ("hardsigmoid", [X * 4], {}, lambda: F.relu6(X * 4 + 3) / 6),
    "sigmoid": ("sigmoid", [X], {}, lambda: 1 / (1 + (-X).exp())),
    "silu": ("silu", [X], {}, lambda: X * X.sigmoid()),
    "gelu": ("gelu", [X], {}, lambda: X * 0.5 * (1 + torch.erf(X / 2**0.5))),
    "gelu tanh": ("gelu", [X], {"approximate": "tanh"}, lambda: F.gelu(X, approximate="tanh")),
    "tanh": ("tanh", [X], {}, lambda: X.tanh()),
    "elu": ("elu", [X], {"alpha": 0.5}, lambda: torch.where(X > 0, X, 0.5 * X.expm1())),
    "leaky_relu": ("leaky_relu", [X], {"negative_slope": 0.2}, lambda: torch.where(X > 0, X, 0.2 * X)),
    "prelu": (
        "prelu",
        [X, CHANNEL],
        {},
        lambda: torch.where(X > 0, X, CHANNEL.view(4, 1, 1) * X),
    ),
    "mish": ("mish", [X], {}, lambda: X * F.softplus(X).tanh()),
    "clamp": ("clamp", [X], {"low": -0.5, "high": None}, lambda: X.clamp(min=-0.5)),
    "softmax": ("softmax", [X], {"dim": 1}, lambda: X.exp() / X.exp().sum(1, True)),
    "add": ("add", [X, CHANNEL.view(4, 1, 1)], {}, lambda: X + CHANNEL.view(4, 1, 1)),
    "add relu": ("add", [X, Y], {"activation": "relu"}, lambda: (X + Y).relu()),
    "sub": ("sub", [X, Y], {}, lambda: X - Y),
    "mul": ("mul", [X, torch.tensor(2.0)], {}, lambda: X * 2),
    "div": ("div", [X, POSITIVE], {}, lambda: X / POSITIVE),
    "maximum": ("maximum", [X, Y], {}, lambda: torch.where(X > Y, X, Y)),
    "minimum": ("minimum", [X, Y], {}, lambda: torch.where(X < Y, X, Y)),
    "abs": ("abs", [X], {}, lambda: X.abs()),
    "neg": ("neg", [X], {}, lambda: -X),
    "exp": ("exp", [X], {}, lambda: X.exp()),
    "log": ("log", [POSITIVE], {}, lambda: POSITIVE.log()),
    "sqrt": ("sqrt", [POSITIVE], {}, lambda: POSITIVE**0.5),
    "rsqrt": ("rsqrt", [POSITIVE], {}, lambda: POSITIVE**-0.5),
    "softplus": ("softplus", [X * 9], {}, lambda: (1 + (X * 9).exp()).log()),
    "floor": ("floor", [X * 3], {}, lambda: X * 3 - torch.remainder(X * 3, 1)),
    "ceil": ("ceil", [X * 3], {}, lambda: -torch.floor(X * -3)),
    "round": ("round", [X * 3], {}, lambda: torch.floor(X * 3 + 0.5)),
    "sign": ("sign", [X], {}, lambda: X / X.abs()),
    "sin": ("sin", [X], {}, lambda: (X - torch.pi / 2).cos()),
    "cos": ("cos", [X], {}, lambda: (X + torch.pi / 2).sin()),
    "greater": ("greater", [X, Y], {}, lambda: 1.0 * (X > Y)),
    "greater_equal": ("greater_equal", [X, Y], {}, lambda: 1.0 * (X >= Y)),
    "equal": ("equal", [X, X.relu()], {}, lambda: 1.0 * (X.relu() == X)),
    "where": ("where", [1.0 * (X > 0), X, Y], {}, lambda: torch.where(X > 0, X, Y)),
    "argmax": ("argmax", [X], {"dim": 1, "keepdim": False}, lambda: 1.0 * X.argmax(1)),
    "topk": ("topk", [X], {"k": 3, "dim": 3}, lambda: X.sort(3, descending=True).values[..., :3]),
    "topk_indices": (
        "topk_indices",
        [X],
        {"k": 3, "dim": 3},
        lambda: 1.0 * X.sort(3, descending=True).indices[..., :3],
    ),
    "gather": ("gather", [X], {"dim": 1, "indices": (3, 0, 0, 2)}, lambda: X[:, [3, 0, 0, 2]]),
    "rms_norm": (
        "rms_norm",
        [TOKENS, noise(8)],
        {"normalized_shape": (8,), "eps": 1e-3},
        lambda: TOKENS / (TOKENS.square().mean(-1, keepdim=True) + 1e-3).sqrt() * noise(8),
    ),
    "pow": ("pow", [X], {"exponent": 3.0}, lambda: X * X * X),
    "max_pool2d": ("max_pool2d", [X], POOL, lambda: F.max_pool2d(X, (3, 2), 2, (1, 0))),
    "max_pool2d ceil": (
        "max_pool2d",
        [X],
        {**POOL, "padding": (0, 0), "ceil_mode": True},
        lambda: F.max_pool2d(X, (3, 2), 2, ceil_mode=True),
    ),
    "avg_pool2d": ("avg_pool2d", [X], POOL, lambda: F.avg_pool2d(X, (3, 2), 2, (1, 0))),
    "avg_pool2d ceil, border not counted": (
        "avg_pool2d",
        [X],
        {**POOL, "ceil_mode": True, "count_include_pad": False},
        lambda: F.avg_pool2d(X, (3, 2), 2, (1, 0), True, False),
    ),
    "adaptive_avg_pool2d": (
        "adaptive_avg_pool2d",
        [X],
        {"output_size": (2, 4)},
        lambda: F.adaptive_avg_pool2d(X, (2, 4)),
    ),
    "mean": ("mean", [X], {"dims": (2, 3), "keepdim": True}, lambda: F.adaptive_avg_pool2d(X, 1)),
    "sum": ("sum", [X], {"dims": (1,), "keepdim": False}, lambda: X.sum(1)),
    "amax": ("amax", [X], {"dims": (2, 3), "keepdim": True}, lambda: F.adaptive_max_pool2d(X, 1)),
    "reshape": ("reshape", [X], {"shape": (-1, 20, 6)}, lambda: X.flatten(1, 2)),
    "permute": ("permute", [X], {"dims": (0, 2, 3, 1)}, lambda: X.movedim(1, -1)),
    "concat": (
        "concat",
        [X, CHANNEL.view(1, 4, 1, 1).expand(1, 4, 5, 2)],
        {"dim": 3},
        lambda: torch.cat([X, CHANNEL.view(1, 4, 1, 1).expand(2, 4, 5, 2)], 3),
    ),
    "split": ("split", [X], {"sizes": (1, 3), "dim": 1}, lambda: (X[:, :1], X[:, 1:])),
    "slice": ("slice", [X], {"dim": 3, "start": 1, "end": 6, "step": 2}, lambda: X[..., 1:6:2]),
    "pad": ("pad", [X], {"pads": (1, 2, 0, 1), "value": -1.0}, lambda: F.pad(X, (1, 2, 0, 1), value=-1.0)),
    "pad reflect": (
        "pad",
        [X],
        {"pads": (1, 2, 3, 1), "mode": "reflect"},
        lambda: F.pad(X, (1, 2, 3, 1), "reflect"),
    ),
    "pad crop": ("pad", [X], {"pads": (-1, 0, 0, -2)}, lambda: X[:, :, :-2, 1:]),
    "expand": ("expand", [X[:, :, :1]], {"shape": (-1, -1, 5, -1)}, lambda: X[:, :, :1].repeat(1, 1, 5, 1)),
    "channel_shuffle": ("channel_shuffle", [X], {"groups": 2}, lambda: X[:, [0, 2, 1, 3]]),
    "channel_shuffle of a permuted tensor": (
        "channel_shuffle",
        [X.permute(0, 3, 1, 2)],
        {"groups": 3},
        lambda: F.channel_shuffle(X.permute(0, 3, 1, 2).contiguous(), 3),
    ),
    "pixel_shuffle": ("pixel_shuffle", [X], {"factor": 2}, lambda: F.pixel_shuffle(X, 2)),
    "pixel_unshuffle": (
        "pixel_unshuffle",
        [X[:, :, :4]],
        {"factor": 2},
        lambda: F.pixel_unshuffle(X[:, :, :4], 2),
    ),
    "roll": ("roll", [X], {"shifts": (1, -2), "dims": (2, 3)}, lambda: X.roll(1, 2).roll(-2, 3)),
    "resize_bilinear": (
        "resize_bilinear",
        [X],
        {"size": (10, 9)},
        lambda: F.interpolate(X, (10, 9), mode="bilinear"),
    ),
    "resize_bilinear corners": (
        "resize_bilinear",
        [X],
        {"size": (9, 3), "align_corners": True},
        lambda: F.interpolate(X, (9, 3), mode="bilinear", align_corners=True),
    ),
    "resize_nearest": (
        "resize_nearest",
        [X],
        {"size": (10, 12)},
        lambda: X.repeat_interleave(2, 2).repeat_interleave(2, 3),
    ),
    "dropout": ("dropout", [X], {"p": 0.5, "mode": "element"}, lambda: X),
    "scaled_dot_product_attention": (
        "scaled_dot_product_attention",
        [TOKENS, TOKENS * 2, TOKENS + 1, MASK],
        {},
        lambda: torch.softmax(TOKENS @ (TOKENS * 2).mT / 8**0.5 + MASK, -1) @ (TOKENS + 1),
    ),
}


def test_every_op_has_a_case() -> None:
    assert {op for op, *_ in CASES.values()} == set(OPS)


@pytest.mark.parametrize("name", CASES)
def test_op(name: str) -> None:
    op, inputs, attrs, expected = CASES[name]
    values = [None if x is None else Value(str(i), tuple(x.shape)) for i, x in enumerate(inputs)]
    node = Node(op, values, [], attrs)
    got = run_node(node, inputs)
    wanted = expected()
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert infer_shapes(node) == tuple(tuple(t.shape) for t in wanted)


@pytest.mark.parametrize("name", CASES)
def test_op_does_not_write_its_inputs(name: str) -> None:
    op, inputs, attrs, _ = CASES[name]
    kept = [None if x is None else x.clone() for x in inputs]
    run_node(Node(op, [], [], attrs), inputs)
    assert all(a is None or torch.equal(a, b) for a, b in zip(inputs, kept, strict=True))


def test_rows_are_complete() -> None:
    for name, op in OPS.items():
        assert op.name == name


def test_shapes_of_an_impossible_node_are_an_error() -> None:
    node = Node("matmul", [Value("a", (1, 3)), Value("b", (4, 1))], [], {}, "head")
    with pytest.raises(GraphError, match="matmul at head cannot run"):
        infer_shapes(node)
