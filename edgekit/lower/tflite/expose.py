"""A .tflite file with other outputs, or cut short: bytes -> bytes. The operators that stay are untouched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from edgekit.errors import ArtifactError


def with_outputs(data: bytes, names: Sequence[str]) -> bytes:
    """Add the named tensors to the outputs, in the order given; signatures are dropped.

    Args:
        data: a file that `reader.read_model` accepts.
    Raises: ArtifactError when no operator writes a tensor of that name.
    """
    model = _model(data)
    graph = model.subgraphs[0]
    written = {int(i) for op in graph.operators for i in op.outputs}
    places = {graph.tensors[i].name.decode(): i for i in sorted(written)}
    for name in names:
        if name not in places:
            raise ArtifactError(f"the .tflite bytes: no operator writes {name!r}: a tensor of the file")
    graph.outputs = list(dict.fromkeys([*map(int, graph.outputs), *(places[name] for name in names)]))
    return _packed(model)


def prefix(data: bytes, operators: int) -> bytes:
    """The file cut after its first operators: what those write and others would read becomes the outputs.

    Args:
        data: a file that `reader.read_model` accepts, with more operators than are kept.
    """
    model = _model(data)
    graph = model.subgraphs[0]
    kept, rest = graph.operators[:operators], graph.operators[operators:]
    wanted = {int(i) for op in rest for i in op.inputs} | {int(i) for i in graph.outputs}
    graph.operators = kept
    graph.outputs = [i for op in kept for i in map(int, op.outputs) if i in wanted]
    read = {int(i) for op in kept for i in (*op.inputs, *op.outputs)}
    for i, tensor in enumerate(graph.tensors):
        if i not in read and model.buffers[tensor.buffer].data is not None:
            tensor.buffer = 0  # weights of what was cut off
    return _packed(model)


def _model(data: bytes) -> Any:
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(data), 0))


def _packed(model: Any) -> bytes:
    model.signatureDefs = None
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
