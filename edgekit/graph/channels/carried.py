"""Which channels move together: the one analysis for equalization, folded shuffles and widened blocks.

A channel is an index of dimension 1 of a value of two dimensions or more. What a node does with it follows
from the column `channels` of its op's row:

carried     channel i of every output is made of channel i of the carried operands, and of nothing else but
            parameters of channel i: activations, pooling, sums, padding of the sides, (N, C, 1, 1) -> (N, C)
placed      whole channels go elsewhere: concat, split, slice and shuffle along dimension 1
weighed     a weight reads them, in groups, and makes new ones: convolutions and linear layers
anything else ends the matter.

Movement has no rules of its own: its torch function runs on the numbers of the elements and shows where each
goes.

Enters: nodes of a graph. Leaves: operands that are carried, atoms (value, channel), and families of values
whose channels are tied one to one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from edgekit.graph.ir import Node, Value
from edgekit.graph.ops import OPS

Atom = tuple[Value, int]
Source = tuple[int, int]  # operand, its channel
_FILLED = -1


def carried(node: Node) -> list[Value]:
    """The operands whose channel i alone becomes channel i of every output; none where it does otherwise.

    Constants are never among them: what one adds to a channel is for the caller to judge.
    """
    operands, out = node.operands, node.output
    if not operands or len(out.shape) < 2:
        return []
    x = operands[0]
    match OPS[node.op].channels:
        case "pass" | "window" | "scale":
            found = [x]
        case "reduce":
            rank = len(x.shape)
            found = [x] if all(d % rank > 1 for d in node.attrs["dims"]) else []
        case "join":
            found = _joined(node)
        case "move":
            found = list(dict.fromkeys(operands)) if _stay(node) else []
        case _:
            found = []
    return [value for value in found if not value.is_constant]


def weighs_one(node: Node) -> bool:
    """Whether every output channel of this convolution reads a single input channel."""
    x = node.inputs[0]
    return node.op == "conv2d" and x is not None and node.attrs["groups"] == x.shape[1]


def depthwise(node: Node) -> bool:
    """Whether output channel i of this convolution reads input channel i only."""
    return weighs_one(node) and node.output.shape[1] == node.attrs["groups"]


def placed(node: Node) -> list[list[Source]] | None:
    """For each output and each of its channels the operand and the channel of it that went there whole.

    None where the node computes, where it takes channels apart, or moves anything inside them.
    """
    if OPS[node.op].channels != "move" or any(v.is_constant or len(v.shape) < 3 for v in node.operands):
        return None
    sizes = [math.prod(v.shape) for v in node.operands]
    starts = [sum(sizes[:k]) for k in range(len(sizes) + 1)]
    numbers = [
        torch.arange(start, start + size, dtype=torch.int32).view(v.shape)
        for start, size, v in zip(starts, sizes, node.operands, strict=False)
    ]
    found = [_whole_channels(moved, node.operands, torch.tensor(starts)) for moved in _moved(node, numbers)]
    return None if any(one is None for one in found) else [one for one in found if one is not None]


def _whole_channels(moved: torch.Tensor, operands: list[Value], starts: torch.Tensor) -> list[Source] | None:
    """Where each channel of a moved tensor came from; its elements are numbered through all operands."""
    if moved.ndim < 3 or moved.shape[0] != 1 or any(v.shape[0] != 1 for v in operands):
        return None
    rows = moved[0].flatten(1).long()  # (C, elements of a channel)
    size = rows.shape[1]
    first = rows[:, 0].contiguous()
    if bool((first < 0).any()) or not torch.equal(rows, first[:, None] + torch.arange(size)):
        return None
    owners = (torch.bucketize(first, starts, right=True) - 1).tolist()
    if any(math.prod(operands[k].shape[2:]) != size for k in owners):
        return None
    offsets = (first - starts[owners]).tolist()
    if any(offset % size for offset in offsets):
        return None
    return [(k, offset // size) for k, offset in zip(owners, offsets, strict=True)]


class Families:
    """Values whose channels are tied one to one, by union-find; a closed family must stay as it is."""

    def __init__(self) -> None:
        self._parent: dict[Value, Value] = {}
        self._closed: set[Value] = set()

    def root(self, value: Value) -> Value:
        """One value for each family."""
        self._parent.setdefault(value, value)
        while self._parent[value] is not value:
            self._parent[value] = self._parent[self._parent[value]]
            value = self._parent[value]
        return value

    def __contains__(self, value: Value) -> bool:
        return value in self._parent

    def close(self, *values: Value | None) -> None:
        self._closed.update(self.root(v) for v in values if v is not None)

    def is_closed(self, value: Value) -> bool:
        return self.root(value) in self._closed

    def tie(self, *values: Value) -> None:
        """One family; different numbers of channels cannot be one, so all of theirs are closed."""
        first = values[0]
        if any(len(v.shape) < 2 or v.shape[1] != first.shape[1] for v in values):
            self.close(*values)
            return
        for other in values[1:]:
            a, b = self.root(first), self.root(other)
            if a is not b:
                self._parent[b] = a
                if b in self._closed:
                    self._closed.add(a)

    def open(self, values: Iterable[Value]) -> dict[Value, list[Value]]:
        """Root -> those of `values` in its family, in order; without closed families and constants."""
        found: dict[Value, list[Value]] = {}
        for value in values:
            if value in self and not value.is_constant and not self.is_closed(value):
                found.setdefault(self.root(value), []).append(value)
        return found


def _joined(node: Node) -> list[Value]:
    """Element-wise operands of the result's channels; one of size 1 there is the same for all of them."""
    shape = node.output.shape
    results = [v for v in node.operands if not v.is_constant]
    if any(len(v.shape) != len(shape) or v.shape[1] not in (1, shape[1]) for v in results):
        return []
    return list(dict.fromkeys(v for v in results if v.shape[1] == shape[1]))


def _stay(node: Node) -> bool:
    """Whether movement leaves every element within its channel."""
    if any(len(v.shape) < 2 or v.shape[1] != node.output.shape[1] for v in (*node.operands, *node.outputs)):
        return False
    channels = [_numbered(v.shape) for v in node.operands]
    return all(
        bool(((moved == _numbered(moved.shape)) | (moved == _FILLED)).all())
        for moved in _moved(node, channels)
    )


def _numbered(shape: tuple[int, ...]) -> torch.Tensor:
    """Every element is the number of its channel."""
    return torch.arange(shape[1], dtype=torch.int32).view(1, -1, *[1] * (len(shape) - 2)).expand(shape)


def _moved(node: Node, numbers: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    filled = {"value": _FILLED} if "value" in OPS[node.op].attributes else {}
    result = OPS[node.op].fn(*numbers, **{**node.attrs, **filled})
    return tuple(result) if isinstance(result, tuple | list) else (result,)
