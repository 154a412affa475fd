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
from typing import Any

import numpy as np
import torch

from edgekit.errors import PruneError
from edgekit.graph.channels.atoms import Tag, varying
from edgekit.graph.channels.tags import aligned, padded, written_out
from edgekit.graph.check import check
from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import OPS
from edgekit.graph.shapes import infer_shapes
from edgekit.prune.groups import Analysis
from edgekit.prune.places import (
    Conflict,
    Places,
    agree,
    coordinates,
    dropped,
    kept_sizes,
    positions,
    settled,
    spread,
)

Attrs = dict[str, Any]


def cut(analysis: Analysis, removed: Collection[int]) -> Graph:
    """A new graph without the units `removed`.

    Raises: PruneError naming the node and its module where the rest would not be what it was.
    """
    replay = _Replay(analysis, analysis.complete(removed))
    for node in analysis.graph.nodes:
        replay.visit(node)
    graph = replay.result()
    check(graph)
    return graph


class _Replay:
    def __init__(self, analysis: Analysis, removed: set[int]) -> None:
        self.graph = analysis.graph
        self.coupling = analysis.coupling
        self.alive = np.ones(int(self.coupling.labels.max()) + 1, bool)
        self.alive[list(removed)] = False
        self.values: dict[Value, Value] = {}
        self.places: dict[Value, Places] = {}
        self.nodes: list[Node] = []
        self._names = {value.name for value in self.graph.values()}
        self._made: dict[Value, list[tuple[bytes, Value]]] = {}
        self._rules: dict[str, Callable[[Node, list[Value | None]], tuple[Attrs, list[Places]]]] = {
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
        for value in self.graph.inputs:
            self.values[value] = Value(value.name, value.shape, value.dtype)
            self.places[value] = np.zeros((1,) * len(value.shape), np.int64)

    def visit(self, node: Node) -> None:
        try:
            operands = [None if v is None else v if v.is_constant else self.values[v] for v in node.inputs]
            rule = self._rules.get(OPS[node.op].channels, self._closed)
            attrs, places = rule(node, operands)
            self._finish(Node(node.op, operands, [], attrs, node.source), node, places)
        except Conflict as reason:
            raise PruneError(
                f"[prune] {node.op} at {node.source or 'the top level'} ({node.output.name}): {reason}: "
                "keep the channels that meet there"
            ) from reason

    def result(self) -> Graph:
        outputs = [self.constant(v) if v.is_constant else self.values[v] for v in self.graph.outputs]
        inputs = [self.values[v] for v in self.graph.inputs]
        return Graph(inputs, outputs, self.nodes, self.graph.name, self.graph.batchable)

    def _finish(self, made: Node, node: Node, places: list[Places]) -> None:
        """The proof: exactly what was to be kept, in the shape that torch gives it."""
        for value, found in zip(node.outputs, places, strict=True):
            kept = np.flatnonzero(self.kept(self.coupling.tags[value]))
            if not len(kept):
                raise Conflict("nothing would be left of it")
            if found.size != len(kept) or (np.sort(found, axis=None) != kept).any():
                raise Conflict("what comes out is not what should be left")
        shapes = infer_shapes(made)
        for value, found, shape in zip(node.outputs, places, shapes, strict=True):
            tag = self.coupling.tags[value]
            expected = [
                cut_ if size > 1 else whole
                for size, cut_, whole in zip(tag.shape, found.shape, value.shape, strict=True)
            ]
            if list(shape) != expected:
                raise Conflict(f"it computes {tuple(shape)} instead of {tuple(expected)}")
            self.values[value] = Value(value.name, tuple(shape), value.dtype)
            self.places[value] = found
        made.inputs = [
            self.constant(given) if given is not None and given is original else given
            for given, original in zip(made.inputs, node.inputs, strict=True)
        ]
        made.outputs = [self.values[value] for value in node.outputs]
        self.nodes.append(made)

    # what rules are made of
    def kept(self, tag: Tag) -> np.ndarray:
        return self.alive[self.coupling.labels[tag]]

    def tag(self, value: Value | None) -> Tag:
        assert value is not None
        known = self.coupling.tags.get(value)
        return np.zeros((1,) * len(value.shape), np.int32) if known is None else known

    def place(self, value: Value | None) -> Places:
        assert value is not None
        return self.places.get(value, np.zeros((1,) * len(value.shape), np.int64))

    def reduced(self, value: Value | None, shape: tuple[int, ...]) -> Places:
        """Places in a tag of `shape`, what was tied along a dimension taken as whole."""
        tag = self.tag(value)
        return settled(self.place(value), tag.shape, [d for d in range(tag.ndim) if shape[d] == 1])

    def constant(self, value: Value, *index: np.ndarray) -> Value:
        """The constant at `index` (one array a dimension, broadcast), shared with whoever takes the same."""
        assert value.data is not None
        if all(
            _is_whole(i, dim, size) for dim, (i, size) in enumerate(zip(index, value.shape, strict=False))
        ):
            index = ()
        key = b"".join(np.ascontiguousarray(i).tobytes() + bytes(str(i.shape), "ascii") for i in index)
        known = self._made.setdefault(value, [])
        for taken, made in known:
            if taken == key:
                return made
        data = value.data.detach()
        if index:
            data = data[tuple(torch.from_numpy(np.asarray(i, np.int64)) for i in index)].contiguous()
        name = value.name
        if known:
            count = 1
            while (name := f"{value.name}_{count}") in self._names:
                count += 1
            self._names.add(name)
        made = Value(name, tuple(data.shape), value.dtype, data)
        known.append((key, made))
        return made

    def gathered(self, node: Node, index: int, places: Places, shape: tuple[int, ...]) -> Value | None:
        """A constant at the places of a tag of its own rank."""
        value = node.inputs[index]
        if value is None or not varying(np.empty(shape)):
            return None if value is None else self.constant(value)
        return self.constant(value, *_whole(places, shape, value.shape))

    def hold(self, node: Node, operands: list[Value | None], index: int, places: Places) -> None:
        tag = self.coupling.held.get((node, index))
        if tag is not None:
            operands[index] = self.gathered(node, index, places, tag.shape)

    # rules
    def _closed(self, node: Node, operands: list[Value | None]) -> tuple[Attrs, list[Places]]:
        for value in node.operands:
            tag = self.tag(value)
            settled(self.place(value), tag.shape, range(tag.ndim))
        return dict(node.attrs), [np.zeros((1,) * len(v.shape), np.int64) for v in node.outputs]

    def _pass(self, node: Node, operands: list[Value | None]) -> tuple[Attrs, list[Places]]:
        return dict(node.attrs), [self.reduced(node.inputs[0], self.tag(node.output).shape)]

    def _join(self, node: Node, operands: list[Value | None]) -> tuple[Attrs, list[Places]]:
        rank = len(node.output.shape)
        whole = self.tag(node.output).shape
        results = [v for v in node.operands if not v.is_constant]
        if not results:
            return self._closed(node, operands)
        main = max(results, key=lambda v: len(varying(self.tag(v))))
        places = self.place(main).reshape(padded(self.place(main).shape, rank))
        for i, value in enumerate(node.inputs):
            if value is None or value is main:
                continue
            sizes = padded(value.shape, rank)
            here = [dim for dim in range(rank) if whole[dim] > 1 and sizes[dim] == 1]
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

    def _scale(self, node: Node, operands: list[Value | None]) -> tuple[Attrs, list[Places]]:
        attrs, (places,) = self._pass(node, operands)
        shape = self.tag(node.output).shape
        for i in range(1, len(node.inputs)):
            if (node, i) in self.coupling.held and shape[1] > 1:
                own = dropped(places, shape, [d for d in range(len(shape)) if d != 1])
                self.hold(node, operands, i, own.reshape(-1))
        return attrs, [places]

    def _reduce(self, node: Node, operands: list[Value | None]) -> tuple[Attrs, list[Places]]:
        tag = self.tag(node.inputs[0])
        given = node.attrs["dims"] if "dims" in node.attrs else (node.attrs["dim"],)
        dims = sorted(d % tag.ndim for d in given)
        take = dropped if node.op == "sum" else settled
        places = take(self.place(node.inputs[0]), tag.shape, dims)
        if len(node.output.shape) < tag.ndim:
            places = np.squeeze(places, tuple(dims))
        return dict(node.attrs), [places]

    def _normalize(self, node: Node, operands: list[Value | None]) -> tuple[Attrs, list[Places]]:
        attrs, (places,) = self._pass(node, operands)
        shape = self.tag(node.output).shape
        x, cut_x = node.operands[0], operands[0]
        assert cut_x is not None
        if "groups" in attrs:
            own, first = places.reshape(-1), 1
            groups, size = attrs["groups"], x.shape[1] // attrs["groups"]
            if groups > 1 and shape[1] > 1:
                attrs["groups"] = len(_blocks(own, size, whole=True))
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

    def _weigh(self, node: Node, operands: list[Value | None]) -> tuple[Attrs, list[Places]]:
        found = self.coupling.weighings.get(node)
        x = node.inputs[0]
        tag = self.tag(x)
        attrs = dict(node.attrs)
        if found is None and node.op == "linear":
            return attrs, [self.place(x)] if varying(self.tag(node.output)) else self._closed(node, operands)[
                1
            ]
        if found is None:
            return attrs, [self._depthwise(node, operands, attrs)]
        axis = tag.ndim - 1 if node.op == "linear" else 1
        read = settled(self.place(x), tag.shape, [d for d in range(tag.ndim) if d != axis]).reshape(-1)
        weight = node.operands[1]
        made = np.flatnonzero(self.kept(found.made))
        groups = attrs.get("groups", 1)
        index = [np.arange(n).reshape([-1 if d == k else 1 for d in range(len(weight.shape))])
                 for k, n in enumerate(weight.shape)]  # fmt: skip
        if groups == 1:
            index[found.out_axis] = _along(made, found.out_axis, len(weight.shape))
            if found.read is not None:
                index[found.in_axis] = _along(read, found.in_axis, len(weight.shape))
        else:
            made = self._grouped(node, found.read is not None, read, made, index, attrs)
        operands[1] = self.constant(weight, *index)
        if node.inputs[2] is not None:
            operands[2] = self.constant(node.operands[2], made)
        shape = [1] * tag.ndim
        shape[axis] = -1
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
        order = _blocks(read, width) if varies else np.arange(groups)
        outputs = [made[made // height == group] for group in order]
        if len({len(rows) for rows in outputs}) != 1 or sum(map(len, outputs)) != len(made):
            raise Conflict("its groups would have different numbers of outputs")
        made = np.concatenate(outputs)
        attrs["groups"] = len(order)
        index[0] = _along(made, 0, len(weight.shape))
        if varies:
            columns = (read % width).reshape(len(order), -1)
            rows = np.repeat(columns, len(outputs[0]), 0)
            index[1] = rows.reshape(*rows.shape, *[1] * (len(weight.shape) - 2))
        return made

    def _depthwise(self, node: Node, operands: list[Value | None], attrs: Attrs) -> Places:
        tag, out = self.tag(node.inputs[0]), self.tag(node.output)
        if not varying(out):
            return self._closed(node, operands)[1][0]
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

    def _product(self, node: Node, operands: list[Value | None]) -> tuple[Attrs, list[Places]]:
        rank = len(node.output.shape)
        attrs = dict(node.attrs)
        if node.op == "matmul":
            if any(value.is_constant for value in node.operands):
                return attrs, [self._by_constant(node, operands, rank)]
            a, b = (self._wide(value, rank) for value in node.operands)
            return attrs, [self._multiplied(*a, *b)[0]]
        if any(value.is_constant for value in node.operands[:3]):
            return self._closed(node, operands)
        attrs["scale"] = attrs.get("scale") or 1.0 / math.sqrt(node.operands[0].shape[-1])
        sides = []
        for value in node.operands[:3]:
            places, shape = self._wide(value, rank)
            places = settled(places, shape, [rank - 2])
            sides.append((places, (*shape[: rank - 2], 1, shape[-1])))
        (q, q_shape), (k, k_shape), (v, v_shape) = sides
        scores = self._multiplied(q, q_shape, *_swapped(k, k_shape))
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
        if a_shape[m] > 1 and b_shape[n] > 1:
            a = settled(a, a_shape, [m])
            a_shape = (*a_shape[:m], 1, a_shape[n])
        summed_a, left_a = dropped(a, a_shape, [m]), _without(a_shape, m)
        summed_b, left_b = _swapped(dropped(b, b_shape, [n]), _without(b_shape, n))
        if left_a[n] > 1 or left_b[n] > 1:
            agree(summed_a, left_a, summed_b, left_b)
        rows, row_shape = dropped(a, a_shape, [n]), _without(a_shape, n)
        columns, column_shape = dropped(b, b_shape, [m]), _without(b_shape, m)
        by_columns = len(varying(np.empty(column_shape))) >= len(varying(np.empty(row_shape)))
        main, shape = (columns, column_shape) if by_columns else (rows, row_shape)
        other, other_shape = (rows, row_shape) if by_columns else (columns, column_shape)
        shared = (dropped(main, shape, [m, n]), _without(shape, m, n))
        rest = (dropped(other, other_shape, [m, n]), _without(other_shape, m, n))
        agree(*rest, *shared)
        return main, shape

    def _by_constant(self, node: Node, operands: list[Value | None], rank: int) -> Places:
        a, b = node.operands
        at = 1 if b.is_constant else 0
        value = node.operands[at]
        places, shape = self._wide(a if at else b, rank)
        free, summed = (rank - 2, rank - 1) if at else (rank - 1, rank - 2)
        line, left = _swapped(dropped(places, shape, [free]), _without(shape, free))
        sizes = padded(value.shape, rank)
        here = [dim for dim in range(rank) if left[dim] > 1 and sizes[dim] == 1]
        self.hold(node, operands, at, dropped(line, left, here)[(0,) * (rank - len(value.shape))])
        return dropped(places, shape, [summed])

    # movement
    def _move(self, node: Node, operands: list[Value | None]) -> tuple[Attrs, list[Places]]:
        rule = getattr(self, f"_move_{node.op}", None)
        if rule is None or (node.op != "concat" and node.operands[0].is_constant):
            return self._closed(node, operands)
        attrs = dict(node.attrs)
        return attrs, rule(node, operands, attrs)

    def _move_reshape(self, node: Node, operands: list[Value | None], attrs: Attrs) -> list[Places]:
        x, out = node.operands[0], node.output
        tag, result = self.tag(x), self.tag(out)
        full, behind = written_out(tag, x.shape, out.shape)
        kept = kept_sizes(self.kept(result))
        sizes = [kept[d] if result.shape[d] > 1 else out.shape[d] for d in range(result.ndim)]
        pushed = spread(self.place(x), tag.shape, full)
        shape = [sizes[d] if behind[d] > 1 else 1 for d in range(len(behind))]
        if pushed.size != np.prod(shape):
            raise Conflict("what is left is no rectangle")
        places = pushed.reshape(shape)
        lost = [d for d in range(len(behind)) if behind[d] > 1 and result.shape[d] == 1]
        attrs["shape"] = tuple(
            -1 if given == -1 else size for given, size in zip(attrs["shape"], sizes, strict=True)
        )
        return [settled(places, behind, lost)]

    def _move_permute(self, node: Node, operands: list[Value | None], attrs: Attrs) -> list[Places]:
        tag, result = self.tag(node.inputs[0]), self.tag(node.output)
        dims = [dim % tag.ndim for dim in attrs["dims"]]
        shape = tuple(result.shape[dims.index(d)] for d in range(tag.ndim))
        found = coordinates(self.reduced(node.inputs[0], shape), shape)
        return [positions([found[dim].transpose(dims) for dim in dims], result.shape)]

    def _move_concat(self, node: Node, operands: list[Value | None], attrs: Attrs) -> list[Places]:
        result = self.tag(node.output)
        rank = result.ndim
        dim = attrs["dim"] % rank
        tags = [self.tag(v) for v in node.operands]
        if any(d != dim for tag in tags for d in varying(tag)):
            return [self._beside(node, operands, dim)]
        found, start = [], 0
        for i, value in enumerate(node.operands):
            wide = tuple(value.shape[d] if d == dim else 1 for d in range(rank))
            if value.is_constant:
                own = self.coupling.held[node, i]
                shape = [-1 if d == dim else 1 for d in range(rank)]
                places = np.flatnonzero(self.kept(own)).reshape(shape)
                self.hold(node, operands, i, places)
            else:
                places = spread(self.place(value), tags[i].shape, wide)
            found.append(places + start)
            start += value.shape[dim]
        joined = np.concatenate(found, dim)
        if result.shape[dim] == 1:
            wide = tuple(node.output.shape[d] if d == dim else 1 for d in range(rank))
            joined = settled(joined, wide, [dim])
        return [joined]

    def _beside(self, node: Node, operands: list[Value | None], dim: int) -> Places:
        result = self.tag(node.output)
        pieces = {i: v for i, v in enumerate(node.operands) if not v.is_constant}
        shapes = {i: _without(self.tag(v).shape, dim) for i, v in pieces.items()}
        main = max(pieces, key=lambda i: len(varying(np.empty(shapes[i]))))
        places = settled(self.place(pieces[main]), self.tag(pieces[main]).shape, [dim])
        for i, value in enumerate(node.operands):
            if i in pieces:
                own = settled(self.place(value), self.tag(value).shape, [dim])
                agree(own, shapes[i], places, result.shape)
            else:
                here = [d for d in varying(result) if value.shape[d] == 1]
                self.hold(node, operands, i, settled(places, result.shape, here))
        return places

    def _move_split(self, node: Node, operands: list[Value | None], attrs: Attrs) -> list[Places]:
        tag, places = self.tag(node.inputs[0]), self.place(node.inputs[0])
        dim = attrs["dim"] % tag.ndim
        if tag.shape[dim] == 1:
            return [places] * len(node.outputs)
        found, sizes, start, at = [], [], 0, 0
        for out in node.outputs:
            size = out.shape[dim]
            count = self._count(tag, dim, start, start + size)
            found.append(
                self._piece(places, tag, dim, (at, at + count), (start, start + size), self.tag(out))
            )
            sizes.append(count)
            start, at = start + size, at + count
        attrs["sizes"] = tuple(sizes)
        return found

    def _move_slice(self, node: Node, operands: list[Value | None], attrs: Attrs) -> list[Places]:
        tag, places = self.tag(node.inputs[0]), self.place(node.inputs[0])
        dim = attrs["dim"] % tag.ndim
        if tag.shape[dim] == 1:
            return [places]
        if attrs.get("step", 1) != 1:
            return self._closed(node, operands)[1]
        start = attrs["start"]
        end = start + node.output.shape[dim]
        before, count = self._count(tag, dim, 0, start), self._count(tag, dim, start, end)
        attrs["start"], attrs["end"] = before, before + count
        return [self._piece(places, tag, dim, (before, before + count), (start, end), self.tag(node.output))]

    def _count(self, tag: Tag, dim: int, start: int, end: int) -> int:
        """How many of a stretch of a dimension are left, on every line that is."""
        kept = self.kept(tag)
        others = tuple(d for d in range(tag.ndim) if d != dim)
        if any(tag.shape[d] > 1 for d in range(dim + 1, tag.ndim)):  # lines lie inside: whole indices go
            return int(kept.take(range(start, end), dim).any(others).sum())
        counts = kept.take(range(start, end), dim).sum(dim)[kept.any(dim)]
        if counts.size and (counts != counts.flat[0]).any():
            raise Conflict("its lines would have different lengths")
        return int(counts.flat[0]) if counts.size else 0

    def _piece(
        self, places: Places, tag: Tag, dim: int, at: tuple[int, int], of: tuple[int, int], result: Tag
    ) -> Places:
        found = coordinates(places.take(range(*at), dim), tag.shape)
        found[dim] = found[dim] - of[0]
        if (found[dim] < 0).any() or (found[dim] >= of[1] - of[0]).any():
            raise Conflict("other channels would lie on this side of it")
        shape = tuple(of[1] - of[0] if d == dim else size for d, size in enumerate(tag.shape))
        lost = [d for d in range(tag.ndim) if shape[d] > 1 and result.shape[d] == 1]
        return settled(positions(found, shape), shape, lost)

    def _move_gather(self, node: Node, operands: list[Value | None], attrs: Attrs) -> list[Places]:
        return (
            self._closed(node, operands)[1]
            if not varying(self.tag(node.output))
            else [self.place(node.inputs[0])]
        )

    def _move_pad(self, node: Node, operands: list[Value | None], attrs: Attrs) -> list[Places]:
        tag, result = self.tag(node.inputs[0]), self.tag(node.output)
        places, shape = self.place(node.inputs[0]), list(tag.shape)
        for i in range(0, len(attrs["pads"]), 2):
            dim = tag.ndim - 1 - i // 2
            before, after = attrs["pads"][i], attrs["pads"][i + 1]
            if shape[dim] == 1 or not (before or after):
                continue
            if result.shape[dim] == 1:
                places = settled(places, shape, [dim])
                shape[dim] = 1
                continue
            if sum(size > 1 for size in shape) > 1:
                raise Conflict("it pads lines that have lost different places")
            places = np.pad(
                places + before, [(before, after) if d == dim else (0, 0) for d in range(tag.ndim)]
            )
            size = shape[dim] = shape[dim] + before + after
            along = [slice(None)] * tag.ndim
            for at, filled in ((0, range(before)), (places.shape[dim] - after, range(size - after, size))):
                along[dim] = slice(at, at + len(filled))
                places[tuple(along)] = _along(np.array(filled, np.int64), dim, tag.ndim)
        return [places]

    def _move_expand(self, node: Node, operands: list[Value | None], attrs: Attrs) -> list[Places]:
        result = self.tag(node.output)
        places = self.place(node.inputs[0])
        attrs["shape"] = tuple(-1 if result.shape[d] > 1 else given for d, given in enumerate(attrs["shape"]))
        return [places.reshape(padded(places.shape, result.ndim))]

    def _move_channel_shuffle(self, node: Node, operands: list[Value | None], attrs: Attrs) -> list[Places]:
        tag, places = self.tag(node.inputs[0]), self.place(node.inputs[0])
        if tag.shape[1] == 1:
            return [places]
        groups, width = attrs["groups"], tag.shape[1] // attrs["groups"]
        if places.size % groups:
            raise Conflict("its rows would have different lengths")
        moved = places.reshape(groups, -1).T.reshape(places.shape)
        return [moved % width * groups + moved // width]

    def _move_pixel_shuffle(self, node: Node, operands: list[Value | None], attrs: Attrs) -> list[Places]:
        tag = self.tag(node.inputs[0])
        places = settled(self.place(node.inputs[0]), tag.shape, [0, 2, 3])
        if tag.shape[1] == 1:
            return [places]
        found = np.array(_blocks(places.reshape(-1), attrs["factor"] ** 2, whole=True))
        return [found.reshape(1, -1, 1, 1)]

    def _move_pixel_unshuffle(self, node: Node, operands: list[Value | None], attrs: Attrs) -> list[Places]:
        tag = self.tag(node.inputs[0])
        places = settled(self.place(node.inputs[0]), tag.shape, [0, 2, 3])
        times = attrs["factor"] ** 2
        if tag.shape[1] == 1:
            return [places]
        return [(places.reshape(-1, 1) * times + np.arange(times)).reshape(1, -1, 1, 1)]

    def _move_roll(self, node: Node, operands: list[Value | None], attrs: Attrs) -> list[Places]:
        return [self.reduced(node.inputs[0], self.tag(node.output).shape)]


def _along(index: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return index.reshape([-1 if dim == axis else 1 for dim in range(rank)])


def _is_whole(index: np.ndarray, axis: int, size: int) -> bool:
    """Whether an index takes everything along its own dimension, in order."""
    own = index.shape[axis - index.ndim :][:1] == (size,) and index.size == size
    return own and bool((index.reshape(-1) == np.arange(size)).all())


def _whole(places: Places, shape: tuple[int, ...], sizes: tuple[int, ...]) -> list[np.ndarray]:
    """An index a dimension: the places where a tag varies, everything elsewhere."""
    found = coordinates(places, shape)
    return [
        found[dim] if shape[dim] > 1 else _along(np.arange(size), dim, len(sizes))
        for dim, size in enumerate(sizes)
    ]


def _blocks(read: np.ndarray, width: int, *, whole: bool = False) -> list[int]:
    """The groups of `width` channels that are left, in order; each must lie together and be equally long."""
    owners = (read // width).tolist()
    order = list(dict.fromkeys(owners))
    size = len(owners) // len(order)
    if owners != [group for group in order for _ in range(size)]:
        raise Conflict("its groups would have different sizes, or channels of another group")
    if whole and (size != width or (read.reshape(-1, width) % width != np.arange(width)).any()):
        raise Conflict("part of a group would go")
    return order


def _without(shape: tuple[int, ...], *dims: int) -> tuple[int, ...]:
    return tuple(1 if dim in dims else size for dim, size in enumerate(shape))


def _swapped(places: Places, shape: tuple[int, ...]) -> tuple[Places, tuple[int, ...]]:
    """Places in a tag whose last two dimensions change places."""
    found = [c.swapaxes(-1, -2) for c in coordinates(places, shape)]
    found[-1], found[-2] = found[-2], found[-1]
    left = (*shape[:-2], shape[-1], shape[-2])
    return positions(found, left), left
