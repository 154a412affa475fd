"""The state of a cut: for every value what is left of it, and the constants gathered so far.

Enters: an analysis, what is gone, and for each node its cut form with the places of its outputs. Leaves: a
graph in which each output was proven to hold exactly what was to be kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from edgekit.graph.channels.atoms import Tag, varying
from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.shapes import infer_shapes
from edgekit.prune.groups import Analysis
from edgekit.prune.places import Conflict, Places, along_axis, coordinates, settled

Attrs = dict[str, Any]
Operands = list[Value | None]


class Replay:
    """What rules read and write; `places` of a value are its elements' positions in its tag."""

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
        for value in self.graph.inputs:
            self.values[value] = Value(value.name, value.shape, value.dtype)
            self.places[value] = np.zeros((1,) * len(value.shape), np.int64)

    def result(self) -> Graph:
        outputs = [self.constant(v) if v.is_constant else self.values[v] for v in self.graph.outputs]
        inputs = [self.values[v] for v in self.graph.inputs]
        return Graph(inputs, outputs, self._used(outputs), self.graph.name, self.graph.batchable)

    def _used(self, outputs: list[Value]) -> list[Node]:
        """Without what only repeated a value for those who now read the value itself."""
        used, found = set(outputs), []
        for node in reversed(self.nodes):
            if node.op != "expand" or used.intersection(node.outputs):
                used.update(node.operands)
                found.append(node)
        return found[::-1]

    def finish(self, made: Node, node: Node, places: list[Places]) -> None:
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

    def hold(self, node: Node, operands: Operands, index: int, places: Places) -> None:
        tag = self.coupling.held.get((node, index))
        if tag is not None:
            operands[index] = self.gathered(node, index, places, tag.shape)

    def closed(self, node: Node) -> list[Places]:
        """Of a node that takes its operands as they were: nothing of them may be gone."""
        for value in node.operands:
            tag = self.tag(value)
            settled(self.place(value), tag.shape, range(tag.ndim))
        return [np.zeros((1,) * len(v.shape), np.int64) for v in node.outputs]


def _is_whole(index: np.ndarray, axis: int, size: int) -> bool:
    """Whether an index takes everything along its own dimension, in order."""
    own = index.shape[axis - index.ndim :][:1] == (size,) and index.size == size
    return own and bool((index.reshape(-1) == np.arange(size)).all())


def _whole(places: Places, shape: tuple[int, ...], sizes: tuple[int, ...]) -> list[np.ndarray]:
    """An index a dimension: the places where a tag varies, everything elsewhere."""
    found = coordinates(places, shape)
    return [
        found[dim] if shape[dim] > 1 else along_axis(np.arange(size), dim, len(sizes))
        for dim, size in enumerate(sizes)
    ]
