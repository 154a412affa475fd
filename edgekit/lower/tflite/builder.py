"""The flatbuffer writer: tensors and operators in, the bytes of a .tflite file out.

The same operators give the same bytes. Constants of equal content share one buffer, only tensors an operator
or the signature touches are written, and buffers start at multiples of 16 bytes, as the runtime's schema asks
and as its float kernels read them in place.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.graph.ir import QuantParams
from edgekit.lower.tflite.versions import version

ALIGNMENT = 16
TENSOR_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "float16": schema.TensorType.FLOAT16,
    "int8": schema.TensorType.INT8,
    "uint8": schema.TensorType.UINT8,
    "int16": schema.TensorType.INT16,
    "int32": schema.TensorType.INT32,
    "int64": schema.TensorType.INT64,
    "bool": schema.TensorType.BOOL,
}


@dataclass(eq=False)
class Tensor:
    """A tensor of the file, in the file's layout; a constant when `data` is set."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: np.ndarray | None = None
    quant: QuantParams | None = None


@dataclass(eq=False)
class Operator:
    """One builtin. `source` is the module it came from and `graph_op` the op that asked for it."""

    name: str
    inputs: list[Tensor | None]
    outputs: list[Tensor]
    options: Any = None
    source: str = ""
    graph_op: str = ""
    node_index: int = -1


@dataclass
class Signature:
    """Named inputs and outputs, in order: (name, tensor)."""

    inputs: list[tuple[str, Tensor]]
    outputs: list[tuple[str, Tensor]]
    key: str = "serving_default"


@dataclass
class _Aligned:
    """A schema Buffer whose bytes start at a multiple of 16."""

    data: np.ndarray | None = field(default=None)

    def Pack(self, builder: flatbuffers.Builder) -> int:
        offset = None
        if self.data is not None:
            payload, size = self.data.reshape(-1).view(np.uint8).data, self.data.nbytes
            builder.StartVector(1, size, ALIGNMENT)
            builder.head -= size
            builder.Bytes[builder.head : builder.head + size] = payload
            builder.vectorNumElems = size
            offset = builder.EndVector()
        schema.BufferStart(builder)
        if offset is not None:
            schema.BufferAddData(builder, offset)
        return schema.BufferEnd(builder)


def pack(
    operators: list[Operator],
    signature: Signature,
    *,
    name: str,
    description: str,
    metadata: dict[str, bytes] | None = None,
) -> bytes:
    """Serialise one subgraph."""
    tensors = _touched(operators, signature)
    index = {tensor: i for i, tensor in enumerate(tensors)}
    buffers: list[_Aligned] = [_Aligned()]  # the schema keeps buffer 0 empty
    known: dict[bytes, int] = {}
    codes: dict[tuple[str, int], int] = {}

    def buffer_of(tensor: Tensor) -> int:
        if tensor.data is None:
            return 0
        data = np.ascontiguousarray(tensor.data)
        key = hashlib.sha256(data.reshape(-1).view(np.uint8).data).digest()
        if key not in known:
            known[key] = len(buffers)
            buffers.append(_Aligned(data))
        return known[key]

    packed_tensors = [_tensor(tensor, buffer_of(tensor)) for tensor in tensors]
    packed_operators = []
    for operator in operators:
        code = (operator.name, version(operator.name, operator.inputs, operator.outputs, operator.options))
        options = operator.options
        packed_operators.append(
            schema.OperatorT(
                opcodeIndex=codes.setdefault(code, len(codes)),
                inputs=np.array([-1 if t is None else index[t] for t in operator.inputs], np.int32),
                outputs=np.array([index[t] for t in operator.outputs], np.int32),
                builtinOptionsType=_options_type(options),
                builtinOptions=options,
            )
        )
    metadata_entries = []
    for key, content in (metadata or {}).items():
        metadata_entries.append(schema.MetadataT(name=key, buffer=len(buffers)))
        buffers.append(_Aligned(np.frombuffer(content, np.uint8)))

    model = schema.ModelT(
        version=3,
        operatorCodes=[
            schema.OperatorCodeT(
                deprecatedBuiltinCode=min(getattr(schema.BuiltinOperator, op), 127),
                builtinCode=getattr(schema.BuiltinOperator, op),
                version=number,
            )
            for op, number in codes
        ],
        subgraphs=[
            schema.SubGraphT(
                tensors=packed_tensors,
                inputs=np.array([index[t] for _, t in signature.inputs], np.int32),
                outputs=np.array([index[t] for _, t in signature.outputs], np.int32),
                operators=packed_operators,
                name=name,
            )
        ],
        description=description,
        buffers=buffers,
        metadata=metadata_entries,
        signatureDefs=[
            schema.SignatureDefT(
                inputs=[schema.TensorMapT(key, index[t]) for key, t in signature.inputs],
                outputs=[schema.TensorMapT(key, index[t]) for key, t in signature.outputs],
                signatureKey=signature.key,
                subgraphIndex=0,
            )
        ],
    )
    constant_bytes = sum(b.data.nbytes for b in buffers if b.data is not None)
    builder = flatbuffers.Builder(constant_bytes + 32 * len(buffers) + 512 * len(tensors) + (1 << 16))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(memoryview(builder.Bytes)[builder.head :])


def _touched(operators: list[Operator], signature: Signature) -> list[Tensor]:
    seen: dict[Tensor, None] = dict.fromkeys(tensor for _, tensor in signature.inputs)
    for operator in operators:
        seen.update(dict.fromkeys(t for t in operator.inputs if t is not None))
        seen.update(dict.fromkeys(operator.outputs))
    seen.update(dict.fromkeys(tensor for _, tensor in signature.outputs))
    return list(seen)


def _tensor(tensor: Tensor, buffer: int) -> Any:
    quantization = None
    if tensor.quant is not None:
        quantization = schema.QuantizationParametersT(
            scale=np.asarray(tensor.quant.scale, np.float32),
            zeroPoint=np.asarray(tensor.quant.zero_point, np.int64),
            quantizedDimension=tensor.quant.axis or 0,
        )
    return schema.TensorT(
        shape=np.array(tensor.shape, np.int32),
        type=TENSOR_TYPES[tensor.dtype],
        buffer=buffer,
        name=tensor.name,
        quantization=quantization,
        hasRank=True,
    )


def _options_type(options: Any) -> int:
    return 0 if options is None else getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
