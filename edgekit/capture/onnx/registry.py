"""What every importer of this package uses: the table, a node's attributes, the error that is collected.

An importer is `fn(imp, node, *inputs)`: inputs are a Value, an array (constant) or None (absent); it returns
a Value, an array, or a tuple of them, one an output. It serves the opsets 9 to 22: what moved from an
attribute to an input is looked for in both places.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgekit.capture.builder import Unsupported
from edgekit.errors import CaptureError
from edgekit.graph.ir import Value

IMPORTERS: dict[str, Callable[..., Any]] = {}


@dataclass(frozen=True)
class OnnxNode:
    """A node with its attributes as Python objects; arrays where the file holds tensors."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    proto: Any = None

    def get(self, name: str, default: Any = None) -> Any:
        return self.attrs.get(name, default)


def importer(*ops: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(fn: Callable[..., Any]) -> Callable[..., Any]:
        for op in ops:
            if op in IMPORTERS:
                raise CaptureError(f"[capture] ONNX {op} is registered twice")
            IMPORTERS[op] = fn
        return fn

    return register


def integers(x: Any, what: str) -> list[int]:
    """A constant input or attribute as a list of int; Unsupported when it depends on the picture."""
    if isinstance(x, Value):
        raise Unsupported(f"{what} that depend on the input")
    return [int(i) for i in np.asarray(x).reshape(-1)]


def number(x: Any) -> float | None:
    """The one number a constant holds, None for anything else."""
    if x is None or isinstance(x, Value) or np.asarray(x).size != 1:
        return None
    return float(np.asarray(x).reshape(()))


def constant(x: Any, what: str) -> np.ndarray:
    if not isinstance(x, np.ndarray):
        raise Unsupported(f"{what} that depend on the input")
    return x


def positive(dim: int, rank: int) -> int:
    if not -rank <= dim < rank:
        raise Unsupported(f"axis {dim} of {rank} dimensions")
    return dim % rank
