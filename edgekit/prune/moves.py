"""Movement of cut values: where each place goes, and the attributes that take it there.

Enters: a movement node of the original and what is left of its operands. Leaves: the places of its outputs;
`attrs` are changed to the cut sizes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgekit.graph.channels import every
from edgekit.graph.channels.atoms import Tag, varying
from edgekit.graph.channels.tags import padded, written_out
from edgekit.graph.ir import Node
from edgekit.prune.places import (
    Conflict,
    Places,
    agree,
    blocks_left,
    coordinates,
    kept_sizes,
    positions,
    settled,
    spread,
    without,
)
from edgekit.prune.replay import Attrs, Operands, Replay

Move = Callable[[Replay, Node, Operands, Attrs], list[Places]]


def _reshape(replay: Replay, node: Node, operands: Operands, attrs: Attrs) -> list[Places]:
    x, out = node.operands[0], node.output
    tag, result = replay.tag(x), replay.tag(out)
    full, behind = written_out(tag, x.shape, out.shape)
    kept = kept_sizes(replay.kept(result))
    sizes = [kept[d] if result.shape[d] > 1 else out.shape[d] for d in range(result.ndim)]
    pushed = spread(replay.place(x), tag.shape, full)
    shape = [sizes[d] if behind[d] > 1 else 1 for d in range(len(behind))]
    if pushed.size != np.prod(shape):
        raise Conflict("what is left is no rectangle")
    places = pushed.reshape(shape)
    lost = [d for d in range(len(behind)) if behind[d] > 1 and result.shape[d] == 1]
    attrs["shape"] = tuple(
        -1 if given == -1 else size for given, size in zip(attrs["shape"], sizes, strict=True)
    )
    return [settled(places, behind, lost)]


def _permute(replay: Replay, node: Node, operands: Operands, attrs: Attrs) -> list[Places]:
    tag, result = replay.tag(node.inputs[0]), replay.tag(node.output)
    dims = [dim % tag.ndim for dim in attrs["dims"]]
    shape = tuple(result.shape[dims.index(d)] for d in range(tag.ndim))
    found = coordinates(replay.reduced(node.inputs[0], shape), shape)
    return [positions([found[dim].transpose(dims) for dim in dims], result.shape)]


def _concat(replay: Replay, node: Node, operands: Operands, attrs: Attrs) -> list[Places]:
    result = replay.tag(node.output)
    rank = result.ndim
    dim = attrs["dim"] % rank
    tags = [replay.tag(v) for v in node.operands]
    if any(d != dim for tag in tags for d in varying(tag)):
        return [_beside(replay, node, operands, dim)]
    found, start = [], 0
    for i, value in enumerate(node.operands):
        wide = tuple(value.shape[d] if d == dim else 1 for d in range(rank))
        if value.is_constant:
            own = replay.coupling.held[node, i]
            shape = [-1 if d == dim else 1 for d in range(rank)]
            places = np.flatnonzero(replay.kept(own)).reshape(shape)
            replay.hold(node, operands, i, places)
        else:
            places = spread(replay.place(value), tags[i].shape, wide)
        found.append(places + start)
        start += value.shape[dim]
    joined = np.concatenate(found, dim)
    if result.shape[dim] == 1:
        wide = tuple(node.output.shape[d] if d == dim else 1 for d in range(rank))
        joined = settled(joined, wide, [dim])
    return [joined]


def _beside(replay: Replay, node: Node, operands: Operands, dim: int) -> Places:
    result = replay.tag(node.output)
    pieces = {i: v for i, v in enumerate(node.operands) if not v.is_constant}
    shapes = {i: without(replay.tag(v).shape, dim) for i, v in pieces.items()}
    main = max(pieces, key=lambda i: len(varying(np.empty(shapes[i]))))
    places = settled(replay.place(pieces[main]), replay.tag(pieces[main]).shape, [dim])
    for i, value in enumerate(node.operands):
        if i in pieces:
            own = settled(replay.place(value), replay.tag(value).shape, [dim])
            agree(own, shapes[i], places, result.shape)
        else:
            here = [d for d in varying(result) if value.shape[d] == 1]
            replay.hold(node, operands, i, settled(places, result.shape, here))
    return places


def _split(replay: Replay, node: Node, operands: Operands, attrs: Attrs) -> list[Places]:
    tag, places = replay.tag(node.inputs[0]), replay.place(node.inputs[0])
    dim = attrs["dim"] % tag.ndim
    if tag.shape[dim] == 1:
        return [places] * len(node.outputs)
    found, sizes, start, at = [], [], 0, 0
    for out in node.outputs:
        size = out.shape[dim]
        count = _count(replay, tag, dim, start, start + size)
        found.append(_piece(places, tag, dim, (at, at + count), (start, start + size), replay.tag(out)))
        sizes.append(count)
        start, at = start + size, at + count
    attrs["sizes"] = tuple(sizes)
    return found


def _slice(replay: Replay, node: Node, operands: Operands, attrs: Attrs) -> list[Places]:
    tag, places = replay.tag(node.inputs[0]), replay.place(node.inputs[0])
    dim = attrs["dim"] % tag.ndim
    if tag.shape[dim] == 1:
        return [places]
    start, step = attrs["start"], attrs.get("step", 1)
    if step != 1:
        return [_steps(replay, node, attrs)] if every(node, tag.shape[dim]) else replay.closed(node)
    end = start + node.output.shape[dim]
    before, count = _count(replay, tag, dim, 0, start), _count(replay, tag, dim, start, end)
    attrs["start"], attrs["end"] = before, before + count
    return [_piece(places, tag, dim, (before, before + count), (start, end), replay.tag(node.output))]


def _count(replay: Replay, tag: Tag, dim: int, start: int, end: int) -> int:
    """How many of a stretch of a dimension are left, on every line that is."""
    kept = replay.kept(tag)
    others = tuple(d for d in range(tag.ndim) if d != dim)
    if any(tag.shape[d] > 1 for d in range(dim + 1, tag.ndim)):  # lines lie inside: whole indices go
        return int(kept.take(range(start, end), dim).any(others).sum())
    counts = kept.take(range(start, end), dim).sum(dim)[kept.any(dim)]
    if counts.size and (counts != counts.flat[0]).any():
        raise Conflict("its lines would have different lengths")
    return int(counts.flat[0]) if counts.size else 0


def _piece(
    places: Places, tag: Tag, dim: int, at: tuple[int, int], of: tuple[int, int], result: Tag
) -> Places:
    found = coordinates(places.take(range(*at), dim), tag.shape)
    found[dim] = found[dim] - of[0]
    if (found[dim] < 0).any() or (found[dim] >= of[1] - of[0]).any():
        raise Conflict("other channels would lie on this side of it")
    shape = tuple(of[1] - of[0] if d == dim else size for d, size in enumerate(tag.shape))
    lost = [d for d in range(tag.ndim) if shape[d] > 1 and result.shape[d] == 1]
    return settled(positions(found, shape), shape, lost)


def _steps(replay: Replay, node: Node, attrs: Attrs) -> Places:
    """One of each `step` elements, which stand and fall together."""
    tag, places = replay.tag(node.inputs[0]), replay.place(node.inputs[0])
    dim, start, step = attrs["dim"] % tag.ndim, attrs["start"], attrs["step"]
    size = places.shape[dim]
    found = coordinates(places.take(range(start, size, step), dim), tag.shape)
    if size % step or (found[dim] % step != start).any():
        raise Conflict("it would take others in its steps")
    found[dim] = found[dim] // step
    attrs["end"] = size
    shape = tuple(n // step if d == dim else n for d, n in enumerate(tag.shape))
    result = replay.tag(node.output)
    return settled(positions(found, shape), shape, [d for d in range(tag.ndim) if shape[d] > result.shape[d]])


def _gather(replay: Replay, node: Node, operands: Operands, attrs: Attrs) -> list[Places]:
    return replay.closed(node) if not varying(replay.tag(node.output)) else [replay.place(node.inputs[0])]


def _pad(replay: Replay, node: Node, operands: Operands, attrs: Attrs) -> list[Places]:
    tag, result = replay.tag(node.inputs[0]), replay.tag(node.output)
    places, shape = replay.place(node.inputs[0]), list(tag.shape)
    for i in range(0, len(attrs["pads"]), 2):
        dim = tag.ndim - 1 - i // 2
        before, after = attrs["pads"][i], attrs["pads"][i + 1]
        if shape[dim] == 1 or not (before or after):
            continue
        if result.shape[dim] == 1:
            places = settled(places, shape, [dim])
            shape[dim] = 1
            continue
        found = coordinates(places, shape)
        for d in range(tag.ndim):
            if d != dim and (found[d] != found[d].take([0], dim)).any():
                raise Conflict("it pads lines that are no longer straight")
        width = [(before, after) if d == dim else (0, 0) for d in range(tag.ndim)]
        own = np.pad(found[dim] + before, width)
        shape[dim] += before + after
        found = [np.pad(c, width, mode="edge") for c in found]
        filled = np.r_[:before, shape[dim] - after : shape[dim]]
        at = np.r_[:before, own.shape[dim] - after : own.shape[dim]]
        np.moveaxis(own, dim, -1)[..., at] = filled
        found[dim] = own
        places = positions(found, shape)
    return [places]


def _expand(replay: Replay, node: Node, operands: Operands, attrs: Attrs) -> list[Places]:
    result = replay.tag(node.output)
    places = replay.place(node.inputs[0])
    attrs["shape"] = tuple(-1 if result.shape[d] > 1 else given for d, given in enumerate(attrs["shape"]))
    return [places.reshape(padded(places.shape, result.ndim))]


def _channel_shuffle(replay: Replay, node: Node, operands: Operands, attrs: Attrs) -> list[Places]:
    tag, places = replay.tag(node.inputs[0]), replay.place(node.inputs[0])
    if tag.shape[1] == 1:
        return [places]
    groups, width = attrs["groups"], tag.shape[1] // attrs["groups"]
    if places.size % groups:
        raise Conflict("its rows would have different lengths")
    moved = places.reshape(groups, -1).T.reshape(places.shape)
    return [moved % width * groups + moved // width]


def _pixel_shuffle(replay: Replay, node: Node, operands: Operands, attrs: Attrs) -> list[Places]:
    tag = replay.tag(node.inputs[0])
    places = settled(replay.place(node.inputs[0]), tag.shape, [0, 2, 3])
    if tag.shape[1] == 1:
        return [places]
    found = np.array(blocks_left(places.reshape(-1), attrs["factor"] ** 2, whole=True))
    return [found.reshape(1, -1, 1, 1)]


def _pixel_unshuffle(replay: Replay, node: Node, operands: Operands, attrs: Attrs) -> list[Places]:
    tag = replay.tag(node.inputs[0])
    places = settled(replay.place(node.inputs[0]), tag.shape, [0, 2, 3])
    times = attrs["factor"] ** 2
    if tag.shape[1] == 1:
        return [places]
    return [(places.reshape(-1, 1) * times + np.arange(times)).reshape(1, -1, 1, 1)]


def _roll(replay: Replay, node: Node, operands: Operands, attrs: Attrs) -> list[Places]:
    return [replay.reduced(node.inputs[0], replay.tag(node.output).shape)]


MOVES: dict[str, Move] = {
    "reshape": _reshape,
    "permute": _permute,
    "concat": _concat,
    "split": _split,
    "slice": _slice,
    "gather": _gather,
    "pad": _pad,
    "expand": _expand,
    "channel_shuffle": _channel_shuffle,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "roll": _roll,
}
