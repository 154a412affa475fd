"""Which elements of all values stand or fall together when whole channels are taken out of a graph.

Every value gets a tag (atoms.py). Atoms are born at the outputs of convolutions and linear layers and at
constants that enter a concatenation; a node passes them on as the column `channels` of its op's row says:

pass, window   the input's, windows reach over no channels
join           operands that are sized along a dimension are tied there; size 1 broadcasts freely
scale          the input's, the parameters follow
reduce         a sum contracts; an average or a maximum is of what is kept, and ties it where more varies
move           the movement itself runs on the tag
weigh          the weight contracts the input's and makes new ones; depthwise passes them on
product        what is summed over is tied on both sides, the rest passes
along          one dimension is tied
normalize      statistics over what is kept
anything else stays.

Tying along a dimension, which makes a whole line one class, is the universal way to close what a rule cannot
follow.

Enters: a captured graph. Leaves: `Coupling`: tags, classes, and what a choice of classes must fulfil.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from edgekit.graph.channels.atoms import Atoms, Tag, nothing, varying
from edgekit.graph.channels.tags import aligned, padded, reshaped, without_constant
from edgekit.graph.channels.weave import Weaves
from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import OPS

STATISTICS = ("mean", "amax")
_MOST_LINES = 4096  # a tag of more lines than this closes


@dataclass(frozen=True)
class Weighing:
    """A convolution or linear layer: the atoms of its output channels, and of the inputs it sums over."""

    node: Node
    out_axis: int  # of the weight
    in_axis: int
    made: Tag  # (O,)
    read: Tag | None  # (I,), all groups one after the other; None where no part of the input can go


@dataclass
class Coupling:
    """tags: of every value that is not constant. held: of a constant at one of its uses, (node, input).

    labels: atom -> class, 0 for what stays. rows: lines (of atoms) that must lose equally many. grids: their
    lines along the last dimension may go whole if a rectangle is left. prefixes: lines whose kept counts must
    fall off by at most one. derived: (class, classes of its line): gone together. expanded: what an expand
    makes -> what it repeats.
    """

    graph: Graph
    tags: dict[Value, Tag] = field(default_factory=dict)
    held: dict[tuple[Node, int], Tag] = field(default_factory=dict)
    weighings: dict[Node, Weighing] = field(default_factory=dict)
    born: dict[Value, Tag] = field(default_factory=dict)  # constants that are channels themselves
    expanded: dict[Value, Value] = field(default_factory=dict)
    rows: list[list[np.ndarray]] = field(default_factory=list)
    grids: list[Tag] = field(default_factory=list)
    prefixes: list[list[np.ndarray]] = field(default_factory=list)
    derived: list[tuple[int, np.ndarray]] = field(default_factory=list)
    labels: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int32))
    reasons: dict[int, str] = field(default_factory=dict)  # atom that stays -> why

    def repeated(self, value: Value) -> Value:
        """What a join may read in place of `value`, since it broadcasts by itself."""
        while value in self.expanded:
            value = self.expanded[value]
        return value

    def classes(self, tag: Tag) -> np.ndarray:
        return self.labels[tag]


def couple(graph: Graph, *, exact: bool = False) -> Coupling:
    """Walk the graph once.

    Args:
        exact: close what takes statistics over channels: taking out channels of zeros then changes nothing.
    """
    stays: dict[Node, str] = {}
    while True:
        walk = _Walk(graph, exact, stays)
        for node in graph.nodes:
            walk.visit(node)
        found = walk.result()
        closed = {
            node: found.reasons[int(weighing.made[0])]
            for node, weighing in found.weighings.items()
            if not found.labels[weighing.made].any()
        }
        # what mixes over positions makes channels of its own where those it carries along stay anyway
        passed = any(not found.labels[walk.tag(node.operands[0])].any() for node in walk.mixing)
        if not passed or len(closed) == len(stays):
            return found
        stays = closed


class _Walk:
    def __init__(self, graph: Graph, exact: bool, stays: Mapping[Node, str]) -> None:
        self.found = Coupling(graph)
        self.stays = stays  # layers that are known to lose nothing: what they make is no tag
        self.mixing: list[Node] = []  # layers that map positions, the same for every channel
        self.atoms = Atoms()
        self.weaves = Weaves(self.atoms)
        self.exact = exact
        self._uses: dict[tuple[Value, str], Tag] = {}
        self._relations: dict[str, Callable[[Node], Iterable[Tag]]] = {
            "pass": self._pass,
            "window": self._window,
            "join": self._join,
            "scale": self._scale,
            "reduce": self._reduce,
            "move": self._move,
            "weigh": self._weigh,
            "product": self._product,
            "along": self._along,
            "normalize": self._normalize,
        }
        for value in graph.inputs:
            self.found.tags[value] = nothing(len(value.shape))

    def visit(self, node: Node) -> None:
        relation = self._relations.get(OPS[node.op].channels, self._close)
        for value, tag in zip(node.outputs, relation(node), strict=True):
            assert tag.ndim == len(value.shape), (node, tag.shape)
            self.found.tags[value] = tag

    def result(self) -> Coupling:
        found, atoms = self.found, self.atoms
        for value in found.graph.outputs:
            if not value.is_constant:
                atoms.stay(self.tag(value), "it is an output of the network")
        found.labels, found.reasons = atoms.classes([tag for tag in found.tags.values() if tag.any()])
        found.derived = [(int(found.labels[a]), np.unique(found.labels[line])) for a, line in atoms.derived]
        found.prefixes = self.weaves.prefixes
        return found

    # what rules are made of
    def tag(self, value: Value | None) -> Tag:
        assert value is not None
        known = self.found.tags.get(value)
        return nothing(len(value.shape)) if known is None else known

    def hold(self, node: Node, index: int, tag: Tag) -> None:
        """A constant follows a tag of its own rank; at several uses the same parts of it go."""
        value = node.inputs[index]
        if value is None:
            return
        self.found.held[node, index] = tag
        self.share(value, "", tag, node)

    def share(self, value: Value, role: str, tag: Tag, node: Node) -> None:
        first = self._uses.setdefault((value, role), tag)
        self.atoms.tie(first, tag, f"{value.name} is used at {_where(node)} as well")

    def _close(self, node: Node) -> list[Tag]:
        for value in node.operands:
            self.atoms.stay(self.tag(value), f"{node.op} at {_where(node)} reads it as a whole")
        return [nothing(len(value.shape)) for value in node.outputs]

    def rectangle(self, tag: Tag, why: str) -> Tag:
        """A tag that varies along several dimensions: all its lines must stay equally long."""
        dims = varying(tag)
        if len(dims) < 2:
            return tag
        lines = np.squeeze(tag).reshape(-1, tag.shape[dims[-1]])
        if len(lines) > _MOST_LINES:
            return self.atoms.along(tag, dims[:-1], why)
        self.equal_rows(lines)
        if len(dims) > 2:
            self.found.grids.append(np.squeeze(tag))
        return tag

    def equal_rows(self, lines: np.ndarray) -> None:
        self.found.rows.append(list(lines))
        for line in lines:
            self.weaves.segment(line)

    # relations
    def _pass(self, node: Node) -> list[Tag]:
        return [self.tag(node.inputs[0])]

    def _window(self, node: Node) -> list[Tag]:
        tag = self.tag(node.inputs[0])
        return [self.atoms.along(tag, range(tag.ndim - 2, tag.ndim), f"{node.op} at {_where(node)}")]

    def _join(self, node: Node) -> list[Tag]:
        why = f"{node.op} at {_where(node)} joins it with what stays"
        rank = len(node.output.shape)
        values = {i: v for i, v in enumerate(node.inputs) if v is not None}
        tags = {i: aligned(self.tag(v), rank) for i, v in values.items() if not v.is_constant}
        if not tags:
            return [nothing(rank)]
        main = max(tags, key=lambda i: len(varying(tags[i])))
        whole = tags[main]
        for i in tags:
            foreign = [dim for dim in varying(tags[i]) if whole.shape[dim] == 1]
            tags[i] = self.atoms.along(tags[i], foreign, why)
        for i, value in values.items():
            if i == main:
                continue
            sizes = padded(self.found.repeated(value).shape, rank)
            here = [dim for dim in varying(whole) if sizes[dim] == 1]
            expected = self.atoms.derive(whole, here, why)
            if value.is_constant:
                self.hold(node, i, expected[(0,) * (rank - len(value.shape))])
            elif varying(expected):
                self.atoms.tie(tags[i], expected, why)
        return [whole]

    def _scale(self, node: Node) -> list[Tag]:
        tag = self.tag(node.inputs[0])
        others = [dim for dim in range(tag.ndim) if dim != 1]
        channel = self.atoms.derive(tag, others, f"{node.op} at {_where(node)}").reshape(-1)
        for i, value in enumerate(node.inputs[1:], 1):
            if value is not None and value.shape != (1,):
                self.hold(node, i, channel)
        return [tag]

    def _reduce(self, node: Node) -> list[Tag]:
        tag = self.tag(node.inputs[0])
        dims = [dim % tag.ndim for dim in node.attrs["dims"]]
        why = f"{node.op} at {_where(node)} reduces it"
        statistics = node.op in STATISTICS and not self.exact and set(varying(tag)) <= set(dims)
        if node.op == "sum" or statistics:
            tag = self.atoms.derive(tag, dims, why)
        else:
            tag = self.atoms.along(tag, dims, why)
        return [tag if node.attrs["keepdim"] else np.squeeze(_flat(tag, dims), tuple(dims))]

    def _along(self, node: Node) -> list[Tag]:
        tag = self.tag(node.inputs[0])
        dim = node.attrs["dim"] % tag.ndim
        tag = self.atoms.along(tag, [dim], f"{node.op} at {_where(node)} compares all of it")
        return [tag if len(node.output.shape) == tag.ndim else np.squeeze(tag, dim)]

    def _normalize(self, node: Node) -> list[Tag]:
        tag, why = self.tag(node.inputs[0]), f"{node.op} at {_where(node)} takes statistics over it"
        groups = node.attrs.get("groups")
        if groups is not None:
            tag = self.atoms.along(tag, [dim for dim in range(tag.ndim) if dim != 1], why)
            if groups > 1 and varying(tag):
                self.atoms.along(tag.reshape(groups, -1), [1], why)
            if self.exact:
                tag = self.atoms.along(tag, [1], why)
            own = tag.reshape(-1)
        else:
            first = tag.ndim - len(node.attrs["normalized_shape"])
            if self.exact:
                tag = self.atoms.along(tag, range(first, tag.ndim), why)
            own = tag
            if len(node.operands) > 1:
                own = self.atoms.derive(tag, range(first), why)
            own = own.reshape(own.shape[first:]) if len(node.operands) > 1 else own
        for i in range(1, len(node.inputs)):
            self.hold(node, i, own)
        return [tag]

    def _weigh(self, node: Node) -> list[Tag]:
        x, weight, bias = node.inputs
        assert x is not None and weight is not None
        if x.is_constant or not weight.is_constant or not (bias is None or bias.is_constant):
            return self._close(node)
        return self._linear(node) if node.op == "linear" else self._convolution(node)

    def _linear(self, node: Node) -> list[Tag]:
        tag = self.tag(node.inputs[0])
        why = f"linear at {_where(node)}"
        outside = [dim for dim in varying(tag) if dim < tag.ndim - 1]
        if outside and tag.shape[-1] == 1:
            self.mixing.append(node)
            return [tag]  # the same map at every kept place: mixing over positions
        tag = self.atoms.along(tag, outside, why)
        made = self.atoms.fresh(node.output.shape[-1])
        self._weighing(node, 0, 1, made, tag.reshape(-1) if varying(tag) else None)
        return [self._made(node, aligned(made, len(node.output.shape)))]

    def _convolution(self, node: Node) -> list[Tag]:
        x, out = node.operands[0], node.output
        rank = len(x.shape)
        tag = self.tag(x)
        groups, channels = node.attrs["groups"], x.shape[1]
        why = f"{node.op} at {_where(node)}"
        axis = OPS[node.op].weight_axis or 0
        mixed = [dim for dim in range(2, rank) if not _apart(node, dim)]
        tag = self.atoms.along(tag, mixed, why)
        if tag.shape[1] == 1 and varying(tag):
            self.mixing.append(node)
            return [tag]  # the same map at every kept place
        tag = self.atoms.along(tag, [dim for dim in range(rank) if dim != 1], why)
        read = tag.reshape(-1) if varying(tag) else None
        shape = [1, -1, *[1] * (rank - 2)]
        if groups == channels > 1:
            if read is None:
                return [tag]
            made = np.repeat(read, out.shape[1] // channels)
            self.hold(node, 1, _one_axis(read if axis else made, 0, len(node.operands[1].shape)))
            self.hold(node, 2, made)
            return [made.reshape(shape)]
        if groups > 1 and axis:
            self.atoms.stay(tag, f"{why} is transposed and grouped")
            return [nothing(rank)]
        made = self.atoms.fresh(out.shape[1])
        if groups > 1:
            self._grouped(made, read, groups, why)
        self._weighing(node, axis, 1 - axis, made, read)
        return [self._made(node, made.reshape(shape))]

    def _made(self, node: Node, tag: Tag) -> Tag:
        if node not in self.stays:
            return tag
        self.atoms.stay(tag, self.stays[node])
        return nothing(tag.ndim)

    def _grouped(self, made: Tag, read: Tag | None, groups: int, why: str) -> None:
        rows = made.reshape(groups, -1)
        self.equal_rows(rows)
        whole = self.atoms.derive(rows, [1], why)
        if read is None:
            self.atoms.stay(whole, why)
        else:
            self.equal_rows(read.reshape(groups, -1))
            self.atoms.tie(whole, self.atoms.derive(read.reshape(groups, -1), [1], why), why)

    def _weighing(self, node: Node, out: int, in_: int, made: Tag, read: Tag | None) -> None:
        self.found.weighings[node] = Weighing(node, out, in_, made, read)
        weight = node.operands[1]
        self.share(weight, "made", made, node)
        self.share(weight, "read", nothing(1) if read is None else read, node)
        self.hold(node, 2, made)

    def _product(self, node: Node) -> list[Tag]:
        why = f"{node.op} at {_where(node)}"
        if node.op == "matmul":
            return [self._matmul(node, why)]
        q, k, v = (self.tag(value) for value in node.operands[:3])
        if any(value.is_constant for value in node.operands[:3]):
            return self._close(node)
        rank = max(q.ndim, k.ndim, v.ndim)
        q, k, v = (self.atoms.along(aligned(t, rank), [rank - 2], why) for t in (q, k, v))
        scores = self.multiplied(q, k.swapaxes(-1, -2), why)
        mask = node.inputs[3]
        if mask is not None:
            sizes = padded(mask.shape, rank)
            here = [dim for dim in varying(scores) if sizes[dim] == 1]
            expected = self.atoms.derive(scores, here, why)
            if mask.is_constant:
                self.hold(node, 3, expected[(0,) * (rank - len(mask.shape))])
            elif varying(expected) or varying(self.tag(mask)):
                self.atoms.tie(aligned(self.tag(mask), rank), expected, why)
        return [self.multiplied(scores, v, why)]

    def _matmul(self, node: Node, why: str) -> Tag:
        a, b = node.operands
        rank = len(node.output.shape)
        first, second = aligned(self.tag(a), rank), aligned(self.tag(b), rank)
        for i, value, other in ((0, a, second), (1, b, first)):
            if not value.is_constant:
                continue
            # a constant has the other's summed dimension, and its leading ones where it is sized there
            free = rank - 2 if i else rank - 1
            line = self.atoms.derive(other, [free], why).swapaxes(-1, -2)
            sizes = padded(value.shape, rank)
            line = self.atoms.derive(line, [d for d in varying(line) if sizes[d] == 1], why)
            self.hold(node, i, line[(0,) * (rank - len(value.shape))])
            free_of_other = self.atoms.derive(other, [rank - 1 if i else rank - 2], why)
            return free_of_other
        return self.multiplied(first, second, why)

    def multiplied(self, a: Tag, b: Tag, why: str) -> Tag:
        """(..., M, K) x (..., K, N): K is tied on both sides, one of M and N may vary."""
        m, n = a.ndim - 2, a.ndim - 1
        if a.shape[m] > 1 and b.shape[n] > 1:  # the shorter stays whole
            both = f"{why} has two varying sides"
            if a.shape[m] > b.shape[n]:
                b = self.atoms.along(b, [n], both)
            else:
                a = self.atoms.along(a, [m], both)
        summed_a = self.atoms.derive(a, [m], why)
        summed_b = self.atoms.derive(b, [n], why).swapaxes(m, n)
        if summed_a.shape[n] > 1 or summed_b.shape[n] > 1:
            self.atoms.tie(summed_a, summed_b, why)
        rows, columns = self.atoms.derive(a, [n], why), self.atoms.derive(b, [m], why)
        main, other = (columns, rows) if len(varying(columns)) >= len(varying(rows)) else (rows, columns)
        shared = self.atoms.derive(main, [m, n], why)
        other = self.atoms.derive(other, [m, n], why)
        if varying(shared) or varying(other):
            self.atoms.tie(shared, other, why)
        return main

    # movement
    def _move(self, node: Node) -> Iterable[Tag]:
        rule: Callable[[Node, Tag, str], Iterable[Tag]] | None = getattr(self, f"_move_{node.op}", None)
        why = f"{node.op} at {_where(node)} moves it"
        if node.op == "expand":
            self.found.expanded[node.output] = node.operands[0]
        if rule is None:
            return self._close(node)
        if node.op != "concat" and node.operands[0].is_constant:
            return [nothing(len(value.shape)) for value in node.outputs]
        return rule(node, self.tag(node.operands[0]), why)

    def _move_reshape(self, node: Node, tag: Tag, why: str) -> list[Tag]:
        return [self.rectangle(reshaped(tag, node.operands[0].shape, node.output.shape), why)]

    def _move_permute(self, node: Node, tag: Tag, why: str) -> list[Tag]:
        dims = [dim % tag.ndim for dim in node.attrs["dims"]]
        order = [dim for dim in dims if tag.shape[dim] > 1]
        if order == sorted(order):
            return [tag.transpose(dims)]
        if len(order) > 2:
            longest = max(order, key=lambda dim: tag.shape[dim])
            tag = self.atoms.along(tag, [dim for dim in order if dim != longest], why)
        else:
            self.weaves.record(np.squeeze(tag), why)
        return [tag.transpose(dims)]

    def _move_concat(self, node: Node, _: Tag, why: str) -> list[Tag]:
        rank = len(node.output.shape)
        dim = node.attrs["dim"] % rank
        tags = {i: self.tag(v) for i, v in enumerate(node.operands) if not v.is_constant}
        if any(d != dim for tag in tags.values() for d in varying(tag)):
            return [self._beside(node, dim, tags, why)]
        pieces = []
        for i, value in enumerate(node.operands):
            shape = [value.shape[d] if d == dim else 1 for d in range(rank)]
            if i in tags:
                pieces.append(np.broadcast_to(tags[i], shape))
                continue
            own = self.found.born.get(value)
            if own is None:
                own = self.found.born[value] = self.atoms.fresh(value.shape[dim]).reshape(shape)
            self.hold(node, i, own)
            pieces.append(own)
        return [without_constant(np.concatenate(pieces, dim))]

    def _beside(self, node: Node, dim: int, tags: dict[int, Tag], why: str) -> Tag:
        """Pieces that lie beside each other lose the same parts: a class token and its patches."""
        for i in tags:
            tags[i] = self.atoms.along(tags[i], [dim], why)
        main = max(tags.values(), key=lambda tag: len(varying(tag)))
        for tag in tags.values():
            self.atoms.tie(main, tag, why)
        for i, value in enumerate(node.operands):
            if value.is_constant:
                here = [d for d in varying(main) if value.shape[d] == 1]
                self.hold(node, i, self.atoms.along(main, here, why))
        return main

    def _move_split(self, node: Node, tag: Tag, why: str) -> list[Tag]:
        dim = node.attrs["dim"] % tag.ndim
        if tag.shape[dim] == 1:
            return [tag] * len(node.outputs)
        ends = np.cumsum(node.attrs["sizes"])[:-1]
        return [self._piece(part, dim, why) for part in np.split(tag, ends, dim)]

    def _move_slice(self, node: Node, tag: Tag, why: str) -> list[Tag]:
        dim, step = node.attrs["dim"] % tag.ndim, node.attrs.get("step", 1)
        if tag.shape[dim] == 1:
            return [tag]
        index = [slice(None)] * tag.ndim
        if step != 1:
            if not every(node, tag.shape[dim]):
                self.atoms.stay(tag, f"{why} in steps")
                return [nothing(tag.ndim)]
            steps = np.moveaxis(tag, dim, -1)
            self.atoms.along(steps.reshape(*steps.shape[:-1], -1, step), [tag.ndim], why)
            index[dim] = slice(node.attrs["start"], None, step)
            return [self.rectangle(without_constant(tag[tuple(index)]), why)]
        index[dim] = slice(node.attrs["start"], node.attrs["end"])
        return [self._piece(tag[tuple(index)], dim, why)]

    def _piece(self, tag: Tag, dim: int, why: str) -> Tag:
        for line in np.moveaxis(tag, dim, -1).reshape(-1, tag.shape[dim]):
            self.weaves.segment(line)
        return self.rectangle(without_constant(tag), why)

    def _move_gather(self, node: Node, tag: Tag, why: str) -> list[Tag]:
        dim = node.attrs["dim"] % tag.ndim
        if tag.shape[dim] > 1:
            self.atoms.stay(tag, why)
            return [nothing(tag.ndim)]
        return [tag]

    def _move_pad(self, node: Node, tag: Tag, why: str) -> list[Tag]:
        pads = node.attrs["pads"]
        for i in range(0, len(pads), 2):
            dim = tag.ndim - 1 - i // 2
            if tag.shape[dim] == 1 or not (pads[i] or pads[i + 1]):
                continue
            if node.attrs.get("mode", "constant") != "constant" or min(pads[i], pads[i + 1]) < 0:
                tag = self.atoms.along(tag, [dim], why)
                continue
            fill = self.atoms.derive(tag, [dim], why)  # a line's padding goes with the last of the line
            filled = [np.repeat(np.broadcast_to(fill, _sized(tag, dim, 1)), n, dim) for n in pads[i : i + 2]]
            tag = self.rectangle(np.concatenate([filled[0], tag, filled[1]], dim), why)
        return [tag]

    def _move_expand(self, node: Node, tag: Tag, why: str) -> list[Tag]:
        return [aligned(tag, len(node.output.shape))]

    def _move_channel_shuffle(self, node: Node, tag: Tag, why: str) -> list[Tag]:
        if tag.shape[1] == 1:
            return [tag]
        rows = tag.reshape(node.attrs["groups"], -1)
        self.equal_rows(rows)
        self.weaves.record(rows, why)
        return [np.ascontiguousarray(rows.T).reshape(tag.shape)]

    def _move_pixel_shuffle(self, node: Node, tag: Tag, why: str) -> list[Tag]:
        tag = self.atoms.along(tag, [0, 2, 3], why)
        if tag.shape[1] == 1:
            return [tag]
        rows = tag.reshape(-1, node.attrs["factor"] ** 2)
        return [without_constant(self.atoms.along(rows, [1], why).reshape(1, -1, 1, 1))]

    def _move_pixel_unshuffle(self, node: Node, tag: Tag, why: str) -> list[Tag]:
        tag = self.atoms.along(tag, [0, 2, 3], why)
        return [np.repeat(tag, node.attrs["factor"] ** 2, 1) if tag.shape[1] > 1 else tag]

    def _move_roll(self, node: Node, tag: Tag, why: str) -> list[Tag]:
        return [self.atoms.along(tag, [dim % tag.ndim for dim in node.attrs["dims"]], why)]


def every(node: Node, size: int) -> bool:
    """Whether a slice takes one of each `step` elements of a dimension: the same one of each."""
    start, step = node.attrs["start"], node.attrs["step"]
    return (
        0 <= start < step and size % step == 0 and len(range(start, node.attrs["end"], step)) == size // step
    )


def _apart(node: Node, dim: int) -> bool:
    """Whether a convolution reads one index of this dimension for each that it makes."""
    side = dim - 2
    padding = node.attrs["padding"]
    before_and_after = padding[2 * side : 2 * side + 2] if node.op == "conv2d" else padding[side : side + 1]
    return node.operands[1].shape[dim] == 1 == node.attrs["stride"][side] and not any(before_and_after)


def _sized(tag: Tag, dim: int, size: int) -> tuple[int, ...]:
    return tuple(size if d == dim else n for d, n in enumerate(tag.shape))


def _where(node: Node) -> str:
    return node.source or "the top level"


def _flat(tag: Tag, dims: Iterable[int]) -> Tag:
    """Of size 1 along dimensions that a derivation has left tied."""
    for dim in dims:
        tag = tag.take([0], dim)
    return tag


def _one_axis(ids: np.ndarray, axis: int, rank: int) -> Tag:
    return ids.reshape([-1 if dim == axis else 1 for dim in range(rank)])
