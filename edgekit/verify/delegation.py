"""What the runtime really delegates, asked of the runtime: file -> Delegation.

LiteRT lists one DELEGATE node per XNNPACK partition. With delegate node fusion switched off, every operator
that XNNPACK takes gets a DELEGATE node of its own that writes the operator's outputs: whatever is left runs
on LiteRT's own kernels, and each of those can split a partition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgekit.lower.tflite.reader import read_bytes, read_model
from edgekit.verify.audit import module_of
from edgekit.verify.runtime import Source, open_interpreter, runtime_version


@dataclass(frozen=True)
class Undelegated:
    """One operator outside every partition."""

    index: int
    op: str
    module: str

    def __str__(self) -> str:
        return f"{self.op} at {self.module}"


@dataclass(frozen=True)
class Delegation:
    """`partitions` is 0 where no delegate was applied at all."""

    partitions: int
    undelegated_ops: tuple[Undelegated, ...]
    operators: int
    runtime: str

    @property
    def complete(self) -> bool:
        return self.partitions == 1 and not self.undelegated_ops

    def as_dict(self) -> dict[str, Any]:
        content = asdict(self)
        content["undelegated_ops"] = [str(op) for op in self.undelegated_ops]
        return content


def delegation(source: Source, modules: Mapping[str, str] | None = None) -> Delegation:
    """Count partitions and name every operator that is not delegated.

    Args:
        modules: module path for each tensor name, as in `audit`.
    Raises: ArtifactError for a file this runtime cannot open.
    """
    data, _ = read_bytes(source)
    graph = read_model(source).main
    partitions = sum(node["op_name"] == "DELEGATE" for node in _nodes(data))
    single = _nodes(data, experimental_disable_delegate_node_fusion=True)
    delegated = {int(i) for node in single if node["op_name"] == "DELEGATE" for i in node["outputs"]}
    left = tuple(
        Undelegated(op.index, op.name, module_of(graph, op, modules))
        for op in graph.operators
        if not all(i in delegated for i in op.outputs)
    )
    return Delegation(partitions, left, len(graph.operators), runtime_version())


def _nodes(data: bytes, **options: bool) -> list[dict[str, Any]]:
    return open_interpreter(data, **options)._get_ops_details()
