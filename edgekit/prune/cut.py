"""A graph without some of its units, and the proof that it is the same function of what is left.

Every node is replayed on the places of its cut operands (places.py) and gets its new attributes from them:
shapes, split sizes, groups, normalised shapes. Constants are gathered by the same places. After each node
what was pushed must be exactly what was to be kept; operands must hold the same elements. Where they do not,
the cut is refused with the node's name: a wrong graph never leaves here.

Enters: an analysis and units. Leaves: a new graph; the original and its tensors are untouched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import numpy as np

from edgekit.errors import PruneError
from edgekit.graph.channels import STATISTICS
from edgekit.graph.channels.atoms import varying
from edgekit.graph.channels.tags import aligned, padded
from edgekit.graph.check import check
from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import OPS
from edgekit.prune.groups import Analysis
from edgekit.prune.moves import MOVES
from edgekit.prune.places import (
    Conflict,
    Places,
    agree,
    along_axis,
    blocks_left,
    dropped,
    settled,
    swapped,
    without,
)
from edgekit.prune.replay import Attrs, Operands, Replay


def cut(analysis: Analysis, removed: Collection[int]) -> Graph:
    """A new graph without the units `removed`.

    Raises: PruneError naming the node and its module where the rest would not be what it was.
    """
    replay = _Cut(analysis, analysis.complete(removed))
    for node in analysis.graph.nodes:
        replay.visit(node)
    graph = replay.result()
    check(graph)
    return graph


class _Cut(Replay):
    """The rule of every kind of node."""

    def __init__(self, analysis: Analysis, removed: set[int]) -> None:
        super().__init__(analysis, removed)
        self._rules: dict[str, Callable[[Node, Operands], tuple[Attrs, list[Places]]]] = {
            "pass": self._pass,
            "window": self._pass,
            "join": self._join,
            "scale": self._scale,
            "reduce": self._reduce,
            "move": self._move,
            "weigh": self._weigh,
            "product": self._product,
            "along": self._reduce,
            "normalize": self._normalize,
        }

    def visit(self, node: Node) -> None:
        try:
            operands = [None if v is None else v if v.is_constant else self.values[v] for v in node.inputs]
            rule = self._rules.get(OPS[node.op].channels, self._whole)
            attrs, places = rule(node, operands)
            self.finish(Node(node.op, operands, [], attrs, node.source), node, places)
        except Conflict as reason:
            raise PruneError(
                f"[prune] {node.op} at {node.source or 'the top level'} ({node.output.name}): {reason}: "
                "keep the channels that meet there"
            ) from reason

    def _whole(self, node: Node, operands: Operands) -> tuple[Attrs, list[Places]]:
        return dict(node.attrs), self.closed(node)

    def _pass(self, node: Node, operands: Operands) -> tuple[Attrs, list[Places]]:
        return dict(node.attrs), [self.reduced(node.inputs[0], self.tag(node.output).shape)]

    def _join(self, node: Node, operands: Operands) -> tuple[Attrs, list[Places]]:
        rank = len(node.output.shape)
        whole = self.tag(node.output).shape
        results = [v for v in node.operands if not v.is_constant]
        if not results:
            return dict(node.attrs), self.closed(node)
        main = max(results, key=lambda v: len(varying(self.tag(v))))
        places = self.place(main).reshape(padded(self.place(main).shape, rank))
        for i, value in enumerate(node.inputs):
            if value is None or value is main:
                continue
            source = self.coupling.repeated(value)
            sizes = padded(source.shape, rank)
            here = [dim for dim in range(rank) if whole[dim] > 1 and sizes[dim] == 1]
            if any(padded(value.shape, rank)[dim] > 1 for dim in here):
                operands[i] = self.constant(source) if source.is_constant else self.values[source]
            expected = tuple(1 if dim in here else size for dim, size in enumerate(whole))
            if value.is_constant:
                if varying(np.empty(expected)):
                    own = dropped(places, whole, here)[(0,) * (rank - len(value.shape))]
                    self.hold(node, operands, i, own)
                continue
            tag = aligned(self.tag(value), rank)
            found = self.place(value).reshape(padded(self.place(value).shape, rank))
            found = settled(found, tag.shape, [d for d in range(rank) if whole[d] == 1])
            left = tuple(1 if whole[d] == 1 else size for d, size in enumerate(tag.shape))
            if varying(np.empty(expected)):
                agree(found, left, dropped(places, whole, here), expected)
        return dict(node.attrs), [places]

    def _scale(self, node: Node, operands: Operands) -> tuple[Attrs, list[Places]]:
        attrs, (places,) = self._pass(node, operands)
        shape = self.tag(node.output).shape
        for i in range(1, len(node.inputs)):
            if (node, i) in self.coupling.held and shape[1] > 1:
                own = dropped(places, shape, [d for d in range(len(shape)) if d != 1])
                self.hold(node, operands, i, own.reshape(-1))
        return attrs, [places]

    def _reduce(self, node: Node, operands: Operands) -> tuple[Attrs, list[Places]]:
        tag = self.tag(node.inputs[0])
        given = node.attrs["dims"] if "dims" in node.attrs else (node.attrs["dim"],)
        dims = sorted(d % tag.ndim for d in given)
        lost = node.op == "sum" or (node.op in STATISTICS and not varying(self.tag(node.output)))
        take = dropped if lost else settled
        places = take(self.place(node.inputs[0]), tag.shape, dims)
        if len(node.output.shape) < tag.ndim:
            places = np.squeeze(places, tuple(dims))
        return dict(node.attrs), [places]

    def _normalize(self, node: Node, operands: Operands) -> tuple[Attrs, list[Places]]:
        attrs, (places,) = self._pass(node, operands)
        shape = self.tag(node.output).shape
        x, cut_x = node.operands[0], operands[0]
        assert cut_x is not None
        if "groups" in attrs:
            own, first = places.reshape(-1), 1
            groups, size = attrs["groups"], x.shape[1] // attrs["groups"]
            if groups > 1 and shape[1] > 1:
                attrs["groups"] = len(blocks_left(own, size, whole=True))
        else:
            count = len(attrs["normalized_shape"])
            first = len(shape) - count
            attrs["normalized_shape"] = tuple(cut_x.shape[first:])
            own = places
            if len(node.operands) > 1:
                own = dropped(places, shape, range(first))
                own = own.reshape(own.shape[first:])
        for i in range(1, len(node.inputs)):
            self.hold(node, operands, i, own)
        return attrs, [places]

    def _weigh(self, node: Node, operands: Operands) -> tuple[Attrs, list[Places]]:
        found = self.coupling.weighings.get(node)
        x = node.inputs[0]
        tag = self.tag(x)
        attrs = dict(node.attrs)
        axis = tag.ndim - 1 if node.op == "linear" else 1
        if found is None:
            out = self.tag(node.output).shape
            if varying(np.empty(out)) and out[axis] == 1:  # the same map at every kept place
                return attrs, [self.reduced(x, out)]
            return attrs, self.closed(node) if node.op == "linear" else [
                self._depthwise(node, operands, attrs)
            ]
        read = settled(self.place(x), tag.shape, [d for d in range(tag.ndim) if d != axis]).reshape(-1)
        weight = node.operands[1]
        made = np.flatnonzero(self.kept(found.made))
        groups = attrs.get("groups", 1)
        index = [np.arange(n).reshape([-1 if d == k else 1 for d in range(len(weight.shape))])
                 for k, n in enumerate(weight.shape)]  # fmt: skip
        if groups == 1:
            index[found.out_axis] = along_axis(made, found.out_axis, len(weight.shape))
            if found.read is not None:
                index[found.in_axis] = along_axis(read, found.in_axis, len(weight.shape))
        else:
            made = self._grouped(node, found.read is not None, read, made, index, attrs)
        operands[1] = self.constant(weight, *index)
        if node.inputs[2] is not None:
            operands[2] = self.constant(node.operands[2], made)
        shape = [1] * tag.ndim
        if varying(self.tag(node.output)):
            shape[axis] = -1
        else:  # all of it stays
            made = made[:1]
        return attrs, [made.reshape(shape)]

    def _grouped(
        self,
        node: Node,
        varies: bool,
        read: np.ndarray,
        made: np.ndarray,
        index: list[np.ndarray],
        attrs: Attrs,
    ) -> np.ndarray:
        """Whole groups that are left, each with equally many inputs and outputs of its own."""
        groups, weight = attrs["groups"], node.operands[1]
        width, height = node.operands[0].shape[1] // groups, weight.shape[0] // groups
        order = blocks_left(read, width) if varies else np.arange(groups)
        outputs = [made[made // height == group] for group in order]
        if len({len(rows) for rows in outputs}) != 1 or sum(map(len, outputs)) != len(made):
            raise Conflict("its groups would have different numbers of outputs")
        made = np.concatenate(outputs)
        attrs["groups"] = len(order)
        index[0] = along_axis(made, 0, len(weight.shape))
        if varies:
            columns = (read % width).reshape(len(order), -1)
            rows = np.repeat(columns, len(outputs[0]), 0)
            index[1] = rows.reshape(*rows.shape, *[1] * (len(weight.shape) - 2))
        return made

    def _depthwise(self, node: Node, operands: Operands, attrs: Attrs) -> Places:
        tag, out = self.tag(node.inputs[0]), self.tag(node.output)
        if not varying(out):
            return self.closed(node)[0]
        read = settled(self.place(node.inputs[0]), tag.shape, [d for d in range(tag.ndim) if d != 1]).reshape(
            -1
        )
        times = node.output.shape[1] // node.operands[0].shape[1]
        made = (read[:, None] * times + np.arange(times)).reshape(-1)
        attrs["groups"] = len(read)
        held = self.coupling.held[node, 1]
        own = read if OPS[node.op].weight_axis else made
        self.hold(node, operands, 1, own.reshape([-1 if s > 1 else 1 for s in held.shape]))
        self.hold(node, operands, 2, made)
        return made.reshape([1, -1, *[1] * (tag.ndim - 2)])

    def _product(self, node: Node, operands: Operands) -> tuple[Attrs, list[Places]]:
        rank = len(node.output.shape)
        attrs = dict(node.attrs)
        if node.op == "matmul":
            if any(value.is_constant for value in node.operands):
                return attrs, [self._by_constant(node, operands, rank)]
            a, b = (self._wide(value, rank) for value in node.operands)
            return attrs, [self._multiplied(*a, *b)[0]]
        if any(value.is_constant for value in node.operands[:3]):
            return dict(node.attrs), self.closed(node)
        attrs["scale"] = attrs.get("scale") or 1.0 / math.sqrt(node.operands[0].shape[-1])
        sides = []
        for value in node.operands[:3]:
            places, shape = self._wide(value, rank)
            places = settled(places, shape, [rank - 2])
            sides.append((places, (*shape[: rank - 2], 1, shape[-1])))
        (q, q_shape), (k, k_shape), (v, v_shape) = sides
        scores = self._multiplied(q, q_shape, *swapped(k, k_shape))
        mask = node.inputs[3]
        if mask is not None:
            sizes = padded(mask.shape, rank)
            here = [dim for dim in range(rank) if scores[1][dim] > 1 and sizes[dim] == 1]
            own = dropped(*scores, here)
            left = tuple(1 if dim in here else size for dim, size in enumerate(scores[1]))
            if mask.is_constant:
                self.hold(node, operands, 3, own[(0,) * (rank - len(mask.shape))])
            elif varying(np.empty(left)):
                agree(*self._wide(mask, rank), own, left)
        return attrs, [self._multiplied(*scores, v, v_shape)[0]]

    def _wide(self, value: Value, rank: int) -> tuple[Places, tuple[int, ...]]:
        places, tag = self.place(value), self.tag(value)
        return places.reshape(padded(places.shape, rank)), padded(tag.shape, rank)

    def _multiplied(
        self, a: Places, a_shape: tuple[int, ...], b: Places, b_shape: tuple[int, ...]
    ) -> tuple[Places, tuple[int, ...]]:
        m, n = len(a_shape) - 2, len(a_shape) - 1
        if a_shape[m] > b_shape[n] > 1:
            b, b_shape = settled(b, b_shape, [n]), without(b_shape, n)
        elif a_shape[m] > 1 and b_shape[n] > 1:
            a, a_shape = settled(a, a_shape, [m]), without(a_shape, m)
        summed_a, left_a = dropped(a, a_shape, [m]), without(a_shape, m)
        summed_b, left_b = swapped(dropped(b, b_shape, [n]), without(b_shape, n))
        if left_a[n] > 1 or left_b[n] > 1:
            agree(summed_a, left_a, summed_b, left_b)
        rows, row_shape = dropped(a, a_shape, [n]), without(a_shape, n)
        columns, column_shape = dropped(b, b_shape, [m]), without(b_shape, m)
        by_columns = len(varying(np.empty(column_shape))) >= len(varying(np.empty(row_shape)))
        main, shape = (columns, column_shape) if by_columns else (rows, row_shape)
        other, other_shape = (rows, row_shape) if by_columns else (columns, column_shape)
        shared = (dropped(main, shape, [m, n]), without(shape, m, n))
        rest = (dropped(other, other_shape, [m, n]), without(other_shape, m, n))
        agree(*rest, *shared)
        return main, shape

    def _by_constant(self, node: Node, operands: Operands, rank: int) -> Places:
        a, b = node.operands
        at = 1 if b.is_constant else 0
        value = node.operands[at]
        places, shape = self._wide(a if at else b, rank)
        free, summed = (rank - 2, rank - 1) if at else (rank - 1, rank - 2)
        line, left = swapped(dropped(places, shape, [free]), without(shape, free))
        sizes = padded(value.shape, rank)
        here = [dim for dim in range(rank) if left[dim] > 1 and sizes[dim] == 1]
        self.hold(node, operands, at, dropped(line, left, here)[(0,) * (rank - len(value.shape))])
        return dropped(places, shape, [summed])

    def _move(self, node: Node, operands: Operands) -> tuple[Attrs, list[Places]]:
        rule = MOVES.get(node.op)
        if rule is None or (node.op != "concat" and node.operands[0].is_constant):
            return dict(node.attrs), self.closed(node)
        attrs = dict(node.attrs)
        return attrs, rule(self, node, operands, attrs)
