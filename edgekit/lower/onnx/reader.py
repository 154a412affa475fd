"""Reads .onnx files for the proofs: bytes -> OnnxModel, or an ArtifactError before native code sees them.

Knows files, not graphs: it opens what any exporter wrote and what ONNX Runtime saves after its optimisations.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import ArtifactError, UsageError


@dataclass(frozen=True)
class OnnxNode:
    """One node in file order; absent operands are empty strings."""

    name: str
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OnnxTensor:
    """A graph input, output or initializer; symbolic dimensions are 0. `data` is set for initializers."""

    name: str
    dtype: str
    shape: tuple[int, ...]  # -1 where it is open
    data: np.ndarray | None = None

    @property
    def size_bytes(self) -> int:
        return 0 if self.data is None else self.data.nbytes


@dataclass(frozen=True)
class OnnxModel:
    size_bytes: int
    nodes: tuple[OnnxNode, ...]
    inputs: tuple[OnnxTensor, ...]
    outputs: tuple[OnnxTensor, ...]
    constants: dict[str, OnnxTensor]
    metadata: tuple[str, ...]

    def producers(self) -> dict[str, OnnxNode]:
        return {name: node for node in self.nodes for name in node.outputs if name}

    def readers(self) -> dict[str, list[OnnxNode]]:
        table: dict[str, list[OnnxNode]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                table.setdefault(name, []).append(node)
        return table


def read_model(
    source: str | os.PathLike[str] | bytes, *, where: str | None = None, check: bool = True
) -> OnnxModel:
    """Parse a .onnx file or its bytes.

    Args:
        where: what messages call the file.
        check: hold it against ONNX's own checker; off for files that a runtime saved with private operators.
    Raises: ArtifactError for anything that is not a whole model.
    """
    onnx = _onnx()
    data, name = _bytes(source)
    where = where or name
    proto = _parse(onnx, data, where, check)
    types = onnx.TensorProto.DataType

    def described(value: Any) -> OnnxTensor:
        tensor = value.type.tensor_type
        shape = tuple(int(d.dim_value) if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
        return OnnxTensor(value.name, _dtype(types, tensor.elem_type), shape)

    constants = {}
    try:
        for item in proto.graph.initializer:
            array = onnx.numpy_helper.to_array(item)
            constants[item.name] = OnnxTensor(
                item.name, _dtype(types, item.data_type), tuple(item.dims), array
            )
        nodes = tuple(
            OnnxNode(
                node.name,
                node.op_type,
                node.domain,
                tuple(node.input),
                tuple(node.output),
                {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute},
            )
            for node in proto.graph.node
        )
    except (ValueError, TypeError, RuntimeError) as error:
        raise ArtifactError(f"{where}: {_line(error)}: a complete ONNX model is needed") from error
    return OnnxModel(
        size_bytes=len(data),
        nodes=nodes,
        inputs=tuple(described(v) for v in proto.graph.input if v.name not in constants),
        outputs=tuple(described(v) for v in proto.graph.output),
        constants=constants,
        metadata=tuple(item.key for item in proto.metadata_props),
    )


def with_outputs(data: bytes, names: Iterable[str]) -> bytes:
    """The same model with inner tensors as further outputs, in the order given."""
    onnx = _onnx()
    proto = _parse(onnx, data, "the .onnx bytes", False)
    written = {name for node in proto.graph.node for name in node.output}
    taken = {value.name for value in proto.graph.output}
    for name in dict.fromkeys(names):
        if name not in written:
            raise ArtifactError(f"the .onnx bytes: no operator writes {name!r}: a tensor of the file")
        if name not in taken:
            proto.graph.output.append(onnx.ValueInfoProto(name=name))
    return proto.SerializeToString()


def with_numbered_nodes(data: bytes, stem: str) -> bytes:
    """The same model with node i called stem + i: a profiler names what it timed by the node's name alone."""
    proto = _parse(_onnx(), data, "the .onnx bytes", False)
    for i, node in enumerate(proto.graph.node):
        node.name = f"{stem}{i}"
    return proto.SerializeToString()


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise UsageError("ONNX files need a package: pip install onnx") from error
    return onnx


def _bytes(source: str | os.PathLike[str] | bytes) -> tuple[bytes, str]:
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source), "the .onnx bytes"
    try:
        return Path(source).read_bytes(), str(source)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ArtifactError(f"{source}: cannot be read ({reason}): a .onnx file") from error


def _parse(onnx: Any, data: bytes, where: str, check: bool) -> Any:
    from google.protobuf.message import DecodeError

    try:
        proto = onnx.load_from_string(data)
        if not proto.graph.node:
            raise ArtifactError(f"{where}: holds no operators: a complete ONNX model is needed")
        if check:
            onnx.checker.check_model(proto)
    except (DecodeError, onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"{where}: {_line(error)}: a complete ONNX model is needed") from error
    return proto


def _dtype(types: Any, code: int) -> str:
    name = types.Name(code).lower() if code in types.values() else str(code)
    return {"float": "float32", "double": "float64"}.get(name, name)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
