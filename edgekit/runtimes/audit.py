"""What a model file really is and what its runtime makes of it: a file -> Audit, and -> Delegation.

Nothing is taken from the build. A runtime that executes a file as it is written has it parsed; one that
rewrites what it is given is asked for the graph it executes. An operator is put in one class by the types it
reads and writes:

    int8      reads and writes 8-bit integers (32-bit biases, shapes and axes aside), or is an 8-bit kernel
    table     part of DEQUANTIZE - float unary op(s) - QUANTIZE, which XNNPACK folds into one 256-entry table
    int16     16-bit activations
    dynamic   float activations against int8 weights
    float     float arithmetic
    convert   QUANTIZE or DEQUANTIZE at the model's border, or DEQUANTIZE of a constant: not computation
    other     integer and boolean bookkeeping (shapes, indices)

int8_ops_share = (int8 + table) / (all but convert and other). A QUANTIZE or DEQUANTIZE around a float island
inside the model counts as float: it is what the island costs. MACs are counted for convolutions, fully
connected layers and matrix products; one multiply-add = one MAC, biases are not counted. `transposes` are the
operators that only change a tensor's layout: TRANSPOSE, and the reorders a runtime puts in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgekit.runtimes.registry import opening
from edgekit.runtimes.sources import ModelFile, Source, open_source

_AS_INT8 = ("int8", "table")


@dataclass(frozen=True)
class OpRecord:
    """One operator of the file, in execution order. product: of two activations, without weights."""

    index: int
    op: str
    kind: str
    module: str
    macs: int
    weight_bytes: int
    product: bool = False


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


@dataclass(frozen=True)
class IoRecord:
    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float | None
    zero_point: int | None


@dataclass(frozen=True)
class Audit:
    """The facts of one file. Shares are 0..1; `ops` has one row an operator."""

    size_bytes: int
    int8_ops_share: float
    int8_macs_share: float
    table_ops: int
    macs: int
    float_ops: tuple[str, ...]
    dynamic_ops: tuple[str, ...]
    transposes: tuple[str, ...]
    kinds: dict[str, int]
    histogram: dict[str, int]
    inputs: tuple[IoRecord, ...]
    outputs: tuple[IoRecord, ...]
    per_channel_share: float
    weight_bytes: dict[str, int]
    tensors: int
    subgraphs: int
    ops: tuple[OpRecord, ...]
    metadata: tuple[str, ...]
    signatures: tuple[str, ...]

    @property
    def int8_weighted_macs_share(self) -> float:
        """The share among operators with weights: products of two activations are left out."""
        return _macs_share([row for row in self.ops if not row.product])

    def bytes_by_module(self) -> dict[str, int]:
        """Constant bytes per module, largest first: where the file's size goes."""
        table: Counter[str] = Counter()
        for row in self.ops:
            if row.weight_bytes:
                table[row.module] += row.weight_bytes
        return dict(table.most_common())

    def macs_by_module(self) -> dict[str, int]:
        table: Counter[str] = Counter()
        for row in self.ops:
            if row.macs:
                table[row.module] += row.macs
        return dict(table.most_common())

    def as_dict(self) -> dict[str, Any]:
        """Plain data for report.json; input_dtype and output_dtype are those of the first of each."""
        content = asdict(self)
        content["input_dtype"] = self.inputs[0].dtype if self.inputs else None
        content["output_dtype"] = self.outputs[0].dtype if self.outputs else None
        content["bytes_by_module"] = self.bytes_by_module()
        content["macs_by_module"] = self.macs_by_module()
        return content


def audit(source: Source, modules: Mapping[str, str] | None = None) -> Audit:
    """Say what a model file is.

    Args:
        modules: module path for each tensor or operator name (`module_names`); what is not in it is called by
            its own name.
    Raises: ArtifactError for a damaged or foreign file, UsageError when its runtime is not installed.
    """
    file = open_source(source)
    return opening(file.kind).part("audit").audit(file, modules or {})


def delegation(source: Source, modules: Mapping[str, str] | None = None) -> Delegation:
    """Count partitions and name every operator that is not taken over as the file asks.

    LiteRT counts the partitions of its delegate. ONNX Runtime and OpenVINO run a file in one session, so it
    has one partition; what is left there is every operator that runs in float though the file asked for int8.

    Args:
        modules: module path for each tensor or operator name, as in `audit`.
    Raises: ArtifactError for a file its runtime cannot open.
    """
    file = open_source(source)
    return opening(file.kind).part("audit").placement(file, modules or {})


def partitions(file: ModelFile, threads: int = 1) -> int:
    """Into how many parts a delegate cuts a file, 0 where it takes none; 1 without a delegate."""
    runtime = opening(file.kind)
    return runtime.part("audit").partitions(file, threads) if runtime.delegate else 1


def _macs_share(rows: Sequence[OpRecord]) -> float:
    macs = sum(row.macs for row in rows)
    return sum(row.macs for row in rows if row.kind in _AS_INT8) / macs if macs else 0.0


def totals(rows: tuple[OpRecord, ...]) -> dict[str, Any]:
    """The fields of an Audit that follow from its operators."""
    counted = [row for row in rows if row.kind not in ("convert", "other")]
    as_int8 = [row for row in counted if row.kind in _AS_INT8]
    return {
        "int8_ops_share": len(as_int8) / len(counted) if counted else 0.0,
        "int8_macs_share": _macs_share(rows),
        "table_ops": sum(row.kind == "table" for row in rows),
        "macs": sum(row.macs for row in rows),
        "float_ops": tuple(f"{row.op} at {row.module}" for row in rows if row.kind == "float"),
        "dynamic_ops": tuple(f"{row.op} at {row.module}" for row in rows if row.kind == "dynamic"),
        "kinds": dict(Counter(row.kind for row in rows).most_common()),
        "histogram": dict(Counter(row.op for row in rows).most_common()),
        "ops": rows,
    }


def module_names(operators: Iterable[Any]) -> dict[str, str]:
    """Tensor and operator name -> module, from a lowering's operators."""
    table: dict[str, str] = {}
    for op in operators:
        module = op.source or getattr(op, "graph_op", "") or getattr(op, "op", "")
        for name in (getattr(op, "name", ""), *op.outputs):
            if name and module:
                table.setdefault(name, module)
    return table
