"""`3x3`: depthwise kernels larger than 3 become 3 x 3.

The nine numbers of a channel and its constant are those with which its output is nearest, by least squares,
to what the large kernel gave: on patches of the calibration images, as the changed network sees them.
They start from the middle of the large kernel; the layers behind are fitted as well. Stride and dilation
stay, the padding shrinks by what the kernel loses, so that every output stays at its place.
"""

from __future__ import annotations

from collections.abc import Collection

from edgekit.graph.channels import weighs_one
from edgekit.graph.ir import Graph, Node
from edgekit.graph.shapes import infer_shapes
from edgekit.surgery.layers import Layers, new_weight, refits
from edgekit.surgery.paired import Site
from edgekit.surgery.record import Change, Left

_SIDE = 3


def shrink_kernels(
    graph: Graph, reference: Graph, only: Collection[str] | None
) -> tuple[list[Change], list[Left], list[Site]]:
    """Shrink depthwise kernels of `graph` in place; the sites fit them."""
    layers = Layers(graph)
    changes, left, shrunk = [], [], []
    for node in graph.nodes:
        if node.op != "conv2d" or (only is not None and node.source not in only):
            continue
        sides = node.inputs[1].shape[2:]  # type: ignore[union-attr]
        if max(sides) <= _SIDE:
            continue
        layer = layers.found.get(node)
        if reason := _reason(node, layer is None):
            left.append(Left(node.source, f"{_sizes(sides)}: {reason}"))
            continue
        assert layer is not None and layer.node.inputs[1] is not None
        data, kept = layer.node.inputs[1].data, [min(side, _SIDE) for side in sides]
        assert data is not None
        cut = [(side - now) // 2 for side, now in zip(sides, kept, strict=True)]
        middle = data[..., cut[0] : cut[0] + kept[0], cut[1] : cut[1] + kept[1]]
        top, bottom, start, end = node.attrs["padding"]
        dy, dx = (c * d for c, d in zip(cut, node.attrs["dilation"], strict=True))
        node.attrs["padding"] = (top - dy, bottom - dy, start - dx, end - dx)
        new_weight(layer, middle.detach())
        assert infer_shapes(node) == (node.output.shape,)
        changes.append(Change(node.source, f"{_sizes(sides)} depthwise to {_sizes(kept)}"))
        shrunk.append(layer)
    behind = layers.first_reached([layer.out for layer in shrunk])
    return changes, left, refits(graph, [*shrunk, *behind], reference)


def _reason(node: Node, foreign: bool) -> str:
    """Why a large kernel stays; "" where it can go."""
    if not weighs_one(node):
        return "every output reads several channels"
    if foreign:
        return "its weights are shared or computed"
    sides = node.inputs[1].shape[2:]  # type: ignore[union-attr]
    if any(side > _SIDE and side % 2 == 0 for side in sides):
        return "an even kernel has no middle"
    top, bottom, left, right = node.attrs["padding"]
    lost = [max(0, side - _SIDE) // 2 * d for side, d in zip(sides, node.attrs["dilation"], strict=True)]
    if min(top, bottom) < lost[0] or min(left, right) < lost[1]:
        return "it pads less than it would lose"
    return ""


def _sizes(sides: tuple[int, ...] | list[int]) -> str:
    return "x".join(map(str, sides))
