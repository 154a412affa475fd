"""What edgetpu_compiler will map to the Edge TPU, said before it runs: a .tflite file -> Preflight.

An operator is mapped when it breaks none of `edgetpu_rules` and depends on none that does: the compiler makes
one part for the Edge TPU, from the inputs on, and leaves to the processor the first operator that it cannot
map and all that depend on it ("More than one subgraph is not supported"). A QUANTIZE of a float input is the
exception seen in its logs: it stays on the processor and what follows is mapped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgekit.errors import ArtifactError
from edgekit.lower.tflite.reader import Operator, Subgraph, read_model
from edgekit.runtimes.edgetpu.rules import cautions, violations
from edgekit.runtimes.litert.audit import module_of
from edgekit.runtimes.sources import Source, open_source

COMPILED = "CUSTOM:edgetpu-custom-op"
Counts = dict[str, tuple[int, int]]  # operator -> how many on the Edge TPU, how many on the processor


@dataclass(frozen=True)
class Placement:
    """One operator, and why it is not mapped: the rules it breaks, or the operator it comes after.

    cautions: what Coral's page leaves open for an operator that is called mapped here.
    """

    index: int
    op: str
    module: str
    mapped: bool
    reasons: tuple[str, ...]
    after: str | None  # set where only what comes before is in the way
    cautions: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.op} at {self.module}"


@dataclass(frozen=True)
class Preflight:
    """parameter_bytes: constants that the mapped operators read, which the Edge TPU has to hold or stream."""

    operators: tuple[Placement, ...]
    parameter_bytes: int

    @property
    def unmapped(self) -> tuple[Placement, ...]:
        return tuple(row for row in self.operators if not row.mapped)

    @property
    def on_cpu(self) -> int:
        return len(self.unmapped)

    @property
    def on_tpu(self) -> int:
        return len(self.operators) - self.on_cpu

    @property
    def complete(self) -> bool:
        return not self.unmapped

    def counts(self) -> Counts:
        """By operator, named as in the compiler's table."""
        mapped: Counter[str] = Counter()
        left: Counter[str] = Counter()
        for row in self.operators:
            (mapped if row.mapped else left)[row.op.partition(":")[0]] += 1
        return {op: (mapped[op], left[op]) for op in sorted({*mapped, *left})}

    def as_dict(self) -> dict[str, Any]:
        first = next(iter(self.unmapped), None)
        return {
            "on_tpu": self.on_tpu,
            "on_cpu": self.on_cpu,
            "first_unmapped": str(first) if first else None,
            "parameter_bytes": self.parameter_bytes,
            "operators": [asdict(row) for row in self.operators],
        }


@dataclass(frozen=True)
class Difference:
    """One operator that the compiler placed otherwise: (on the Edge TPU, on the processor) of each."""

    op: str
    predicted: tuple[int, int]
    compiled: tuple[int, int]


def preflight(source: Source, modules: Mapping[str, str] | None = None) -> Preflight:
    """Say for each operator of a .tflite file whether edgetpu_compiler will map it, and why not.

    Args:
        source: path or bytes.
        modules: module path for each tensor name, as in `audit`.
    Raises: ArtifactError for a file that is not .tflite, damaged, or compiled already.
    """
    file = open_source(source)
    if file.kind != "tflite":
        raise ArtifactError(f"{file.where}: {file.kind}: the Edge TPU takes .tflite files")
    graph = read_model(file.data, file.where).main
    if any(op.name == COMPILED for op in graph.operators):
        raise ArtifactError(f"{file.where}: edgetpu_compiler wrote it: the .tflite file that it was given")
    own = {op.index: violations(graph, op) for op in graph.operators}
    cut = _cut(graph, {op.index for op in graph.operators if own[op.index] and not _enters(graph, op)})
    rows: list[Placement] = []
    for op in graph.operators:
        reasons, after = own[op.index], None
        if not reasons and op.index in cut:
            after = str(rows[cut[op.index]])
            reasons = (f"after {after}",)
        open_points = () if reasons else cautions(graph, op)
        module = module_of(graph, op, modules)
        rows.append(Placement(op.index, op.name, module, not reasons, reasons, after, open_points))
    held = {i for op in graph.operators if rows[op.index].mapped for i in op.inputs if i >= 0}
    return Preflight(tuple(rows), sum(graph.tensors[i].size_bytes for i in held))


def differences(found: Preflight, compiled: Mapping[str, tuple[int, int]]) -> tuple[Difference, ...]:
    """Where the compiler's table says otherwise.

    Args:
        compiled: operator -> how many the compiler mapped and how many it did not.
    """
    predicted, none = found.counts(), (0, 0)
    pairs = [(op, predicted.get(op, none), compiled.get(op, none)) for op in sorted({*predicted, *compiled})]
    return tuple(Difference(*pair) for pair in pairs if pair[1] != pair[2])


def _enters(graph: Subgraph, op: Operator) -> bool:
    """Whether it only makes the model's float input 8-bit."""
    return op.name == "QUANTIZE" and set(op.inputs) <= set(graph.inputs)


def _cut(graph: Subgraph, blocking: set[int]) -> dict[int, int]:
    """Operators that depend on a blocking one -> the first of those before them."""
    tainted: dict[int, int] = {}  # tensor -> the blocking operator it depends on
    cut = {}
    for op in graph.operators:
        roots = [tainted[i] for i in op.inputs if i in tainted]
        if roots:
            cut[op.index] = min(roots)
        root = min([*roots, *({op.index} & blocking)], default=None)
        if root is not None:
            tainted.update(dict.fromkeys(op.outputs, root))
    return cut
