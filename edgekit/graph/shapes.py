"""Output shapes of a node, from running its torch function on meta tensors.

Enters: a Node with recorded input shapes. Leaves: one shape per output. Remembered per (op, shapes,
attributes), so that checking a graph again after a pass costs only what the pass changed.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from edgekit.errors import GraphError
from edgekit.graph.ir import Node
from edgekit.graph.ops import ACTIVATIONS, OPS

Shape = tuple[int, ...]


def infer_shapes(node: Node) -> tuple[Shape, ...]:
    """Raises GraphError when torch refuses the node's inputs or attributes."""
    inputs = tuple(None if v is None else (tuple(v.shape), v.dtype) for v in node.inputs)
    if node.attrs.get("activation") not in (None, *ACTIVATIONS):
        raise GraphError(f"[graph] {node.op} at {node.source}: no activation {node.attrs['activation']!r}")
    attrs = tuple(sorted((k, v) for k, v in node.attrs.items() if k != "activation"))  # it keeps shapes
    try:
        try:
            return _remembered(node.op, inputs, attrs)
        except TypeError:  # an attribute that cannot be hashed
            return _infer(node.op, inputs, attrs)
    except Exception as error:  # whatever torch raises for bad arguments
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise GraphError(f"[graph] {node.op} at {node.source or 'top level'} cannot run: {reason}") from error


def _infer(op: str, inputs: tuple[Any, ...], attrs: tuple[tuple[str, Any], ...]) -> tuple[Shape, ...]:
    tensors = [
        None if entry is None else torch.empty(entry[0], dtype=getattr(torch, entry[1]), device="meta")
        for entry in inputs
    ]
    with torch.no_grad():
        result = OPS[op].fn(*tensors, **dict(attrs))
    return tuple(tuple(t.shape) for t in (result if isinstance(result, tuple | list) else (result,)))


_remembered = functools.lru_cache(maxsize=1 << 14)(_infer)
