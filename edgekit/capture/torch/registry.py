"""What every importer of this package uses: the table, the error that is collected, readers of arguments.

An importer is `fn(imp, *args, **kwargs)` with the arguments of native_functions.yaml: a tensor of the model
is a Value, a constant is a torch tensor. It returns a Value, a tensor, or a tuple of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from edgekit.errors import CaptureError
from edgekit.graph.ir import Value

aten = torch.ops.aten
IMPORTERS: dict[Any, Callable[..., Any]] = {}


def importer(*overloads: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register an importer of these overloads. Raises: CaptureError for a second one."""

    def register(fn: Callable[..., Any]) -> Callable[..., Any]:
        for overload in overloads:
            if overload in IMPORTERS:
                raise CaptureError(f"[capture] {overload} is registered twice")
            IMPORTERS[overload] = fn
        return fn

    return register


def overloads(*names: str) -> list[Any]:
    """Operators by name, those of them that this torch has; "relu_" is relu in place."""
    found = []
    for name in names:
        packet, _, overload = name.partition(".")
        if hasattr(aten, packet) and hasattr(getattr(aten, packet), overload or "default"):
            found.append(getattr(getattr(aten, packet), overload or "default"))
    return found


def pair(x: int | Sequence[int]) -> tuple[int, int]:
    return (x, x) if isinstance(x, int) else (int(x[0]), int(x[-1]))


def positive(dim: int, rank: int) -> int:
    return dim % rank if rank else 0


def dims_of(x: Value, dims: int | Sequence[int] | None) -> tuple[int, ...]:
    """Dimensions as a sorted tuple; none or an empty list are all of them."""
    rank = len(x.shape)
    listed = range(rank) if not dims and dims != 0 else [dims] if isinstance(dims, int) else dims
    return tuple(sorted(positive(d, rank) for d in listed))
