"""Which channels move together, against what the ops do to them."""

from __future__ import annotations

import pytest
import torch
from graphs import noise
from test_ops import CASES

from edgekit.graph.channels import Families, carried, depthwise, placed, weighs_one
from edgekit.graph.ir import Node, Value
from edgekit.graph.ops import OPS
from edgekit.graph.run import run_node

Shape = tuple[int, ...]


def _node(op: str, *shapes: Shape, **attrs: object) -> Node:
    values = [Value(str(i), shape) for i, shape in enumerate(shapes)]
    results = run_node(Node(op, [], [], dict(attrs)), [torch.rand(shape) for shape in shapes])
    outputs = [Value(f"out{i}", tuple(t.shape)) for i, t in enumerate(results)]
    return Node(op, list(values), outputs, dict(attrs))


@pytest.mark.parametrize("name", CASES)
def test_what_is_carried_reaches_its_own_channel_and_no_other(name: str) -> None:
    op, inputs, attrs, _ = CASES[name]
    given = [None if t is None else t.clone() for t in inputs]
    results = run_node(Node(op, [], [], attrs), given)
    values = [None if t is None else Value(str(i), tuple(t.shape)) for i, t in enumerate(given)]
    for value, tensor in list(zip(values, given, strict=True))[1:]:
        if value is not None and (
            OPS[op].channels in ("scale", "weigh", "along", "normalize") or tensor.ndim < 4
        ):
            value.data = tensor  # a parameter
    node = Node(op, values, [Value(f"o{i}", tuple(t.shape)) for i, t in enumerate(results)], attrs)
    tied = carried(node)
    for value in tied:
        at = values.index(value)
        for channel in range(value.shape[1]):
            other = [None if t is None else t.clone() for t in given]
            other[at][:, channel] = other[at][:, channel] * 0.5 - 0.3
            for before, after in zip(results, run_node(node, other), strict=True):
                changed = (before != after).transpose(0, 1).flatten(1).any(1)
                assert not changed[[c for c in range(len(changed)) if c != channel]].any()
    if not tied and OPS[op].channels in ("pass", "window", "join", "scale"):
        pytest.fail(f"{op} carries channels")


@pytest.mark.parametrize(
    ("node", "operands"),
    [
        (_node("mean", (1, 6, 4, 4), dims=(2, 3), keepdim=False), 1),
        (_node("mean", (1, 6, 4, 4), dims=(-1,), keepdim=True), 1),
        (_node("mean", (1, 6, 4, 4), dims=(1,), keepdim=True), 0),
        (_node("reshape", (1, 6, 1, 1), shape=(-1, 6)), 1),
        (_node("reshape", (1, 6, 4, 4), shape=(-1, 6, 16)), 1),
        (_node("reshape", (1, 6, 1, 1), shape=(-1, 2, 3)), 0),
        (_node("reshape", (1, 6, 6), shape=(6, 6)), 0),  # as many channels, other ones
        (_node("permute", (1, 6, 4, 5), dims=(0, 1, 3, 2)), 1),
        (_node("permute", (1, 4, 4, 4), dims=(0, 2, 3, 1)), 0),
        (_node("pad", (1, 6, 4, 4), pads=(1, 1, 2, 0)), 1),
        (_node("pad", (1, 6, 4, 4), pads=(1, 1, 2, 0), mode="reflect"), 1),
        (_node("pad", (1, 6, 4, 4), pads=(0, 0, 0, 0, 0, 2)), 0),
        (_node("concat", (1, 6, 4, 4), (1, 6, 2, 4), dim=2), 2),
        (_node("concat", (1, 6, 4, 4), (1, 6, 4, 4), dim=1), 0),
        (_node("slice", (1, 6, 4, 4), dim=3, start=1, end=3), 1),
        (_node("roll", (1, 6, 4, 4), shifts=(1,), dims=(2,)), 1),
        (_node("roll", (1, 6, 4, 4), shifts=(1,), dims=(1,)), 0),
        (_node("mul", (1, 6, 4, 4), (1, 6, 1, 1)), 2),
        (_node("mul", (1, 6, 4, 4), (1, 1, 4, 4)), 1),
        (_node("add", (1, 6, 4, 4), (4, 4)), 0),
        (_node("softmax", (1, 6, 4, 4), dim=1), 0),
    ],
    ids=lambda value: str(value) if isinstance(value, Node) else None,
)
def test_carried(node: Node, operands: int) -> None:
    assert len(carried(node)) == operands


@pytest.mark.parametrize(
    "node",
    [
        _node("concat", (1, 2, 3, 4), (1, 5, 3, 4), (1, 1, 3, 4), dim=1),
        _node("split", (1, 6, 3, 4), sizes=(1, 3, 2), dim=1),
        _node("slice", (1, 7, 3, 4), dim=1, start=1, end=7, step=2),
        _node("channel_shuffle", (1, 6, 3, 4), groups=3),
        _node("roll", (1, 6, 3, 4), shifts=(2,), dims=(1,)),
        _node("channel_shuffle", (1, 6, 1, 1), groups=2),
    ],
    ids=str,
)
def test_placed_channels_are_where_they_are_said_to_be(node: Node) -> None:
    given = [noise(*value.shape, seed=i) for i, value in enumerate(node.operands)]
    found = placed(node)
    assert found is not None
    for moved, sources in zip(run_node(node, given), found, strict=True):
        expected = torch.stack([given[operand][0, channel] for operand, channel in sources])
        assert torch.equal(moved[0], expected)


@pytest.mark.parametrize(
    "node",
    [
        _node("slice", (1, 6, 3, 4), dim=2, start=0, end=2),
        _node("roll", (1, 6, 3, 4), shifts=(1,), dims=(3,)),
        _node("pixel_shuffle", (1, 8, 3, 4), factor=2),
        _node("permute", (1, 4, 4, 4), dims=(0, 2, 1, 3)),
        _node("pad", (1, 6, 3, 4), pads=(0, 0, 0, 0, 1, 0)),
        _node("concat", (1, 6, 3, 4), (1, 6, 3, 4), dim=2),
        _node("relu", (1, 6, 3, 4)),
    ],
    ids=str,
)
def test_other_movement_places_no_whole_channels(node: Node) -> None:
    assert placed(node) is None


def test_depthwise_convolutions() -> None:
    def conv(inputs: int, outputs: int, groups: int) -> Node:
        x, out = Value("x", (1, inputs, 4, 4)), Value("y", (1, outputs, 4, 4))
        weight = Value("w", (outputs, inputs // groups, 1, 1), data=noise(outputs, inputs // groups, 1, 1))
        return Node("conv2d", [x, weight, None], [out], {"groups": groups})

    assert [depthwise(conv(*n)) for n in ((8, 8, 8), (8, 16, 8), (8, 8, 4))] == [True, False, False]
    assert [weighs_one(conv(*n)) for n in ((8, 8, 8), (8, 16, 8), (8, 8, 4))] == [True, True, False]


def test_families_tie_close_and_open() -> None:
    a, b, c, d, e = (Value(name, (1, 6, 2, 2)) for name in "abcde")
    other = Value("other", (1, 3, 2, 2))
    ties = Families()
    ties.tie(a, b)
    ties.tie(c, d)
    ties.root(e)
    assert list(ties.open([a, b, c, d, e]).values()) == [[a, b], [c, d], [e]]
    ties.close(d)
    ties.tie(e, other)  # three channels cannot be six
    assert list(ties.open([a, b, c, d, e, other]).values()) == [[a, b]]
    ties.tie(b, c)
    assert not ties.open([a, b, c, d, e, other])
