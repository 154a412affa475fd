"""What the runtime really takes over, asked of the runtime: file -> Delegation.

LiteRT lists one DELEGATE node per XNNPACK partition. With delegate node fusion switched off, every operator
that XNNPACK takes gets a DELEGATE node of its own that writes the operator's outputs: whatever is left runs
on LiteRT's own kernels, and each of those can split a partition.

ONNX Runtime and OpenVINO run a file in one session, so it has one partition; what is left there is every
operator that runs in float though the file asked for int8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgekit.lower.tflite.reader import read_model
from edgekit.runtimes.litert.audit import module_of
from edgekit.runtimes.litert.run import open_interpreter
from edgekit.runtimes.runtime import runtime_version
from edgekit.runtimes.sources import ModelFile, Source, open_source


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
    """Count partitions and name every operator that is not taken over as the file asks.

    Args:
        modules: module path for each tensor or operator name, as in `audit`.
    Raises: ArtifactError for a file its runtime cannot open.
    """
    file = open_source(source)
    modules = modules or {}
    if file.kind == "tflite":
        return _litert(file, modules)
    count, left = (_onnx if file.kind == "onnx" else _openvino)(file, modules)
    return Delegation(1, left, count, runtime_version(file.kind))


def _litert(file: ModelFile, modules: Mapping[str, str]) -> Delegation:
    graph = read_model(file.data, file.where).main
    partitions = sum(node["op_name"] == "DELEGATE" for node in _nodes(file))
    single = _nodes(file, experimental_disable_delegate_node_fusion=True)
    delegated = {int(i) for node in single if node["op_name"] == "DELEGATE" for i in node["outputs"]}
    left = tuple(
        Undelegated(op.index, op.name, module_of(graph, op, modules))
        for op in graph.operators
        if not all(i in delegated for i in op.outputs)
    )
    return Delegation(partitions, left, len(graph.operators), runtime_version(file.kind))


def _nodes(file: ModelFile, **options: bool) -> list[dict[str, Any]]:
    return open_interpreter(file, **options)._get_ops_details()


def _onnx(file: ModelFile, modules: Mapping[str, str]) -> tuple[int, tuple[Undelegated, ...]]:
    from edgekit.runtimes.onnxruntime import audit as audit_onnx

    found = audit_onnx.executed(file)
    left = audit_onnx.in_float(found)
    rows = [Undelegated(i, node.op, audit_onnx.module_of(found, node, modules)) for i, node in left]
    return len(found.graph.nodes), tuple(rows)


def _openvino(file: ModelFile, modules: Mapping[str, str]) -> tuple[int, tuple[Undelegated, ...]]:
    from edgekit.runtimes.openvino import audit as audit_openvino

    model, steps = audit_openvino.executed(file)
    left = audit_openvino.in_float(model, steps)
    rows = [Undelegated(i, step.op, audit_openvino.module_of(step, modules)) for i, step in left]
    return len(steps), tuple(rows)
