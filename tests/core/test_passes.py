"""Each pass: how often it rewrites, which ops are left, the same numbers; and where it must not fire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from graphs import Apply, captured, chain, noise, ops, outputs, randomize
from torch import nn

from edgekit.capture import capture
from edgekit.errors import GraphError
from edgekit.graph.check import check
from edgekit.graph.file import graph_hash
from edgekit.graph.ir import Graph, Node, QuantParams, Value
from edgekit.graph.module import as_module
from edgekit.passes import FLOAT, Pass, optimize
from edgekit.passes.canonicalize_pooling import canonicalize_pooling
from edgekit.passes.convert_batch_norm import convert_batch_norm
from edgekit.passes.drop_padded_channels import drop_padded_channels
from edgekit.passes.drop_training import drop_training
from edgekit.passes.expand_attention import expand_attention
from edgekit.passes.fold_batch_norm import fold_batch_norm
from edgekit.passes.fold_scale import fold_scale
from edgekit.passes.fuse_activation import fuse_activation
from edgekit.passes.fuse_padding import fuse_padding
from edgekit.passes.merge_movement import merge_movement
from edgekit.passes.recognize_activation import recognize_activation
from edgekit.passes.recognize_channel_shuffle import recognize_channel_shuffle
from edgekit.passes.recognize_l2_normalize import recognize_l2_normalize
from edgekit.passes.recognize_pixel_shuffle import recognize_pixel_shuffle
from edgekit.passes.rewrite import new_constant

X = noise(1, 4, 8, 8)
ROW = noise(1, 4, seed=1)
TOKENS = noise(1, 6, 4, seed=2)
CHANNEL = noise(4, 1, 1, seed=3)
NARROW = F.pad(noise(5, 4, 3, 3, seed=4), (0, 0, 0, 0, 0, 1))  # zero weights for a fifth channel


def conv(out: int = 4, **kwargs: Any) -> nn.Conv2d:
    return nn.Conv2d(4, out, 3, **{"padding": 1, **kwargs})


def norm(channels: int = 4) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def line() -> nn.Linear:
    return nn.Linear(4, 4)


def rewritten(graph: Graph, rewrite: Pass, rewrites: int, left: list[str], x: torch.Tensor = X) -> Graph:
    """Apply one pass and assert the three things; user tensors must stay as they are."""
    images = torch.cat([x, x.flip(-1) * 2])
    before = outputs(graph, images)
    state = [(v.data, v.data.clone()) for v in graph.constants()]
    names = [v.name for v in graph.outputs]
    assert rewrite(graph) == rewrites
    graph.remove_dead()
    check(graph)
    assert ops(graph) == left
    for a, b in zip(outputs(graph, images), before, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in state)
    assert rewrites or [v.name for v in graph.outputs] == names
    return graph


Row = tuple[Pass, Callable[..., Any], dict[str, Any], torch.Tensor, int, list[str]]


def window(m: Any, x: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) shuffled by hand."""
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


FIRES: dict[str, Row] = {
    "normalized to length one": (
        recognize_l2_normalize,
        lambda m, x: F.normalize(x, dim=1, eps=1e-6),
        {},
        X,
        1,
        ["l2_normalize"],
    ),
    "pixels shuffled by hand": (
        recognize_pixel_shuffle,
        lambda m, x: x.view(-1, 1, 2, 2, 8, 8).permute(0, 1, 4, 2, 5, 3).reshape(-1, 1, 16, 16),
        {},
        X,
        1,
        ["pixel_shuffle"],
    ),
    "pixels unshuffled by hand": (
        recognize_pixel_shuffle,
        lambda m, x: x.view(-1, 4, 4, 2, 4, 2).permute(0, 1, 3, 5, 2, 4).reshape(-1, 16, 4, 4),
        {},
        X,
        1,
        ["pixel_unshuffle"],
    ),
    "bn after conv": (
        fold_batch_norm,
        lambda m, x: m.n(m.c(x)),
        {"c": conv(), "n": norm()},
        X,
        1,
        ["conv2d"],
    ),
    "bn after conv without bias, grouped": (
        fold_batch_norm,
        lambda m, x: m.n(m.c(x)),
        {"c": conv(8, bias=False, groups=2), "n": norm(8)},
        X,
        1,
        ["conv2d"],
    ),
    "bn without weights": (
        fold_batch_norm,
        lambda m, x: m.n(m.c(x)),
        {"c": conv(), "n": nn.BatchNorm2d(4, affine=False)},
        X,
        1,
        ["conv2d"],
    ),
    "bn after bn after conv": (
        fold_batch_norm,
        lambda m, x: m.p(m.n(m.c(x))),
        {"c": conv(), "n": norm(), "p": norm()},
        X,
        2,
        ["conv2d"],
    ),
    "bn after transposed conv": (
        fold_batch_norm,
        lambda m, x: m.n(m.c(x)),
        {"c": nn.ConvTranspose2d(4, 6, 3, 2), "n": norm(6)},
        X,
        1,
        ["conv_transpose2d"],
    ),
    "bn after linear": (
        fold_batch_norm,
        lambda m, x: m.n(m.l(x)),
        {"l": line(), "n": nn.BatchNorm1d(4)},
        ROW,
        1,
        ["linear"],
    ),
    "one conv read through two bns: two calls": (
        fold_batch_norm,
        lambda m, x: m.n(m.c(x)) + m.p(m.c(x)),
        {"c": conv(), "n": norm(), "p": norm()},
        X,
        2,
        ["conv2d", "conv2d", "add"],
    ),
    "bn alone": (convert_batch_norm, lambda m, x: m.n(x), {"n": norm()}, X, 1, ["conv2d"]),
    "bn alone on rows": (
        convert_batch_norm,
        lambda m, x: m.n(x),
        {"n": nn.BatchNorm1d(4)},
        ROW,
        1,
        ["mul", "add"],
    ),
    "bn alone on sequences": (
        convert_batch_norm,
        lambda m, x: m.n(x),
        {"n": nn.BatchNorm1d(6)},
        TOKENS,
        1,
        ["mul", "add"],
    ),
    "scale of conv": (fold_scale, lambda m, x: m.c(x) * m.v, {"c": conv(), "v": CHANNEL}, X, 1, ["conv2d"]),
    "scale of grouped conv": (
        fold_scale,
        lambda m, x: m.v * m.c(x),
        {"c": conv(groups=2), "v": CHANNEL[None]},
        X,
        1,
        ["conv2d"],
    ),
    "number and shift of conv": (
        fold_scale,
        lambda m, x: m.c(x) * 0.5 + 2 - m.v,
        {"c": conv(bias=False), "v": CHANNEL},
        X,
        3,
        ["conv2d"],
    ),
    "scale of linear": (
        fold_scale,
        lambda m, x: m.l(x) * m.v,
        {"l": line(), "v": CHANNEL.flatten()},
        ROW,
        1,
        ["linear"],
    ),
    "relu and relu6": (
        fuse_activation,
        lambda m, x: F.relu6(m.d(F.relu(m.c(x)) * 3)),
        {"c": conv(), "d": conv()},
        X,
        2,
        ["conv2d", "mul", "conv2d"],
    ),
    "relu of a sum and of a product": (
        fuse_activation,
        lambda m, x: F.relu(F.relu(x + m.v) * m.v),
        {"v": CHANNEL},
        X,
        2,
        ["add", "mul"],
    ),
    "relu behind max pooling": (
        fuse_activation,
        lambda m, x: F.relu(F.max_pool2d(m.c(x), 3, 2, 1)),
        {"c": conv()},
        X,
        1,
        ["conv2d", "max_pool2d"],
    ),
    "pad before conv": (
        fuse_padding,
        lambda m, x: m.c(F.pad(x, (1, 0, 2, 3))),
        {"c": conv()},
        X,
        1,
        ["conv2d"],
    ),
    "pad of columns only": (
        fuse_padding,
        lambda m, x: m.c(F.pad(x, (2, 1))),
        {"c": conv(stride=2)},
        X,
        1,
        ["conv2d"],
    ),
    "pad before average": (
        fuse_padding,
        lambda m, x: F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2),
        {},
        X,
        1,
        ["avg_pool2d"],
    ),
    "adaptive to one": (
        canonicalize_pooling,
        lambda m, x: F.adaptive_avg_pool2d(x, 1) * 2,
        {},
        X,
        1,
        ["mean", "mul"],
    ),
    "adaptive to one, flattened": (
        canonicalize_pooling,
        lambda m, x: F.adaptive_avg_pool2d(x, 1).flatten(1),
        {},
        X,
        2,
        ["mean"],
    ),
    "adaptive, same size": (
        canonicalize_pooling,
        lambda m, x: F.adaptive_avg_pool2d(x, 8) * 2,
        {},
        X,
        1,
        ["mul"],
    ),
    "adaptive, divisible": (
        canonicalize_pooling,
        lambda m, x: F.adaptive_avg_pool2d(x, (4, 2)),
        {},
        X,
        1,
        ["avg_pool2d"],
    ),
    "average over the map": (
        canonicalize_pooling,
        lambda m, x: F.avg_pool2d(x, 8, ceil_mode=True),
        {},
        X,
        1,
        ["mean"],
    ),
    "reshape after reshape": (
        merge_movement,
        lambda m, x: x.reshape(-1, 2, 128).reshape(-1, 16, 16) * 2,
        {},
        X,
        1,
        ["reshape", "mul"],
    ),
    "there and back": (
        merge_movement,
        lambda m, x: x.flatten(2).reshape(-1, 4, 8, 8) * 2,
        {},
        X,
        2,
        ["mul"],
    ),
    "permutes": (
        merge_movement,
        lambda m, x: x.permute(0, 2, 3, 1).permute(0, 2, 1, 3).permute(0, 3, 1, 2) * 2,
        {},
        X,
        2,
        ["permute", "mul"],
    ),
    "permutes that cancel": (
        merge_movement,
        lambda m, x: x.permute(0, 2, 3, 1).permute(0, 3, 1, 2) * 2,
        {},
        X,
        2,
        ["mul"],
    ),
    "hardsigmoid in pieces": (
        recognize_activation,
        lambda m, x: F.relu6(x + 3) / 6,
        {},
        X * 4,
        1,
        ["hardsigmoid"],
    ),
    "hardsigmoid by a sixth": (
        recognize_activation,
        lambda m, x: (x + 3).clamp(0, 6) * (1 / 6),
        {},
        X * 4,
        1,
        ["hardsigmoid"],
    ),
    "hardswish in pieces": (
        recognize_activation,
        lambda m, x: x * (F.relu6(x + 3) / 6),
        {},
        X * 4,
        2,
        ["hardswish"],
    ),
    "hardswish, divided last": (
        recognize_activation,
        lambda m, x: x * F.relu6(x + 3) / 6,
        {},
        X * 4,
        1,
        ["hardswish"],
    ),
    "silu in pieces": (recognize_activation, lambda m, x: x.sigmoid() * x, {}, X, 1, ["silu"]),
    "a fifth channel": (
        drop_padded_channels,
        lambda m, x: F.conv2d(F.pad(x, (0, 0, 0, 0, 0, 1), value=2.0), NARROW),
        {},
        X,
        1,
        ["conv2d"],
    ),
    "shuffle in pieces": (recognize_channel_shuffle, window, {}, X, 1, ["channel_shuffle"]),
}

KEPT: dict[str, tuple[Pass, Callable[..., Any], dict[str, Any], torch.Tensor]] = {
    "nothing for training": (
        drop_training,
        lambda m, x: F.scaled_dot_product_attention(x, x, x) * m.s,
        {"s": noise(8, seed=2)},
        X,
    ),
    "length of something else": (
        recognize_l2_normalize,
        lambda m, x: x / x.relu().norm(dim=1, keepdim=True).clamp_min(1e-6),
        {},
        X,
    ),
    "length that others read": (
        recognize_l2_normalize,
        lambda m, x: (lambda y: x / y + y)(x.norm(dim=1, keepdim=True).clamp_min(1e-6)),
        {},
        X,
    ),
    "pixels: another order": (
        recognize_pixel_shuffle,
        lambda m, x: x.view(-1, 1, 2, 2, 8, 8).permute(0, 1, 4, 3, 5, 2).reshape(-1, 1, 16, 16),
        {},
        X,
    ),
    "pixels: windows of 2 by 4": (
        recognize_pixel_shuffle,
        lambda m, x: x.view(-1, 1, 2, 2, 8, 8).permute(0, 1, 4, 2, 5, 3).reshape(-1, 1, 8, 32),
        {},
        X,
    ),
    "pixels: a piece is read too": (
        recognize_pixel_shuffle,
        lambda m, x: (lambda y: (y.permute(0, 1, 4, 2, 5, 3).reshape(-1, 1, 16, 16), y * 2))(
            x.view(-1, 1, 2, 2, 8, 8)
        ),
        {},
        X,
    ),
    "bn: result read twice": (
        fold_batch_norm,
        lambda m, x: (lambda y: m.n(y) + y)(m.c(x)),
        {"c": conv(), "n": norm()},
        X,
    ),
    "bn: result is an output": (
        fold_batch_norm,
        lambda m, x: (lambda y: (y, m.n(y)))(m.c(x)),
        {"c": conv(), "n": norm()},
        X,
    ),
    "bn: relu between": (fold_batch_norm, lambda m, x: m.n(m.c(x).relu()), {"c": conv(), "n": norm()}, X),
    "bn: linear on tokens, channels are positions": (
        fold_batch_norm,
        lambda m, x: m.n(m.l(x)),
        {"l": line(), "n": nn.BatchNorm1d(6)},
        TOKENS,
    ),
    "bn: transposed conv with groups": (
        fold_batch_norm,
        lambda m, x: m.n(m.c(x)),
        {"c": nn.ConvTranspose2d(4, 4, 3, groups=2), "n": norm()},
        X,
    ),
    "scale: read twice": (
        fold_scale,
        lambda m, x: (lambda y: y * 2 + y)(m.c(x)),
        {"c": conv()},
        X,
    ),
    "scale: itself": (fold_scale, lambda m, x: (lambda y: y * y)(m.c(x)), {"c": conv()}, X),
    "scale: along the width": (
        fold_scale,
        lambda m, x: m.c(x) * m.v,
        {"c": conv(), "v": noise(8, seed=4)},
        X,
    ),
    "scale: number minus conv": (fold_scale, lambda m, x: 3 - m.c(x), {"c": conv()}, X),
    "scale: makes it larger": (
        fold_scale,
        lambda m, x: m.c(x) * m.v,
        {"c": conv(1), "v": CHANNEL},
        X,
    ),
    "scale: tokens": (fold_scale, lambda m, x: m.l(x) * m.v, {"l": line(), "v": CHANNEL.flatten()}, TOKENS),
    "relu: read before and after": (
        fuse_activation,
        lambda m, x: (lambda y: y + y.relu())(m.c(x)),
        {"c": conv()},
        X,
    ),
    "relu: before is an output": (
        fuse_activation,
        lambda m, x: (lambda y: (y, y.relu()))(m.c(x)),
        {"c": conv()},
        X,
    ),
    "relu: of a pool whose input is read": (
        fuse_activation,
        lambda m, x: (lambda y: (F.max_pool2d(y, 2).relu(), y))(m.c(x)),
        {"c": conv()},
        X,
    ),
    "relu: of an average": (
        fuse_activation,
        lambda m, x: F.avg_pool2d(m.c(x), 2).relu(),
        {"c": conv()},
        X,
    ),
    "pad: cropping": (fuse_padding, lambda m, x: m.c(F.pad(x, (-1, 0, 0, -1))), {"c": conv()}, X),
    "pad: reflection": (fuse_padding, lambda m, x: m.c(F.pad(x, (1,) * 4, "reflect")), {"c": conv()}, X),
    "pad: with ones": (fuse_padding, lambda m, x: m.c(F.pad(x, (1,) * 4, value=1.0)), {"c": conv()}, X),
    "pad: of channels": (
        fuse_padding,
        lambda m, x: m.c(F.pad(x[:, :3], (0, 0, 0, 0, 0, 1))),
        {"c": conv()},
        X,
    ),
    "pad: read twice": (
        fuse_padding,
        lambda m, x: (lambda y: m.c(y) + y)(F.pad(x, (1,) * 4)),
        {"c": conv()},
        X,
    ),
    "pad: max pooling": (fuse_padding, lambda m, x: F.max_pool2d(F.pad(x, (1,) * 4), 3), {}, X),
    "pad: more than half a window": (
        fuse_padding,
        lambda m, x: F.avg_pool2d(F.pad(x, (2,) * 4), 3, 2),
        {},
        X,
    ),
    "pad: average in ceil mode": (
        fuse_padding,
        lambda m, x: F.avg_pool2d(F.pad(x, (1,) * 4), 3, 2, ceil_mode=True),
        {},
        X,
    ),
    "adaptive: not divisible": (canonicalize_pooling, lambda m, x: F.adaptive_avg_pool2d(x, 3), {}, X),
    "average: not the whole map": (canonicalize_pooling, lambda m, x: F.avg_pool2d(x, (8, 4)), {}, X),
    "average: padded": (canonicalize_pooling, lambda m, x: F.avg_pool2d(x, 8, 8, 4), {}, X),
    "mean: flat and spatial readers": (
        canonicalize_pooling,
        lambda m, x: (lambda y: (y.flatten(1), x * y))(x.mean((2, 3), True)),
        {},
        X,
    ),
    "mean: is an output": (
        canonicalize_pooling,
        lambda m, x: (lambda y: (y, y.flatten(1)))(x.mean((2, 3), True)),
        {},
        X,
    ),
    "gate: another value": (recognize_activation, lambda m, x: x.neg() * x.sigmoid(), {}, X),
    "gate: times zero": (recognize_activation, lambda m, x: F.relu6(x + 3) * 0.0, {}, X),
    "gate: a fifth": (recognize_activation, lambda m, x: F.relu6(x + 3) / 5, {}, X),
    "gate: plus two": (recognize_activation, lambda m, x: F.relu6(x + 2) / 6, {}, X),
    "a fifth channel: its weights count": (
        drop_padded_channels,
        lambda m, x: F.conv2d(F.pad(x, (0, 0, 0, 0, 0, 1), value=2.0), NARROW + 1),
        {},
        X,
    ),
    "a fifth channel: in front": (
        drop_padded_channels,
        lambda m, x: F.conv2d(F.pad(x, (0, 0, 0, 0, 1, 0)), NARROW),
        {},
        X,
    ),
    "a fifth channel: and a border": (
        drop_padded_channels,
        lambda m, x: F.conv2d(F.pad(x, (1, 1, 1, 1, 0, 1)), NARROW),
        {},
        X,
    ),
    "shuffle: its middle is read": (
        recognize_channel_shuffle,
        lambda m, x: (lambda y: (y, y.reshape(-1, 4, 8, 8)))(x.view(-1, 2, 2, 8, 8).transpose(1, 2)),
        {},
        X,
    ),
    "shuffle: of pixels": (
        recognize_channel_shuffle,
        lambda m, x: x.view(-1, 4, 2, 4, 8).transpose(1, 2).reshape(-1, 4, 8, 8),
        {},
        X,
    ),
}


@pytest.mark.parametrize("name", FIRES)
def test_pass_fires(name: str) -> None:
    rewrite, fn, layers, x, rewrites, left = FIRES[name]
    rewritten(captured(fn, x, **layers), rewrite, rewrites, left, x)


@pytest.mark.parametrize("name", KEPT)
def test_pass_does_not_fire(name: str) -> None:
    rewrite, fn, layers, x = KEPT[name]
    graph = captured(fn, x, **layers)
    rewritten(graph, rewrite, 0, ops(graph), x)


def test_every_pass_is_tested_both_ways() -> None:
    fires = {rewrite for rewrite, *_ in FIRES.values()}
    fires |= {expand_attention, drop_training}  # below; in test_module.py
    kept = {rewrite for rewrite, *_ in KEPT.values()}
    assert fires == set(FLOAT)
    assert kept | {expand_attention, convert_batch_norm, merge_movement} == set(FLOAT)


# shared weights
def test_folding_one_of_two_convolutions_leaves_the_other_its_weights() -> None:
    graph = captured(lambda m, x: m.n(m.c(x)) + m.c(x).relu(), X, c=conv(), n=norm())
    rewritten(graph, fold_batch_norm, 1, ["conv2d", "conv2d", "relu", "add"])
    weights = [n.inputs[1] for n in graph.nodes if n.op == "conv2d"]
    assert weights[0] is not weights[1]
    assert {w.name for w in weights} == {"c.weight", "c.weight_1"}


def test_scaling_one_of_two_convolutions_leaves_the_other_its_weights() -> None:
    graph = captured(lambda m, x: m.c(x) * 2 + m.c(x).relu(), X, c=conv())
    rewritten(graph, fold_scale, 1, ["conv2d", "conv2d", "relu", "add"])


def test_folded_constants_keep_their_names() -> None:
    graph = captured(lambda m, x: m.n(m.c(x)), X, c=conv(bias=False), n=norm())
    fold_batch_norm(graph)
    assert [v.name for v in graph.nodes[0].inputs[1:]] == ["c.weight", "c.bias"]
    assert graph.outputs[0].name == "n"
    alone = capture(randomize(nn.Sequential(nn.Conv2d(4, 4, 1, bias=False))), X)
    alone.nodes[0].inputs[1].name = "weight"
    alone.nodes.append(Node("mul", [alone.outputs[0], Value("two", (), data=torch.tensor(2.0))], []))
    alone.nodes[-1].outputs = alone.outputs = [Value("y", (1, 4, 8, 8))]
    assert fold_scale(alone) == 1 and alone.nodes[0].inputs[2].name == "bias"


# weights that the graph computes
@pytest.mark.parametrize("rewrite", [fold_batch_norm, fold_scale, fuse_activation])
def test_computed_weights_are_not_folded(rewrite: Pass) -> None:
    def fn(m: Any, x: torch.Tensor) -> torch.Tensor:
        weight = x.mean((2, 3)).view(4, 1, 1, 1)
        return m.n(F.conv2d(x, weight, groups=4)) * 2

    graph = captured(fn, X, n=norm())
    before = outputs(graph, X)[0]
    assert rewrite(graph) == 0
    torch.testing.assert_close(outputs(graph, X)[0], before)


def test_an_activation_before_batch_norm_or_scale_stays_before() -> None:
    graph = captured(lambda m, x: m.n(m.l(x).relu()) * 2, ROW, l=line(), n=nn.BatchNorm1d(4))
    before = outputs(graph, ROW)[0]
    assert fuse_activation(graph) == 1 and fold_batch_norm(graph) == 0 and fold_scale(graph) == 0
    torch.testing.assert_close(outputs(graph, ROW)[0], before)


# attention
@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("kind", ["none", "float", "boolean"])
def test_attention_expands(kind: str, scale: float | None) -> None:
    masks = {"none": None, "float": noise(6, 6), "boolean": torch.ones(6, 6, dtype=torch.bool).tril()}
    mask = masks[kind]

    def fn(m: Any, x: torch.Tensor) -> torch.Tensor:
        q = x.view(-1, 6, 2, 2).transpose(1, 2)
        return F.scaled_dot_product_attention(q, q * 2, q + 1, attn_mask=mask, scale=scale)

    graph = captured(fn, TOKENS)
    left = ["reshape", "permute", "mul", "add", "mul", "permute", "matmul"]
    left += ["add"] * (mask is not None) + ["softmax", "matmul"]
    rewritten(graph, expand_attention, 1, left, TOKENS)


def test_attention_of_many_queries_to_one_key_expands() -> None:
    def fn(m: Any, x: torch.Tensor) -> torch.Tensor:
        q = x.view(-1, 6, 2, 2).transpose(1, 2)
        k = x[:, None, :, :2]
        return F.scaled_dot_product_attention(q, k, k + 1)

    graph = captured(fn, TOKENS)
    before = [node.op for node in graph.nodes]
    at = before.index("scaled_dot_product_attention")
    expanded = [*before[:at], "mul", "permute", "matmul", "softmax", "matmul", *before[at + 1 :]]
    rewritten(graph, expand_attention, 1, expanded, TOKENS)


def test_attention_used_twice_has_distinct_names() -> None:
    def fn(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = F.scaled_dot_product_attention(x, x, x)
        return F.scaled_dot_product_attention(y, x, y)

    rewritten(
        captured(fn, TOKENS),
        expand_attention,
        2,
        ["mul", "permute", "matmul", "softmax", "matmul"] * 2,
        TOKENS,
    )


# hand-made graphs
def test_a_reshape_of_the_batch_is_no_channel_shuffle() -> None:
    graph = chain(
        (1, 4, 4, 4),
        ("reshape", (2, 2, 1, 4, 4), [], {"shape": (2, 2, 1, 4, 4)}),
        ("permute", (2, 1, 2, 4, 4), [], {"dims": (0, 2, 1, 3, 4)}),
        ("reshape", (1, 4, 4, 4), [], {"shape": (-1, 4, 4, 4)}),
    )
    assert recognize_channel_shuffle(graph) == 0


def test_pooling_of_an_image_without_a_batch_is_left_alone() -> None:
    graph = chain((4, 6, 6), ("adaptive_avg_pool2d", (4, 1, 1), [], {"output_size": (1, 1)}))
    assert canonicalize_pooling(graph) == 0


def test_new_constant_takes_over_a_name_only_when_it_is_free() -> None:
    graph = captured(lambda m, x: m.c(m.c(x)), X, c=conv())
    weight = graph.nodes[0].inputs[1]
    assert new_constant(graph, "c.weight", weight.data, replaces=weight).name == "c.weight_1"
    graph.nodes[1].inputs[1] = new_constant(graph, "c.weight", weight.data, replaces=weight)
    assert new_constant(graph, "c.weight", weight.data, replaces=weight).name == "c.weight"


# files that were quantized elsewhere
@pytest.mark.parametrize(
    ("rewrite", "fn"),
    [
        (canonicalize_pooling, lambda m, x: m.l(x.mean((2, 3), True).flatten(1))),
        (merge_movement, lambda m, x: x.reshape(x.shape).neg()),
    ],
)
def test_a_scale_behind_a_movement_survives_it(rewrite: Pass, fn: Callable[..., Any]) -> None:
    graph = captured(fn, X, l=line())
    (moved,) = [node.output for node in graph.nodes if node.op == "reshape"]
    moved.quant, moved.range = QuantParams((0.5,), (3,)), (-65.5, 62.0)
    assert rewrite(graph) == 1
    graph.remove_dead()
    assert "reshape" not in ops(graph)
    assert [value.range for value in graph.values() if value.quant] == [(-65.5, 62.0)]


# the whole list
def test_optimize_names_the_pass_that_breaks_the_graph() -> None:
    def break_it(graph: Graph) -> int:
        graph.nodes[0].op = "relu7"
        return 1

    graph = captured(lambda m, x: m.c(x).relu(), X, c=conv())
    with pytest.raises(GraphError, match=r"break_it \(after merge_movement\): .*unknown op 'relu7'"):
        optimize(graph, (merge_movement, break_it))


def test_optimize_records_every_pass_and_finds_nothing_twice() -> None:
    def fn(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.n(m.c(F.pad(x, (1, 1, 1, 1)))).relu()
        y = y * F.adaptive_avg_pool2d(y, 1).mul(2).sigmoid()
        return m.l(F.relu6(y + 3).div(6).mean((2, 3)))

    graph = captured(fn, X, c=conv(), n=norm(), l=line())
    before = outputs(graph, X)[0]
    first = optimize(graph)
    assert [r.name for r in first] == [p.__name__ for p in FLOAT]
    assert ops(graph) == ["conv2d", "mean", "mul", "sigmoid", "mul", "hardsigmoid", "mean", "linear"]
    assert not any(r.rewrites for r in optimize(graph))
    torch.testing.assert_close(outputs(graph, X)[0], before, rtol=1e-4, atol=1e-5)


def test_optimize_never_writes_the_users_parameters() -> None:
    module = randomize(nn.Sequential(conv(), norm(), nn.ReLU6(), Apply(lambda m, x: x * 2), conv(), norm()))
    state = {k: v.clone() for k, v in module.state_dict().items()}
    optimize(capture(module, X))
    assert all(torch.equal(state[k], v) for k, v in module.state_dict().items())


def test_optimize_after_training_gives_plain_constants() -> None:
    graph = captured(lambda m, x: m.n(m.c(x)), X, c=conv(), n=norm())
    as_module(graph)
    optimize(graph)
    assert all(v.data.grad_fn is None for v in graph.constants())
    assert graph_hash(graph.copy()) == graph_hash(graph)
