"""A .tflite file with inner tensors as further outputs: bytes and names -> bytes. The operators stay."""

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
    model: Any = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(data), 0))
    graph = model.subgraphs[0]
    written = {int(i) for op in graph.operators for i in op.outputs}
    places = {graph.tensors[i].name.decode(): i for i in sorted(written)}
    for name in names:
        if name not in places:
            raise ArtifactError(f"the .tflite bytes: no operator writes {name!r}: a tensor of the file")
    graph.outputs = list(dict.fromkeys([*map(int, graph.outputs), *(places[name] for name in names)]))
    model.signatureDefs = None
    builder = flatbuffers.Builder(len(data) + 1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
