"""A .tflite file read back: every figure comes from the parsed flatbuffer. See `edgekit.runtimes.audit`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from edgekit.lower.tflite.reader import Model, Operator, Subgraph, Tensor, read_model
from edgekit.runtimes.audit import Audit, Delegation, IoRecord, OpRecord, Undelegated, totals
from edgekit.runtimes.litert.run import open_interpreter, version
from edgekit.runtimes.sources import ModelFile

_EIGHT_BIT = {"int8", "uint8"}
_FLOAT = {"float32", "float16", "bfloat16", "float64"}
_CONVERSIONS = {"QUANTIZE", "DEQUANTIZE"}
# scalar functions, and binary ops with one scalar constant or with themselves: what a table can absorb
_UNARY_NAMES = (
    "ABS CEIL COS ELU EXP FLOOR GELU HARD_SWISH LEAKY_RELU LOG LOGISTIC NEG RELU RELU6 RELU_0_TO_1 "
    "RELU_N1_TO_1 ROUND RSQRT SIGN SIN SQRT SQUARE TANH"
)
_UNARY = frozenset(_UNARY_NAMES.split())
_SCALAR_BINARY = frozenset(("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "POW", "SQUARED_DIFFERENCE"))
_TABLE_NODES = 10  # XNNPACK folds chains of at most this many nodes
_WITH_WEIGHTS = frozenset(("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "CONV_3D"))


def audit(file: ModelFile, modules: Mapping[str, str]) -> Audit:
    """Audit of a .tflite file. Raises: ArtifactError for a damaged or foreign one."""
    model = read_model(file.data, file.where)
    graph = model.main
    kinds = classify(graph)
    spent: set[int] = set()
    rows = tuple(
        OpRecord(
            op.index,
            op.name,
            kinds[op.index],
            module_of(graph, op, modules),
            _macs(graph, op),
            _constant_bytes(graph, op, spent),
            product=op.name == "BATCH_MATMUL" and not any(graph.tensors[i].is_constant for i in op.inputs),
        )
        for op in graph.operators
    )
    return Audit(
        size_bytes=model.size_bytes,
        transposes=tuple(row.module for row in rows if row.op == "TRANSPOSE"),
        inputs=tuple(_io(graph.tensors[i]) for i in graph.inputs),
        outputs=tuple(_io(graph.tensors[i]) for i in graph.outputs),
        per_channel_share=_per_channel_share(graph),
        weight_bytes=_bytes_by_dtype(model),
        tensors=len(graph.tensors),
        subgraphs=len(model.subgraphs),
        metadata=tuple(model.metadata),
        signatures=model.signatures,
        **totals(rows),
    )


def placement(file: ModelFile, modules: Mapping[str, str]) -> Delegation:
    """The partitions XNNPACK takes over, and every operator outside them.

    LiteRT lists one DELEGATE node per partition. With delegate node fusion switched off, every operator that
    XNNPACK takes gets a DELEGATE node of its own that writes the operator's outputs: whatever is left runs on
    LiteRT's own kernels, and each of those can split a partition.
    """
    graph = read_model(file.data, file.where).main
    single = _executed(file, experimental_disable_delegate_node_fusion=True)
    delegated = {int(i) for node in single if node["op_name"] == "DELEGATE" for i in node["outputs"]}
    left = tuple(
        Undelegated(op.index, op.name, module_of(graph, op, modules))
        for op in graph.operators
        if not all(i in delegated for i in op.outputs)
    )
    return Delegation(partitions(file), left, len(graph.operators), version())


def partitions(file: ModelFile, threads: int = 1) -> int:
    """How many parts XNNPACK takes over, read from the runtime."""
    return sum(node["op_name"] == "DELEGATE" for node in _executed(file, threads=threads))


def _executed(file: ModelFile, **options: Any) -> list[dict[str, Any]]:
    return open_interpreter(file, **options)._get_ops_details()


def module_of(graph: Subgraph, op: Operator, modules: Mapping[str, str] | None = None) -> str:
    """The module an operator came from: by its first output's tensor name."""
    if not op.outputs:
        return op.name
    name = graph.tensors[op.outputs[0]].name
    return (modules or {}).get(name) or name


def classify(graph: Subgraph) -> dict[int, str]:
    """Operator index -> class, as the module docstring defines them."""
    kinds = {op.index: _by_types(graph, op) for op in graph.operators}
    border = {*graph.inputs, *graph.outputs}
    for chain in table_chains(graph):
        only_converts = len(chain) == 2 and border & {*chain[0].inputs, *chain[-1].outputs}
        kinds.update(dict.fromkeys((op.index for op in chain), "convert" if only_converts else "table"))
    return kinds


def table_chains(graph: Subgraph) -> list[list[Operator]]:
    """DEQUANTIZE - unary... - QUANTIZE runs that one 8-bit table can replace; also with no operator between.

    XNNPACK's conditions: 8-bit in and out, at most ten nodes, every intermediate read once and not an output.
    """
    readers: dict[int, list[Operator]] = {}
    for op in graph.operators:
        for index in dict.fromkeys(op.inputs):
            readers.setdefault(index, []).append(op)
    outputs = set(graph.outputs)
    chains = []
    for op in graph.operators:
        if op.name != "DEQUANTIZE" or len(op.inputs) != 1 or len(op.outputs) != 1:
            continue
        if graph.tensors[op.inputs[0]].dtype not in _EIGHT_BIT:
            continue
        if graph.tensors[op.inputs[0]].is_constant:
            continue
        chain = [op]
        while len(chain) < _TABLE_NODES:
            value = chain[-1].outputs[0]
            users = readers.get(value, [])
            if len(users) != 1 or value in outputs:
                break
            step = users[0]
            if len(step.outputs) != 1:
                break
            if step.name == "QUANTIZE":
                if graph.tensors[step.outputs[0]].dtype in _EIGHT_BIT:
                    chains.append([*chain, step])
                break
            if not _is_unary(graph, step):
                break
            chain.append(step)
    return chains


def _is_unary(graph: Subgraph, op: Operator) -> bool:
    if op.name in _UNARY:
        return True
    if op.name not in _SCALAR_BINARY or len(op.inputs) != 2:
        return False
    constants = [graph.tensors[i] for i in op.inputs if i >= 0 and graph.tensors[i].is_constant]
    with_scalar = len(constants) == 1 and constants[0].elements == 1
    return with_scalar or op.inputs[0] == op.inputs[1]  # x * x is a function of x alone


def _by_types(graph: Subgraph, op: Operator) -> str:
    read = [graph.tensors[i] for i in op.inputs if i >= 0]
    written = [graph.tensors[i] for i in op.outputs]
    computed = {t.dtype for t in (*(t for t in read if not t.is_constant), *written)}
    if op.name in _CONVERSIONS:
        if read and read[0].is_constant:
            return "convert"
        if computed <= _EIGHT_BIT:
            return "int8"
        if not computed & _FLOAT:
            return "int16"
        border = set(graph.inputs) & set(op.inputs) or set(graph.outputs) & set(op.outputs)
        return "convert" if border else "float"
    if computed & _FLOAT:
        weights = {t.dtype for t in read if t.is_constant}
        return "dynamic" if op.name in _WITH_WEIGHTS and weights & {"int8", "int4", "int2"} else "float"
    if "int16" in computed:
        return "int16"
    return "int8" if computed & _EIGHT_BIT else "other"


def _macs(graph: Subgraph, op: Operator) -> int:
    operands = [graph.tensors[i] if i >= 0 else None for i in op.inputs]
    if not op.outputs or len(operands) < 2 or operands[0] is None or operands[1] is None:
        return 0
    first, weight, out = operands[0], operands[1], graph.tensors[op.outputs[0]]
    rank = len(weight.shape)
    if op.name == "CONV_2D" and rank == 4:
        return out.elements * _product(weight.shape[1:])
    if op.name == "DEPTHWISE_CONV_2D" and rank == 4:
        return out.elements * _product(weight.shape[1:3])
    if op.name == "TRANSPOSE_CONV" and rank == 4 and len(operands) > 2 and operands[2] is not None:
        return operands[2].elements * _product(weight.shape[:3])
    if op.name == "FULLY_CONNECTED" and rank == 2:
        return out.elements * weight.shape[1]
    if op.name == "BATCH_MATMUL" and len(out.shape) >= 2:
        return out.elements * (first.elements // max(1, _product(out.shape[:-1])))
    return 0


def _product(shape: tuple[int, ...]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result


def _constant_bytes(graph: Subgraph, op: Operator, spent: set[int]) -> int:
    """Bytes of the constants this operator is the first to read."""
    fresh = [i for i in dict.fromkeys(op.inputs) if i >= 0 and i not in spent]
    spent.update(fresh)
    return sum(graph.tensors[i].size_bytes for i in fresh)


def _bytes_by_dtype(model: Model) -> dict[str, int]:
    table: Counter[str] = Counter()
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tensor.is_constant:
                table[tensor.dtype] += tensor.size_bytes
    return dict(table.most_common())


def _per_channel_share(graph: Subgraph) -> float:
    """Of the int8 weight tensors, the share with one scale per channel."""
    weights = [
        graph.tensors[op.inputs[1]]
        for op in graph.operators
        if op.name in _WITH_WEIGHTS and len(op.inputs) > 1 and op.inputs[1] >= 0
    ]
    eight_bit = [w for w in weights if w.dtype in _EIGHT_BIT and w.scale.size]
    return sum(w.scale.size > 1 for w in eight_bit) / len(eight_bit) if eight_bit else 0.0


def _io(tensor: Tensor) -> IoRecord:
    quantized = tensor.scale.size == 1
    return IoRecord(
        tensor.name,
        tensor.dtype,
        tensor.shape,
        float(tensor.scale[0]) if quantized else None,
        int(tensor.zero_point[0]) if quantized else None,
    )
