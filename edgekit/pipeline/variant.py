"""The forms a model takes on its way to the targets: original -> surgery -> pruned -> trained.

The artifact is made of the last one; every proof refers to the first. What a variant costs and what it lost
is said against the original, never against itself: a pruned model beside its own float self shows no loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekit.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from edgekit.graph.ir import Graph

ORIGINAL = "original"
GIVEN = "given"


@dataclass(frozen=True, eq=False)
class Variant:
    """One form of a model.

    step: "original", or what made it of its parent; "given": handed over beside its original.
    module: what it is captured from; None where a step of the build made `graph` itself.
    identity: JSON data that names it in the store with all it was made of; None when nothing can.
    record: what the step that made it says of it, see `edgekit.pipeline.steps.step`.
    """

    step: str
    name: str
    module: nn.Module | None
    identity: dict[str, Any] | None
    parent: Variant | None = None
    graph: Graph | None = None
    record: dict[str, Any] | None = None

    @property
    def chain(self) -> tuple[Variant, ...]:
        """From the original to this one."""
        return (*(self.parent.chain if self.parent else ()), self)

    @property
    def original(self) -> Variant:
        return self.chain[0]


def require_same_signature(original: Graph, variant: Graph, name: str) -> None:
    """Raises: UsageError where the two cannot be compared: other inputs or outputs."""
    for side in ("inputs", "outputs"):
        theirs = [tuple(value.shape) for value in getattr(original, side)]
        ours = [tuple(value.shape) for value in getattr(variant, side)]
        if theirs != ours:
            raise UsageError(
                f"{name}: {side} {_shapes(ours)}, but its original's are {_shapes(theirs)}: a variant takes "
                "and gives what its original does"
            )


def _shapes(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes))
