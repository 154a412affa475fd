"""What every format's lowering is and leaves: the protocol, its result, and the runner of its passes.

A format is a package under `edgekit.lower` with the functions of `Lowering`. Preparation is a row of passes
over a copy of the graph; a `Form` among them is run for the targets that want it, by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol, cast

from edgekit.errors import UnsupportedError
from edgekit.graph.check import check
from edgekit.graph.ir import Graph, Value
from edgekit.lower.ports import Ports
from edgekit.targets import Target

Pass = Callable[[Graph, Target], int]


@dataclass(frozen=True)
class LoweredOp:
    """One operator of the file, in file order, and the graph node it came from.

    name: the operator's own, where the format has one. node_index: -1 for conversions at the edges.
    """

    builtin: str
    op: str
    source: str
    node_index: int
    outputs: tuple[str, ...]
    name: str = ""


@dataclass(frozen=True)
class Lowered:
    """A file with the way back to the graph.

    files: relative name -> bytes, the file to load first.
    tensors: value name -> name of the tensor that holds exactly this value: integers where it is quantized.
    operators: what the file runs, in order.
    inputs, outputs: the names the file is called by, in order.
    ports: the tensors of the graph's inputs and outputs.
    layouts: value name -> stored layout: tensor dimension i holds value dimension layouts[name][i]; empty for
        a format that keeps torch's.
    certificate: every transposition that is left, for a format that has a layout of its own.
    batchable: whether the file takes any number of images, or one at a time.
    """

    files: dict[str, bytes]
    tensors: dict[str, str]
    operators: tuple[LoweredOp, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ports: Ports
    layouts: dict[str, tuple[int, ...]] = field(default_factory=dict)
    certificate: tuple[Any, ...] = ()
    batchable: bool = False

    @property
    def data(self) -> bytes:
        """The bytes of the file to load."""
        return next(iter(self.files.values()))


class Lowering(Protocol):
    """A format's package."""

    def unsupported(self, graph: Graph, target: Target) -> list[str]:
        """One line for every node that cannot be lowered."""

    def prepare(self, graph: Graph, target: Target, io_dtype: str | None = None) -> Graph:
        """A copy of the graph in the forms that the target runs best with inputs of a type."""

    def lower(self, graph: Graph, target: Target, **options: Any) -> Lowered:
        """The file of a prepared graph; io_dtype, and dynamic_batch where the target leaves batches open."""


def lowering_of(target: Target) -> Lowering:
    """The package of the target's format."""
    return cast(Lowering, import_module(f"edgekit.lower.{target.format}"))


@dataclass(frozen=True)
class Form:
    """A pass that is run for the targets that want its form; they name the pass."""

    run: Pass

    @property
    def name(self) -> str:
        return getattr(self.run, "__name__", "")


def prepared(graph: Graph, target: Target, passes: Sequence[Pass | Form]) -> Graph:
    """A copy of `graph` after the passes that `target` wants, checked after each.

    Raises: UnsupportedError for a value of a type that no node of the target may have.
    """
    copy = graph.copy()
    copy.remove_dead()
    _refuse_types(copy, target, lambda kind: kind in target.dtypes or _derived(kind, target))
    for step in passes:
        if isinstance(step, Form) and step.name not in target.forms:
            continue
        (step.run if isinstance(step, Form) else step)(copy, target)
        check(copy)
    copy.remove_dead()
    _refuse_types(copy, target, lambda kind: kind in target.dtypes)
    return copy


def _derived(kind: str, target: Target) -> bool:
    """Whether passes may still make another type of it: calibration writes int8, float targets drop it."""
    return kind in ("int8", "float32") or not target.quantized


def _refuse_types(graph: Graph, target: Target, accepted: Callable[[str], bool]) -> None:
    """A target computes in the types it lists; integers that count or choose are no matter of precision."""
    makers = graph.producers()
    lines = []
    for value in graph.values():
        kind = _computes_in(value)
        if kind and not accepted(kind):
            node = makers.get(value)
            where = f"{node.op} at {node.source or 'top level'}" if node is not None else "input"
            lines.append(f"{value.name} ({where}) is {kind}")
    if lines:
        more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
        taken = " or ".join(target.dtypes)
        raise UnsupportedError(f"{target.name}: {'; '.join(lines[:3])}{more}: {taken} is needed")


def _computes_in(value: Value) -> str:
    if value.is_constant:
        return ""
    if value.quant is not None:
        return value.quant.dtype
    return "float32" if value.dtype.startswith("float") else ""
