"""Which values share their quantization parameters: what only moves numbers ties its input to its output,
what joins several only where that is free.

A tie of two ranges costs a value that others read as many of its steps as its range is smaller than the
union, so a sigmoid joined with pixel coordinates would be written in three levels for everybody. Such a piece
keeps its own parameters and is rounded to those of the concat (or maximum) where it is joined: one more pass
over the piece, no loss for its other readers. Pieces that only joins read lose nothing by a tie, and ranges
within a factor of LARGEST_RATIO of each other are tied as well: a step is then at most that many of the
piece's own, and the operator that requantizes is saved (the halves of a channel shuffle, dense blocks).

Enters: a float graph and, per activation, the range it brings in. Leaves: sets of values, and what pieces
outside a concat's set bring into it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import SAME
from edgekit.graph.ops.row import Range

Bound = Callable[[Value], Range | None]
LARGEST_RATIO = 2.0  # one bit; the halves of trained ShuffleNets lie within 1.5
_NOTHING: Range = (math.inf, -math.inf)


@dataclass(frozen=True)
class Ties:
    """groups: values of equal parameters. brought: output of a join -> range of the pieces it rounds."""

    groups: list[list[Value]]
    brought: dict[Value, Range]


def tie(
    graph: Graph, order: list[Value], bound: Bound | None, dtypes: Mapping[Value, str] | None = None
) -> Ties:
    """The values of `order` in sets.

    Args:
        dtypes: of values that depart from the common one; only equal ones share parameters.
        bound: the range a value brings into its set, None where it brings none; without it every join ties.
    """
    sets = _Sets(order)
    joins: list[Node] = []
    kinds = dtypes or {}
    for node in graph.nodes:
        members = [v for v in (*node.operands, *node.outputs) if v in sets.parent]
        if node.op not in SAME:
            continue
        if bound is not None and (len(set(node.operands)) > 1 or len({kinds.get(v) for v in members}) > 1):
            joins.append(node)
        else:
            for other in members[1:]:
                sets.join(members[0], other)
    brought: dict[Value, Range] = {}
    if joins and bound is not None:
        own = own_ranges(sets, joins, bound)
        before = {value: own[sets.root(value)] for value in order}
        _tie_what_is_free(graph, sets, joins, own, kinds)
        for node in joins:
            for out in node.outputs:
                pieces = [v for v in node.operands if v in before and sets.root(v) is not sets.root(out)]
                if pieces:
                    brought[out] = _union(*(before[piece] for piece in pieces))
    found: dict[Value, list[Value]] = {}
    for value in order:
        found.setdefault(sets.root(value), []).append(value)
    return Ties(list(found.values()), brought)


class _Sets:
    """Union-find."""

    def __init__(self, values: list[Value]) -> None:
        self.parent = {value: value for value in values}

    def root(self, value: Value) -> Value:
        while self.parent[value] is not value:
            self.parent[value] = self.parent[self.parent[value]]
            value = self.parent[value]
        return value

    def join(self, first: Value, other: Value) -> None:
        self.parent[self.root(other)] = self.root(first)


def _tie_what_is_free(
    graph: Graph, sets: _Sets, joins: list[Node], own: dict[Value, Range], kinds: Mapping[Value, str]
) -> None:
    users, outputs = graph.users(), set(graph.outputs)
    least = dict.fromkeys(own, math.inf)  # the smallest range in the set that something else reads
    for value in sets.parent:
        root = sets.root(value)
        if value in outputs or any(user.op not in SAME for user in users.get(value, [])):
            least[root] = _span(own[root])
    for out, piece in ((out, piece) for node in joins for out in node.outputs for piece in node.operands):
        if piece not in sets.parent or out not in sets.parent or kinds.get(out) != kinds.get(piece):
            continue
        a, b = sets.root(out), sets.root(piece)
        union = _union(own[a], own[b])
        if a is not b and _span(union) <= LARGEST_RATIO * min(least[a], least[b]):
            sets.join(out, piece)
            own[a], least[a] = union, min(least[a], least[b])


def own_ranges(sets: _Sets, joins: list[Node], bound: Bound) -> dict[Value, Range]:
    """The range of each set by itself; a concat brings in those of its pieces."""
    own: dict[Value, Range] = {}
    for value in sets.parent:
        root = sets.root(value)
        own[root] = _union(own.get(root, _NOTHING), bound(value) or _NOTHING)
    changed = True
    while changed:
        changed = False
        for node in joins:
            pieces = [own[sets.root(piece)] for piece in node.operands if piece in sets.parent]
            for root in (sets.root(out) for out in node.outputs if out in sets.parent):
                union = _union(own[root], *pieces)
                changed |= union != own[root]
                own[root] = union
    return own


def _union(*ranges: Range) -> Range:
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _span(bounds: Range) -> float:
    """The width with zero, which every range of a tensor contains."""
    low, high = bounds
    return max(high, 0.0) - min(low, 0.0) if low <= high else 0.0
