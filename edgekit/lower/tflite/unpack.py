"""The way back from a .tflite file to what `builder.pack` took: bytes -> operators and signature.

So that parts of a file can be written again as files of their own, whoever wrote the whole.
"""

from __future__ import annotations

from typing import Any

from ai_edge_litert import schema_py_generated as schema

from edgekit.errors import ArtifactError
from edgekit.graph.ir import QuantParams
from edgekit.lower.tflite import reader
from edgekit.lower.tflite.builder import TENSOR_TYPES, Operator, Signature, Tensor


def unpack(data: bytes, where: str | None = None) -> tuple[list[Operator], Signature]:
    """Operators of the subgraph the runtime enters, in order, and its inputs and outputs by tensor name.

    Raises: ArtifactError for a damaged file, and for operators or types that are not written here.
    """
    graph = reader.read_model(data, where).main
    options = _options(data)
    tensors = [_tensor(found) for found in graph.tensors]
    operators = [
        Operator(
            op.name,
            [None if i < 0 else tensors[i] for i in op.inputs],
            [tensors[i] for i in op.outputs],
            options[op.index],
        )
        for op in graph.operators
    ]
    touched = {i for op in graph.operators for i in (*op.inputs, *op.outputs) if i >= 0}
    odd = [op.name for op in graph.operators if not hasattr(schema.BuiltinOperator, op.name)]
    odd += [t.dtype for t in graph.tensors if t.index in touched and t.dtype not in TENSOR_TYPES]
    if odd:
        known = f"builtin operators on {', '.join(TENSOR_TYPES)}"
        raise ArtifactError(f"{where or 'the .tflite bytes'}: {odd[0]} is not taken apart: {known}")
    inputs, outputs = (
        [(tensors[i].name, tensors[i]) for i in ends] for ends in (graph.inputs, graph.outputs)
    )
    return operators, Signature(inputs, outputs)


def _options(data: bytes) -> list[Any]:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(data), 0))
    return [op.builtinOptions for op in model.subgraphs[0].operators or []]


def _tensor(found: reader.Tensor) -> Tensor:
    constant = found.is_constant and found.dtype in TENSOR_TYPES
    quant = None
    if found.scale.size and (found.scale > 0).all():
        scales = tuple(float(s) for s in found.scale)
        zeros = tuple(int(z) for z in found.zero_point)
        quant = QuantParams(scales, zeros, found.dtype, found.axis if len(scales) > 1 else None)
    return Tensor(found.name, found.shape, found.dtype, found.numpy() if constant else None, quant)
