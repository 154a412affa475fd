"""Importers of operators that only move data: views, joins, cuts, padding."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgekit.capture.builder import Unsupported
from edgekit.capture.choice import choose, elements, repeated
from edgekit.capture.onnx.registry import OnnxNode, importer, integers, number, positive
from edgekit.graph.ir import Value

if TYPE_CHECKING:
    from edgekit.capture.onnx.builder import Builder


@importer("Shape")
def shape(imp: Builder, node: OnnxNode, x: Any) -> np.ndarray:
    return np.array(x.shape[node.get("start", 0) : node.get("end")], dtype=np.int64)


@importer("Size")
def size(imp: Builder, node: OnnxNode, x: Any) -> np.ndarray:
    return np.array(math.prod(x.shape), dtype=np.int64)


@importer("Reshape")
def reshape(imp: Builder, node: OnnxNode, x: Any, wanted: Any) -> Value:
    sizes = integers(wanted, "sizes")
    if not node.get("allowzero", 0):
        sizes = [x.shape[i] if d == 0 else d for i, d in enumerate(sizes)]
    if -1 in sizes:
        known = -math.prod(sizes)
        sizes = [math.prod(x.shape) // known if d == -1 else d for d in sizes]
    return imp.reshape(x, sizes)


@importer("Flatten")
def flatten(imp: Builder, node: OnnxNode, x: Any) -> Value:
    axis = int(node.get("axis", 1))
    axis += len(x.shape) if axis < 0 else 0
    return imp.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@importer("Squeeze")
def squeeze(imp: Builder, node: OnnxNode, x: Any, axes: Any = None) -> Value:
    axes = node.get("axes") if axes is None else axes
    rank = len(x.shape)
    gone = (
        {i for i, d in enumerate(x.shape) if d == 1}
        if axes is None
        else {positive(a, rank) for a in integers(axes, "axes")}
    )
    return imp.reshape(x, [d for i, d in enumerate(x.shape) if i not in gone])


@importer("Unsqueeze")
def unsqueeze(imp: Builder, node: OnnxNode, x: Any, axes: Any = None) -> Value:
    listed = integers(node.get("axes") if axes is None else axes, "axes")
    rank = len(x.shape) + len(listed)
    new = {positive(a, rank) for a in listed}
    old = iter(x.shape)
    return imp.reshape(x, [1 if i in new else next(old) for i in range(rank)])


@importer("Transpose")
def transpose(imp: Builder, node: OnnxNode, x: Any) -> Value:
    dims = tuple(node.get("perm") or range(len(x.shape))[::-1])
    return imp.emit("permute", (x,), dims=dims)


@importer("Concat")
def concat(imp: Builder, node: OnnxNode, *xs: Any) -> Value:
    kept = [x for x in xs if x is not None and math.prod(x.shape)]
    if len(kept) == 1:
        return kept[0]
    return imp.emit("concat", kept, dim=positive(int(node.attrs["axis"]), len(kept[0].shape)))


@importer("Split")
def split(imp: Builder, node: OnnxNode, x: Any, sizes: Any = None) -> tuple[Value, ...]:
    """Sizes are an attribute up to opset 12, then an input, or equal parts."""
    dim = positive(int(node.get("axis", 0)), len(x.shape))
    given = node.get("split") if sizes is None else sizes
    if given is not None:
        parts = integers(given, "sizes")
    else:
        step = -(-x.shape[dim] // len(node.outputs))
        parts = [min(step, x.shape[dim] - i * step) for i in range(len(node.outputs))]
    return tuple(imp.emit_many("split", (x,), sizes=tuple(parts), dim=dim))


def cut(imp: Builder, x: Value, dim: int, start: int, end: int, step: int = 1) -> Value:
    if (start, end, step) == (0, x.shape[dim], 1):
        return x
    return imp.emit("slice", (x,), dim=dim, start=start, end=end, step=step)


@importer("Slice")
def slice_(
    imp: Builder,
    node: OnnxNode,
    x: Any,
    starts: Any = None,
    ends: Any = None,
    axes: Any = None,
    steps: Any = None,
) -> Value:
    """Attributes in opset 9, inputs from 10."""
    low = integers(node.get("starts") if starts is None else starts, "bounds")
    high = integers(node.get("ends") if ends is None else ends, "bounds")
    given = node.get("axes") if axes is None else axes
    dims = list(range(len(low))) if given is None else integers(given, "axes")
    strides = [1] * len(low) if steps is None else integers(steps, "steps")
    for start, end, dim, step in zip(low, high, dims, strides, strict=True):
        dim = positive(dim, len(x.shape))
        if step < 0:
            last = None if end < -x.shape[dim] else end  # beyond the first entry
            x = choose(imp, x, dim, range(x.shape[dim])[start:last:step])
        else:
            x = cut(imp, x, dim, *slice(start, end, step).indices(x.shape[dim]))
    return x


@importer("Gather")
def gather(imp: Builder, node: OnnxNode, x: Any, index: Any) -> Value:
    """Constant indices of one dimension."""
    if not isinstance(x, Value) or isinstance(index, Value):
        raise Unsupported("Gather with indices that depend on the input")
    dim = positive(int(node.get("axis", 0)), len(x.shape))
    y = choose(imp, x, dim, [int(i) for i in index.reshape(-1)])
    return y if index.ndim == 1 else imp.reshape(y, (*x.shape[:dim], *index.shape, *x.shape[dim + 1 :]))


@importer("GatherElements")
def gather_elements(imp: Builder, node: OnnxNode, x: Any, index: Any) -> Value:
    """A constant index for every element."""
    if not isinstance(x, Value) or isinstance(index, Value):
        raise Unsupported("GatherElements with indices that depend on the input")
    dim = positive(int(node.get("axis", 0)), len(x.shape))
    table = torch.from_numpy(np.asarray(index, np.int64) % x.shape[dim])
    return elements(imp, x, lambda ids: ids.gather(dim, table))


@importer("Expand")
def expand(imp: Builder, node: OnnxNode, x: Any, wanted: Any) -> Value:
    """-1 wherever nothing is repeated, so that the batch stays free."""
    asked = integers(wanted, "sizes")
    rank = max(len(asked), len(x.shape))
    have = (1,) * (rank - len(x.shape)) + tuple(x.shape)
    out = np.broadcast_shapes(have, tuple(asked))
    if out == tuple(x.shape):
        return x
    x = imp.reshape(x, have) if have != tuple(x.shape) else x
    return imp.emit("expand", (x,), shape=tuple(-1 if a == b else b for a, b in zip(have, out, strict=True)))


@importer("Tile")
def tile(imp: Builder, node: OnnxNode, x: Any, repeats: Any) -> Value:
    for dim, count in enumerate(integers(repeats, "repeats")):
        x = repeated(imp, x, dim, count)
    return x


@importer("Pad")
def pad(imp: Builder, node: OnnxNode, x: Any, pads: Any = None, value: Any = None, axes: Any = None) -> Value:
    """Attributes up to opset 10, then inputs; ONNX lists all lows, then all highs."""
    amounts = integers(node.get("pads") if pads is None else pads, "pads")
    rank = len(x.shape)
    dims = list(range(rank)) if axes is None else [positive(a, rank) for a in integers(axes, "axes")]
    table = dict(zip(dims, zip(amounts[: len(dims)], amounts[len(dims) :], strict=True), strict=True))
    flat = [p for dim in range(rank)[::-1] for p in table.get(dim, (0, 0))]
    while flat and flat[-2:] == [0, 0]:
        del flat[-2:]
    if not flat:
        return x
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}.get(
        node.get("mode", "constant")
    )
    fill = node.get("value", 0.0) if value is None else number(value)
    if mode is None or fill is None:
        raise Unsupported(f"Pad with mode {node.get('mode')} or a value that depends on the input")
    return imp.emit("pad", (x,), pads=tuple(flat), mode=mode, value=float(fill))


@importer("DepthToSpace")
def depth_to_space(imp: Builder, node: OnnxNode, x: Any) -> Value:
    """CRD is torch's pixel_shuffle; DCR keeps the channel innermost."""
    block, (n, c, h, w) = int(node.attrs["blocksize"]), x.shape
    if node.get("mode", "DCR") == "CRD":
        return imp.emit("pixel_shuffle", (x,), factor=block)
    y = imp.reshape(x, (n, block, block, c // block**2, h, w))
    y = imp.emit("permute", (y,), dims=(0, 3, 4, 1, 5, 2))
    return imp.reshape(y, (n, c // block**2, h * block, w * block))


@importer("SpaceToDepth")
def space_to_depth(imp: Builder, node: OnnxNode, x: Any) -> Value:
    """The place within a block comes before the channel; torch's pixel_unshuffle has it after."""
    block, (n, c, h, w) = int(node.attrs["blocksize"]), x.shape
    y = imp.reshape(x, (n, c, h // block, block, w // block, block))
    y = imp.emit("permute", (y,), dims=(0, 3, 5, 1, 2, 4))
    return imp.reshape(y, (n, c * block**2, h // block, w // block))
