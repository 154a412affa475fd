"""What a surgery did: one line for each thing changed, one for each thing left and why."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

from edgekit.graph.ir import Graph, Value
from edgekit.graph.ops import OPS

Tensor = torch.Tensor
_STATISTICS = slice(3, 5)  # of batch_norm's inputs: buffers, no parameters
EXACT_DB = 140.0  # where two answers differ by rounding only


@dataclass(frozen=True)
class Change:
    """module: path of what was changed. what: what it was and what it is now."""

    module: str
    what: str


@dataclass(frozen=True)
class Left:
    """module: path of what a step would have changed. reason: why it stays."""

    module: str
    reason: str


@dataclass(frozen=True)
class StepRecord:
    """One step: what it changed and left, what the graph counts before and after, how near its answers are.

    sqnr_db: signal to error of the outputs against the reference's, on images that fitted nothing where
        there are enough of them; None where nothing ran.
    """

    step: str
    changes: tuple[Change, ...]
    left: tuple[Left, ...]
    params_before: int
    params_after: int
    macs_before: int
    macs_after: int
    images: int = 0
    sqnr_db: float | None = None

    @property
    def modules(self) -> tuple[str, ...]:
        """Paths of what was changed."""
        return tuple(change.module for change in self.changes)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Rung:
    """One step on one part of a network, as a choice.

    ms_won: milliseconds of the original less those with this alone.
    drop: accuracy lost by this alone; None where it was not judged.
    price: milliseconds for each point lost.
    outcome: what became of it.
    ms, accuracy: of everything taken up to here, this included; None where that was not made.
    recovered: whether recovery had a part in that.
    """

    step: str
    modules: tuple[str, ...]
    ms_won: float
    drop: float | None = None
    price: float | None = None
    outcome: str = ""
    taken: bool = False
    ms: float | None = None
    accuracy: float | None = None
    recovered: bool = False


@dataclass(frozen=True)
class Climb:
    """Every rung in the order of its price; what the original costs and scores, and what was taken does."""

    ms_before: float
    accuracy_before: float
    max_drop: float
    ms_after: float
    accuracy_after: float
    rungs: tuple[Rung, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def params(graph: Graph) -> int:
    """Elements of floating constants, each counted once; running statistics are no parameters."""
    buffers = {v for n in graph.nodes if n.op == "batch_norm" for v in n.inputs[_STATISTICS]}
    return sum(
        math.prod(v.shape) for v in graph.constants() if v not in buffers and v.dtype.startswith("float")
    )


def macs(graph: Graph) -> int:
    """Multiply-adds of matrix products and convolutions for one image."""
    return sum(
        count([() if v is None else v.shape for v in node.inputs], node.output.shape)
        for node in graph.nodes
        if (count := OPS[node.op].macs)
    )


def sqnr_db(meant: list[Tensor], made: list[Tensor]) -> float:
    """10 log10 of signal over error, over all outputs; every output counts alike."""
    noise = [
        float((a - b).double().square().mean() / a.double().square().mean().clamp_min(1e-30))
        for a, b in zip(meant, made, strict=True)
        if a.is_floating_point()
    ]
    share = sum(noise) / len(noise) if noise else 0.0
    return EXACT_DB if share <= 0 else min(EXACT_DB, -10.0 * math.log10(share))


def source_of(value: Value, graph: Graph) -> str:
    """The module path of what makes a value."""
    node = graph.producers().get(value)
    return node.source if node is not None else value.name
