"""Read a .tflite file without trusting it: bytes -> Model.

Every offset, length and index is checked before it is followed, so a truncated or foreign file ends in
one ArtifactError and never in a traceback or in the runtime's native code. Only what proofs need is read:
tensors with their quantization, constants, operators with the options of _OPTIONS, signatures and metadata
names. Slot numbers are those of the TFLite schema (version 3).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.errors import ArtifactError

IDENTIFIER = b"TFL3"
_OP_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
_DTYPES: dict[int, tuple[str, Any]] = {
    schema.TensorType.FLOAT32: ("float32", np.float32),
    schema.TensorType.FLOAT16: ("float16", np.float16),
    schema.TensorType.FLOAT64: ("float64", np.float64),
    schema.TensorType.INT8: ("int8", np.int8),
    schema.TensorType.UINT8: ("uint8", np.uint8),
    schema.TensorType.INT16: ("int16", np.int16),
    schema.TensorType.UINT16: ("uint16", np.uint16),
    schema.TensorType.INT32: ("int32", np.int32),
    schema.TensorType.UINT32: ("uint32", np.uint32),
    schema.TensorType.INT64: ("int64", np.int64),
    schema.TensorType.UINT64: ("uint64", np.uint64),
    schema.TensorType.BOOL: ("bool", np.bool_),
}
_OTHER_DTYPES = {
    code: name.lower()
    for name, code in vars(schema.TensorType).items()
    if not name.startswith("_") and code not in _DTYPES
}
# options table -> option -> its slot, type and default
_OPTIONS: dict[int, dict[str, tuple[int, str, int]]] = {
    schema.BuiltinOptions.Pool2DOptions: {"fused_activation": (5, "<b", 0)},
    schema.BuiltinOptions.ConcatenationOptions: {"fused_activation": (1, "<b", 0)},
    schema.BuiltinOptions.Conv2DOptions: {"dilation_w": (4, "<i", 1), "dilation_h": (5, "<i", 1)},
    schema.BuiltinOptions.DepthwiseConv2DOptions: {"dilation_w": (5, "<i", 1), "dilation_h": (6, "<i", 1)},
    schema.BuiltinOptions.FullyConnectedOptions: {"weights_format": (1, "<b", 0)},
    schema.BuiltinOptions.PackOptions: {"axis": (1, "<i", 0)},
    schema.BuiltinOptions.StridedSliceOptions: {"ellipsis_mask": (2, "<i", 0), "new_axis_mask": (3, "<i", 0)},
}
_LARGEST_RATIO = 2.0**30
_WORK_PER_BYTE = 8  # a file that makes us visit more than this is built to hurt


class _Broken(Exception):
    """What is wrong with the bytes; becomes the middle of the ArtifactError."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor of a subgraph; a constant when `raw` is set."""

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: np.ndarray  # float32 (S,), empty when not quantized
    zero_point: np.ndarray  # int64 (S,)
    axis: int
    raw: np.ndarray | None  # uint8 view into the file
    is_static: bool = True  # no dimension is left to the one who calls

    @property
    def is_constant(self) -> bool:
        return self.raw is not None

    @property
    def size_bytes(self) -> int:
        """Bytes this constant takes in the file; 0 for a computed tensor."""
        return 0 if self.raw is None else self.raw.size

    @property
    def elements(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) if self.shape else 1

    def numpy(self) -> np.ndarray:
        """The constant as an array in the file's layout and type."""
        if self.raw is None:
            raise ArtifactError(f"tensor {self.name!r}: computed, not stored: only constants have data")
        kinds = dict(_DTYPES.values())
        if self.dtype not in kinds:
            raise ArtifactError(
                f"tensor {self.name!r}: {self.dtype} data cannot be unpacked: {', '.join(kinds)}"
            )
        return np.frombuffer(self.raw.tobytes(), kinds[self.dtype]).reshape(self.shape)


@dataclass(frozen=True)
class Operator:
    """One operator in execution order. `inputs` holds tensor indices, -1 for an absent one."""

    index: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, int] = field(default_factory=dict, hash=False)
    version: int = 1


@dataclass(frozen=True)
class Subgraph:
    name: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Model:
    """The parsed file; `main` is the subgraph the runtime enters."""

    subgraphs: tuple[Subgraph, ...]
    metadata: dict[str, bytes]
    signatures: tuple[str, ...]
    description: str
    size_bytes: int

    @property
    def main(self) -> Subgraph:
        return self.subgraphs[0]


def read_bytes(source: str | os.PathLike[str] | bytes) -> tuple[bytes, str]:
    """The file's bytes and the name messages use. Raises ArtifactError when it cannot be opened."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source), "the .tflite bytes"
    try:
        return Path(source).read_bytes(), str(source)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ArtifactError(f"{source}: cannot be read ({reason}): a .tflite file") from error


def read_model(source: str | os.PathLike[str] | bytes, where: str | None = None) -> Model:
    """Parse a .tflite file or its bytes, called `where` in messages.

    Raises: ArtifactError for anything that is not one, whole.
    """
    data, name = read_bytes(source)
    where = where or name
    try:
        return _model(_Bytes(data))
    except _Broken as error:
        raise ArtifactError(f"{where}: {error}: a complete TFLite flatbuffer is needed") from None


class _Bytes:
    """Bounds-checked reads with a budget on how much may be visited."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.budget = 4096 + _WORK_PER_BYTE * len(data)

    def number(self, fmt: str, pos: int) -> int:
        size = struct.calcsize(fmt)
        if pos < 0 or pos + size > len(self.data):
            raise _Broken(f"truncated or damaged (byte {pos} of {len(self.data)} is referred to)")
        return struct.unpack_from(fmt, self.data, pos)[0]

    def follow(self, pos: int) -> int:
        return pos + self.number("<I", pos)

    def span(self, start: int, size: int, work: int) -> None:
        self.budget -= work
        if self.budget < 0:
            raise _Broken("damaged (its parts refer to each other too often)")
        if start < 0 or size < 0 or start + size > len(self.data):
            raise _Broken(f"truncated (it refers to byte {start + size}, it has {len(self.data)})")


class _Table:
    def __init__(self, source: _Bytes, pos: int) -> None:
        self.source = source
        self.pos = pos
        source.span(pos, 4, 1)
        self.vtable = pos - source.number("<i", pos)
        self.slots = source.number("<H", self.vtable)
        source.span(self.vtable, self.slots, 1)

    def _field(self, slot: int) -> int | None:
        at = 4 + 2 * slot
        offset = self.source.number("<H", self.vtable + at) if at + 2 <= self.slots else 0
        return self.pos + offset if offset else None

    def number(self, slot: int, fmt: str, default: int = 0) -> int:
        pos = self._field(slot)
        return default if pos is None else self.source.number(fmt, pos)

    def _vector(self, slot: int, item: int, work_per_item: int) -> tuple[int, int]:
        pos = self._field(slot)
        if pos is None:
            return 0, 0
        start = self.source.follow(pos)
        count = self.source.number("<I", start)
        self.source.span(start + 4, count * item, 1 + count * work_per_item)
        return start + 4, count

    def has(self, slot: int) -> bool:
        return self._field(slot) is not None

    def array(self, slot: int, dtype: Any) -> np.ndarray:
        # raw bytes are viewed, not visited: a shared weight buffer costs nothing
        work = 0 if dtype is np.uint8 else 1
        start, count = self._vector(slot, np.dtype(dtype).itemsize, work)
        return np.frombuffer(self.source.data, dtype, count, start)

    def integers(self, slot: int) -> tuple[int, ...]:
        return tuple(int(i) for i in self.array(slot, np.int32))

    def text(self, slot: int) -> str:
        return self.array(slot, np.uint8).tobytes().decode("utf-8", "replace")

    def tables(self, slot: int) -> Iterator[_Table]:
        start, count = self._vector(slot, 4, 1)
        for i in range(count):
            yield _Table(self.source, self.source.follow(start + 4 * i))

    def table(self, slot: int) -> _Table | None:
        pos = self._field(slot)
        return None if pos is None else _Table(self.source, self.source.follow(pos))


def _model(source: _Bytes) -> Model:
    if len(source.data) < 8:
        raise _Broken(f"not a model ({len(source.data)} bytes)")
    if source.data[4:8] != IDENTIFIER:
        found = source.data[4:8].decode("ascii", "backslashreplace")
        raise _Broken(f"not a TFLite file (its identifier is {found!r}, not 'TFL3')")
    root = _Table(source, source.follow(0))
    version = root.number(0, "<I")
    if version != 3:
        raise _Broken(f"schema version {version}, not 3")
    codes = [(_op_name(code), code.number(2, "<i", 1)) for code in root.tables(1)]
    buffers = [_buffer(table) for table in root.tables(4)]
    subgraphs = tuple(_subgraph(table, codes, buffers) for table in root.tables(2))
    if not subgraphs:
        raise _Broken("it holds no subgraph")
    metadata = {}
    for entry in root.tables(6):
        index = entry.number(1, "<I")
        if index >= len(buffers):
            raise _Broken(f"metadata refers to buffer {index} of {len(buffers)}")
        metadata[entry.text(0)] = buffers[index].tobytes()
    signatures = tuple(entry.text(2) for entry in root.tables(7))
    return Model(subgraphs, metadata, signatures, root.text(3), len(source.data))


def _op_name(code: _Table) -> str:
    number = max(code.number(0, "<b"), code.number(3, "<i"))
    if number == schema.BuiltinOperator.CUSTOM:
        return f"CUSTOM:{code.text(1)}"
    if number not in _OP_NAMES:
        raise _Broken(f"operator code {number} is not in the schema")
    return _OP_NAMES[number]


def _buffer(table: _Table) -> np.ndarray:
    offset, size = table.number(1, "<Q"), table.number(2, "<Q")
    if offset <= 1:
        return table.array(0, np.uint8)
    table.source.span(offset, size, 1)  # weights behind the flatbuffer, as in files over 2 GB
    return np.frombuffer(table.source.data, np.uint8, size, offset)


def _subgraph(table: _Table, codes: list[tuple[str, int]], buffers: list[np.ndarray]) -> Subgraph:
    tensors = tuple(_tensor(i, entry, buffers) for i, entry in enumerate(table.tables(0)))

    def checked(indices: tuple[int, ...], lowest: int) -> tuple[int, ...]:
        for index in indices:
            if not lowest <= index < len(tensors):
                raise _Broken(f"tensor {index} is referred to, there are {len(tensors)}")
        return indices

    operators = []
    for i, entry in enumerate(table.tables(3)):
        code = entry.number(0, "<I")
        if code >= len(codes):
            raise _Broken(f"operator {i} has code {code}, there are {len(codes)}")
        read, written = checked(entry.integers(1), -1), checked(entry.integers(2), 0)
        name, version = codes[code]
        operators.append(Operator(i, name, read, written, _options(entry), version))
    graph = Subgraph(
        table.text(4),
        tensors,
        tuple(operators),
        checked(table.integers(1), 0),
        checked(table.integers(2), 0),
    )
    variables = {i for i, entry in enumerate(table.tables(0)) if entry.number(5, "<B")}
    _check_order(graph, variables)
    for operator in graph.operators:
        _check_scales(graph, operator)
    return graph


def _options(entry: _Table) -> dict[str, int]:
    known, table = _OPTIONS.get(entry.number(3, "<B")), entry.table(4)
    if known is None or table is None:
        return {}
    return {name: table.number(slot, kind, default) for name, (slot, kind, default) in known.items()}


def _check_order(graph: Subgraph, variables: set[int]) -> None:
    """Nothing is read before it is there."""
    there = {*graph.inputs, *variables}
    there |= {t.index for t in graph.tensors if t.is_constant or 0 in t.shape}
    for operator in graph.operators:
        for index in operator.inputs:
            if index >= 0 and index not in there:
                name = graph.tensors[index].name
                raise _Broken(
                    f"operator {operator.index} ({operator.name}) reads {name!r}, which nothing wrote"
                )
        there.update(operator.outputs)


def _check_scales(graph: Subgraph, operator: Operator) -> None:
    """The runtime aborts on a ratio of scales that its fixed-point multipliers cannot hold."""
    read = [graph.tensors[i] for i in operator.inputs if i >= 0 and graph.tensors[i].dtype != "int32"]
    ratio = float(np.prod([t.scale.max() for t in read if t.scale.size], dtype=np.float64))
    for index in operator.outputs:
        out = graph.tensors[index].scale
        if read and out.size == 1 and ratio > _LARGEST_RATIO * float(out[0]):
            raise _Broken(f"operator {operator.index} ({operator.name}) has scales {ratio:g} to {out[0]:g}")


def _tensor(index: int, table: _Table, buffers: list[np.ndarray]) -> Tensor:
    name = table.text(3)
    shape = table.integers(0)
    if any(size < 0 for size in shape):
        raise _Broken(f"tensor {name!r} has shape {shape}")
    code = table.number(1, "<b")
    known = _DTYPES.get(code)
    dtype = known[0] if known else _OTHER_DTYPES.get(code)
    if dtype is None:
        raise _Broken(f"tensor {name!r} has type {code}, which is not in the schema")
    at = table.number(2, "<I")
    if at >= max(len(buffers), 1):
        raise _Broken(f"tensor {name!r} is in buffer {at}, there are {len(buffers)}")
    raw = buffers[at] if buffers and buffers[at].size else None
    quant = table.table(4)
    scale = np.zeros(0, np.float32) if quant is None else quant.array(2, np.float32)
    zero_point = np.zeros(0, np.int64) if quant is None else quant.array(3, np.int64)
    if zero_point.size != scale.size:
        if zero_point.size > 1:
            raise _Broken(f"tensor {name!r} has {scale.size} scales and {zero_point.size} zero points")
        zero_point = np.full(scale.size, zero_point[0] if zero_point.size else 0, np.int64)
    if not np.isfinite(scale).all() or (scale < 0).any():
        raise _Broken(f"tensor {name!r} has scales that are not positive numbers")
    if known is not None and zero_point.size and np.issubdtype(known[1], np.integer):
        limits = np.iinfo(known[1])
        if zero_point.min() < limits.min or zero_point.max() > limits.max:
            raise _Broken(f"tensor {name!r} has zero point {zero_point.min()}, outside {dtype}")
    axis = 0 if quant is None else quant.number(6, "<i")
    if scale.size > 1 and not (0 <= axis < len(shape) and shape[axis] == scale.size):
        raise _Broken(f"tensor {name!r} {shape} has {scale.size} scales along axis {axis}")
    sparse = table.has(6)
    if raw is not None and known is not None and not sparse:
        expected = int(np.prod(shape, dtype=object)) * np.dtype(known[1]).itemsize if shape else None
        if expected is not None and expected != raw.size:
            raise _Broken(f"tensor {name!r} needs {expected} bytes, its buffer has {raw.size}")
    is_static = all(size >= 0 for size in table.integers(7))
    return Tensor(index, name, shape, dtype, scale, zero_point, axis, raw, is_static)
