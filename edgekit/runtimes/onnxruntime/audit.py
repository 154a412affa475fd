"""A .onnx file as ONNX Runtime executes it: the graph it saves after its own optimisations -> Audit.

Shapes and types come from running that graph once. QLinear... and ...Integer operators are 8-bit kernels; a
QuantizeLinear or DequantizeLinear between two float operators is float cost; ReorderInput and ReorderOutput
change the layout to the blocked one of float kernels and back, Transpose to the one of 8-bit kernels.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.lower.onnx.reader import OnnxModel, OnnxNode, OnnxTensor, read_model, with_outputs
from edgekit.runtimes.audit import Audit, Delegation, IoRecord, OpRecord, Undelegated, totals
from edgekit.runtimes.onnxruntime.run import grid_of, open_session, version
from edgekit.runtimes.sources import ModelFile

_EIGHT_BIT = {"int8", "uint8"}
_FLOAT = {"float32", "float16", "bfloat16", "float64"}
_CONVERSIONS = {"QuantizeLinear", "DequantizeLinear"}
_LAYOUT = {"Transpose", "ReorderInput", "ReorderOutput"}
_QUANTIZED = {"QGemm", "QAttention", "ConvInteger", "MatMulInteger"}
_DYNAMIC = {"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"}
_WEIGHTED = {"Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}
# what ONNX Runtime has an 8-bit kernel for when both sides are quantized
_WITH_KERNEL = {"Add", "Mul", "GlobalAveragePool", "AveragePool", "Concat", "LeakyRelu", "Sigmoid"} | {
    "MaxPool",
    "Softmax",
    "Where",
}
_SUFFIX = re.compile(r"(_token_\d+|_nchwc|_nhwc|_quant)$")


@dataclass(frozen=True)
class Executed:
    """The graph that runs and its bytes, the graph of the file, types and shapes of the former's arrays."""

    data: bytes
    graph: OnnxModel
    file: OnnxModel
    arrays: dict[str, tuple[str, tuple[int, ...]]]
    kinds: tuple[str, ...]


def executed(file: ModelFile) -> Executed:
    """Ask ONNX Runtime what it runs. Raises: ArtifactError for a file it refuses."""
    model = read_model(file.data, where=file.where)
    with tempfile.TemporaryDirectory(prefix="edgekit-audit-") as folder:
        saved = Path(folder, "executed.onnx")
        open_session(file.data, file.where, optimized_model_filepath=str(saved))
        data = saved.read_bytes()
    graph = read_model(data, where=file.where, check=False)
    arrays = _arrays(data, graph, file.where)
    return Executed(data, graph, model, arrays, tuple(_kind(node, graph, arrays) for node in graph.nodes))


def audit(file: ModelFile, modules: Mapping[str, str]) -> Audit:
    found = executed(file)
    graph = found.graph
    spent: set[str] = set()
    counted = _Macs(found)
    rows = tuple(
        OpRecord(
            i,
            node.op,
            found.kinds[i],
            module_of(found, node, modules),
            counted.of(node),
            _constant_bytes(found, node, spent),
            product="MatMul" in node.op and not any(_constant(found, name) for name in node.inputs[:2]),
        )
        for i, node in enumerate(graph.nodes)
    )
    return Audit(
        size_bytes=file.size_bytes,
        transposes=tuple(row.module for row in rows if row.op in _LAYOUT),
        inputs=tuple(_io(found.file, tensor) for tensor in found.file.inputs),
        outputs=tuple(_io(found.file, tensor) for tensor in found.file.outputs),
        per_channel_share=_per_channel_share(found.file),
        weight_bytes=_bytes_by_dtype(found.file),
        tensors=len({name for node in graph.nodes for name in (*node.inputs, *node.outputs) if name}),
        subgraphs=1,
        metadata=found.file.metadata,
        signatures=(),
        **totals(rows),
    )


def _constant(found: Executed, name: str) -> bool:
    """Whether a tensor is computed of constants alone."""
    maker = found.graph.producers().get(name)
    if maker is None:
        return name in found.graph.constants
    return all(_constant(found, given) for given in maker.inputs if given)


def placement(file: ModelFile, modules: Mapping[str, str]) -> Delegation:
    """One session; what it leaves is every operator in float where the file asks for int8."""
    found = executed(file)
    left = tuple(Undelegated(i, node.op, module_of(found, node, modules)) for i, node in in_float(found))
    return Delegation(1, left, len(found.graph.nodes), version())


def in_float(found: Executed) -> list[tuple[int, OnnxNode]]:
    """Operators that run in float though the file asked for int8.

    A convolution or matrix product asks by reading its input and its weight from DequantizeLinear; another
    operator by standing between DequantizeLinear and QuantizeLinear, where the runtime has a kernel for it.
    """
    producers, readers = found.graph.producers(), found.graph.readers()

    def dequantized(name: str) -> bool:
        return name in producers and producers[name].op == "DequantizeLinear"

    left = []
    for i, node in enumerate(found.graph.nodes):
        if found.kinds[i] != "float":
            continue
        data = [name for name in node.inputs if name and name not in found.graph.constants]
        if node.op in _WEIGHTED:
            asked = len(node.inputs) > 1 and all(map(dequantized, node.inputs[:2]))
        else:
            follow = [reader for name in node.outputs for reader in readers.get(name, [])]
            asked = node.op in _WITH_KERNEL and bool(data) and all(map(dequantized, data))
            asked = asked and bool(follow) and all(reader.op == "QuantizeLinear" for reader in follow)
        if asked:
            left.append((i, node))
    return left


def module_of(found: Executed, node: OnnxNode, modules: Mapping[str, str]) -> str:
    """By the names of what it writes, by its own, or by whoever read its weights in the file."""
    names = [stem for name in (*node.outputs, node.name) for stem in _stems(name)]
    known = next((modules[name] for name in names if name in modules), None)
    if known is not None:
        return known
    readers = found.file.readers()
    for constant in node.inputs:
        for reader in readers.get(constant, []) if constant in found.file.constants else []:
            behind = [r for name in reader.outputs for r in readers.get(name, [])]
            for user in (reader, *behind):
                if user.op in _CONVERSIONS:
                    continue
                for name in (*user.outputs, user.name):
                    if name in modules:
                        return modules[name]
    written = found.file.producers()
    inner = next((name for name in names if name in written), names[0] if names else node.op)
    return _read_by(found, node, modules) or inner


def _read_by(found: Executed, node: OnnxNode, modules: Mapping[str, str]) -> str | None:
    """Operators that the runtime unfolds have no names: the module whose value the next known node reads."""
    written, by_name = found.file.producers(), {n.name: n for n in found.file.nodes if n.name}
    readers, front = found.graph.readers(), [node]
    for _ in range(4):
        front = [reader for step in front for name in step.outputs for reader in readers.get(name, [])]
        for reader in front:
            origin = by_name.get(reader.name)
            writer = written.get(origin.inputs[0]) if origin is not None else None
            for name in (*writer.outputs, writer.name) if writer is not None else ():
                if name in modules:
                    return modules[name]
    return None


def _stems(name: str) -> list[str]:
    """A name, and the name without what the optimiser appended to it."""
    stems = [name] if name else []
    while stems and _SUFFIX.search(stems[-1]):
        stems.append(_SUFFIX.sub("", stems[-1]))
    return stems


def _arrays(data: bytes, graph: OnnxModel, where: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of every tensor, by running the executed graph as it is on zeros."""
    import onnxruntime

    names = [name for node in graph.nodes for name in node.outputs if name]
    as_it_is = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = open_session(with_outputs(data, names), where, graph_optimization_level=as_it_is)
    given = {t.name: np.zeros([max(1, size) for size in t.shape], t.dtype) for t in graph.inputs}
    results = session.run(names, given)
    table = {name: (str(array.dtype), array.shape) for name, array in zip(names, results, strict=True)}
    table |= {name: (str(array.dtype), array.shape) for name, array in given.items()}
    return table | {name: (tensor.dtype, tensor.shape) for name, tensor in graph.constants.items()}


def _kind(node: OnnxNode, graph: OnnxModel, arrays: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    data = [name for name in node.inputs if name and name not in graph.constants]
    if node.op in _CONVERSIONS:
        ends = {t.name for t in (*graph.inputs, *graph.outputs)}
        return "convert" if not data or ends & {*data, *node.outputs} else "float"
    if not data:  # of constants alone
        return "other"
    if node.op.startswith("QLinear") or node.op in _QUANTIZED:
        return "int8"
    if node.op in _DYNAMIC:
        return "dynamic"
    types = {arrays[name][0] for name in (*data, *node.outputs) if name in arrays}
    if types & _FLOAT:
        return "float"
    return "int8" if types & _EIGHT_BIT else "other"


class _Macs:
    """Multiply-adds of executed nodes; blocked convolutions pad their weights, so the file's are counted."""

    def __init__(self, found: Executed) -> None:
        self.arrays = found.arrays
        self.file = found.file
        self.producers = found.file.producers()
        self.claimed: set[str] = set()

    def of(self, node: OnnxNode) -> int:
        if not node.outputs or not node.inputs:
            return 0
        out, first = self._shape(node.outputs[0]), self._shape(node.inputs[0])
        if node.op in ("Conv", "FusedConv", "QLinearConv", "ConvInteger", "QLinearConvTranspose"):
            weight = self._shape(node.inputs[3 if node.op.startswith("QLinear") else 1])
            if "nchwc" in node.domain:
                weight = self._unpadded(node) or weight
                return int(np.prod(out[2:]) * np.prod(weight))
            return int(np.prod(out) * np.prod(weight[1:]))
        if node.op == "ConvTranspose":
            return int(np.prod(first) * np.prod(self._shape(node.inputs[1])[1:]))
        if node.op in _WEIGHTED or "MatMul" in node.op or node.op == "QGemm":
            inner = first[-2] if node.attrs.get("transA") else first[-1] if first else 0
            return int(np.prod(out) * inner)
        return 0

    def _shape(self, name: str) -> tuple[int, ...]:
        return self.arrays.get(name, ("", ()))[1]

    def _unpadded(self, node: OnnxNode) -> tuple[int, ...] | None:
        """The weight's shape in the file: of the nearest convolution at or before the node's namesake."""
        names = [stem for name in (node.name, *node.outputs) for stem in _stems(name)]
        front = [self.producers[name] for name in names if name in self.producers][:1]
        seen: set[str] = set()
        while front:
            origin = front.pop(0)
            if origin.outputs[0] in seen:
                continue
            seen.add(origin.outputs[0])
            if origin.op == "Conv":
                if origin.outputs[0] in self.claimed or origin.inputs[1] not in self.file.constants:
                    continue
                self.claimed.add(origin.outputs[0])
                return self.file.constants[origin.inputs[1]].shape
            front += [self.producers[name] for name in origin.inputs if name in self.producers]
        return None


def _constant_bytes(found: Executed, node: OnnxNode, spent: set[str]) -> int:
    """Bytes of the constants this operator is the first to read, as the runtime holds them."""
    fresh = [name for name in dict.fromkeys(node.inputs) if name and name not in spent]
    spent.update(fresh)
    return sum(found.graph.constants[name].size_bytes for name in fresh if name in found.graph.constants)


def _bytes_by_dtype(model: OnnxModel) -> dict[str, int]:
    table: Counter[str] = Counter()
    for tensor in model.constants.values():
        table[tensor.dtype] += tensor.size_bytes
    return dict(table.most_common())


def _per_channel_share(model: OnnxModel) -> float:
    """Of the 8-bit weight tensors, the share with one scale per channel."""
    shares = [
        model.constants[node.inputs[1]].data
        for node in model.nodes
        if node.op == "DequantizeLinear" and node.inputs[1] in model.constants
        if node.inputs[0] in model.constants and len(model.constants[node.inputs[0]].shape) > 1
    ]
    return sum(scale is not None and scale.size > 1 for scale in shares) / len(shares) if shares else 0.0


def _io(model: OnnxModel, tensor: OnnxTensor) -> IoRecord:
    grid: Any = grid_of(model, tensor.name) if tensor.dtype in _EIGHT_BIT else None
    return IoRecord(
        tensor.name,
        tensor.dtype,
        tensor.shape,
        grid.scale if grid else None,
        grid.zero_point if grid else None,
    )
