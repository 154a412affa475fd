"""An .xml with its .bin as OpenVINO executes it: the compiled model's runtime graph -> Audit.

Convolutions and matrix products are classed by the integers or floats they are fed with, everything else by
what it reads and writes. One executed operator may stand for several of the file: it is called by the first
that is known. Fused elementwise subgraphs are called by the operators in them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.runtimes.audit import Audit, Delegation, IoRecord, OpRecord, Undelegated, totals
from edgekit.runtimes.openvino.run import compile_network, read_network, version
from edgekit.runtimes.sources import ModelFile

_EIGHT_BIT = {"i8", "u8"}
_FLOAT = {"f32", "f16", "bf16", "f64"}
_NAMES = {"i8": "int8", "u8": "uint8", "f32": "float32", "f16": "float16", "bf16": "bfloat16", "i32": "int32"}
_NO_WORK = {"Const", "Input", "Output", "Parameter", "Result"}
_WITH_MACS = {"Convolution", "Deconvolution", "FullyConnected", "MatMul"}
_FUSED = {"Subgraph", "Math", "Eltwise"}
_WEIGHTED = {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul"}
_PASSES_ON = {"Reshape", "Transpose", "MaxPool", "Split", "VariadicSplit", "Squeeze", "Unsqueeze", "Concat"}


@dataclass(frozen=True)
class Step:
    """One operator of the runtime graph. origins: names of the file's operators it stands for."""

    op: str
    layer: str
    precision: str
    origins: tuple[str, ...]
    node: Any
    kind: str


def executed(file: ModelFile) -> tuple[Any, list[Step]]:
    """(the file's model, what runs for one image, in order).

    Raises: ArtifactError for a file OpenVINO refuses.
    """
    model = read_network(file)
    types = {node.get_friendly_name(): node.get_type_name() for node in model.get_ordered_ops()}
    single = read_network(file)
    if single.is_dynamic():
        shapes = {port: port.get_partial_shape() for port in single.inputs}
        single.reshape({port: [1, *list(shape)[1:]] for port, shape in shapes.items()})
    graph = compile_network(file, single).get_runtime_model()
    return model, list(_steps(graph, types))


def audit(file: ModelFile, modules: Mapping[str, str]) -> Audit:
    model, steps = executed(file)
    spent: set[str] = set()
    rows = tuple(
        OpRecord(
            i, s.op, s.kind, module_of(s, modules), _macs(s), _constant_bytes(s.node, spent), _product(s)
        )
        for i, s in enumerate(steps)
    )
    return Audit(
        size_bytes=file.size_bytes,
        transposes=tuple(
            row.module
            for row, step in zip(rows, steps, strict=True)
            if step.layer in ("Reorder", "Transpose")
        ),
        inputs=tuple(_io(port) for port in model.inputs),
        outputs=tuple(_io(port) for port in model.outputs),
        per_channel_share=_per_channel_share(model),
        weight_bytes=_bytes_by_dtype(model),
        tensors=sum(len(step.node.outputs()) for step in steps),
        subgraphs=1,
        metadata=tuple(sorted(map(str, model.get_rt_info()))),
        signatures=(),
        **totals(rows),
    )


def placement(file: ModelFile, modules: Mapping[str, str]) -> Delegation:
    """One compiled model; what it leaves is every operator in float where the file asks for int8."""
    model, steps = executed(file)
    left = tuple(Undelegated(i, step.op, module_of(step, modules)) for i, step in in_float(model, steps))
    return Delegation(1, left, len(steps), version())


def in_float(model: Any, steps: list[Step]) -> list[tuple[int, Step]]:
    """Operators that compute in float though their input and weights are quantized in the file."""
    asked = {
        node.get_friendly_name()
        for node in model.get_ordered_ops()
        if node.get_type_name() in _WEIGHTED and all(_is_quantized(node.input_value(i)) for i in (0, 1))
    }
    return [
        (i, step)
        for i, step in enumerate(steps)
        if step.layer in _WITH_MACS and step.kind == "float" and asked & set(step.origins)
    ]


def module_of(step: Step, modules: Mapping[str, str]) -> str:
    """By the operators it stands for; a reorder belongs to whoever it was put in for."""
    for name in step.origins:
        if name in modules:
            return modules[name]
    if step.origins:
        return step.origins[0]
    for port in step.node.output(0).get_target_inputs():
        for name in _origins(port.get_node()):
            return modules.get(name, name)
    return step.node.get_friendly_name()


def _steps(graph: Any, types: Mapping[str, str]) -> Iterator[Step]:
    for node in graph.get_ordered_ops():
        layer = _told(node, "layerType")
        if layer in _NO_WORK:
            continue
        origins = tuple(_origins(node))
        op = layer
        if layer in _FUSED:
            op = "+".join(dict.fromkeys(types[name] for name in origins if name in types)) or layer
        precision = _told(node, "runtimePrecision")
        yield Step(op, layer, precision, origins, node, _kind(node, layer, op, origins))


def _kind(node: Any, layer: str, op: str, origins: tuple[str, ...]) -> str:
    reads = [node.input_value(i) for i in range(node.get_input_size())]
    data = [port for port in reads if _told(port.get_node(), "layerType") != "Const"]
    if layer in _WITH_MACS:
        inputs = {_type(port) for port in reads[:2] if port in data} or {""}
        if inputs <= _EIGHT_BIT:
            return "int8"
        return "dynamic" if {_type(port) for port in reads[:2]} & _EIGHT_BIT else "float"
    if not data:  # of constants alone: done once, before the first image
        return "other"
    taken, given = {_type(port) for port in data}, {_type(port) for port in node.outputs()}
    rescales = any("Dequantization" in name for name in origins)
    users = [reader.get_node() for port in node.outputs() for reader in port.get_target_inputs()]
    first = all(_told(port.get_node(), "layerType") == "Input" for port in data)
    last = all(_told(user, "layerType") == "Output" for user in users)
    enters = taken <= _FLOAT and given <= _EIGHT_BIT and (op == "FakeQuantize" or layer == "Reorder")
    leaves = taken <= _EIGHT_BIT and given <= _FLOAT and (rescales or layer == "Reorder")
    if (first and enters) or (last and leaves):
        return "convert"
    if (taken | given) & _FLOAT:
        return "float"
    return "int8" if (taken | given) & _EIGHT_BIT else "other"


def _is_quantized(port: Any) -> bool:
    """Whether a value of the file lies on an 8-bit grid: behind FakeQuantize, or 8-bit integers rescaled."""
    for _ in range(32):
        node = port.get_node()
        kind = node.get_type_name()
        if kind == "FakeQuantize" or (kind == "Constant" and _type(port) in _EIGHT_BIT):
            return True
        if kind not in _PASSES_ON | {"Multiply", "Subtract", "Convert"} or not node.get_input_size():
            return _type(port) in _EIGHT_BIT
        if kind in ("Multiply", "Subtract") and node.input_value(1).get_node().get_type_name() not in (
            "Constant",
            "Convert",
        ):
            return False
        port = node.input_value(0)
    return False


def _macs(step: Step) -> int:
    node = step.node
    if step.layer not in _WITH_MACS or node.get_input_size() < 2:
        return 0
    out, first, weight = (
        tuple(port.get_shape()) for port in (node.output(0), node.input_value(0), node.input_value(1))
    )
    if step.layer == "Convolution":
        return int(np.prod(out) * np.prod(weight[2 if len(weight) > len(out) else 1 :]))
    if step.layer == "Deconvolution":
        return int(np.prod(first) * np.prod(weight[2 if len(weight) > len(out) else 1 :]))
    return int(np.prod(out) * first[-1])


def _product(step: Step) -> bool:
    """Whether it multiplies two activations."""
    return step.layer == "MatMul" and not any(_constant(step.node.input_value(i).get_node()) for i in (0, 1))


def _constant(node: Any) -> bool:
    """Whether a node computes from constants alone."""
    above = [node.input_value(i).get_node() for i in range(node.get_input_size())]
    return all(map(_constant, above)) if above else _told(node, "layerType") == "Const"


def _constant_bytes(node: Any, spent: set[str]) -> int:
    """Bytes of the constants this operator is the first to read."""
    total = 0
    for i in range(node.get_input_size()):
        origin = node.input_value(i)
        name = origin.get_node().get_friendly_name()
        if _told(origin.get_node(), "layerType") == "Const" and name not in spent:
            spent.add(name)
            total += int(np.prod(tuple(origin.get_shape()))) * _width(origin)
    return total


def _width(port: Any) -> int:
    kind = port.get_element_type()
    return 0 if kind.get_type_name() in ("dynamic", "undefined") else kind.size


def _bytes_by_dtype(model: Any) -> dict[str, int]:
    table: Counter[str] = Counter()
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Constant":
            kind = _type(node.output(0))
            table[_NAMES.get(kind, kind)] += node.get_byte_size()
    return dict(table.most_common())


def _per_channel_share(model: Any) -> float:
    """Of the 8-bit weight tensors, the share with one scale per channel."""
    found = []
    for node in model.get_ordered_ops():
        if node.get_type_name() not in _WEIGHTED:
            continue
        port, scales = node.input_value(1), 1
        while port.get_node().get_type_name() in {
            "Multiply",
            "Subtract",
            "Convert",
            "FakeQuantize",
            "Reshape",
        }:
            step = port.get_node()
            if step.get_type_name() in ("Multiply", "FakeQuantize"):
                scales = max(
                    scales, int(np.prod(tuple(step.input_value(step.get_input_size() - 1).get_shape())))
                )
            port = step.input_value(0)
        if _type(port) in _EIGHT_BIT or scales > 1:
            found.append(scales > 1)
    return sum(found) / len(found) if found else 0.0


def _io(port: Any) -> IoRecord:
    names = sorted(port.get_names())
    shape = tuple(-1 if d.is_dynamic else d.get_length() for d in port.get_partial_shape())
    kind = _type(port)
    name = names[0] if names else port.get_node().get_friendly_name()
    return IoRecord(name, _NAMES.get(kind, kind), shape, None, None)


def _origins(node: Any) -> list[str]:
    return [name for name in _told(node, "originalLayersNames").split(",") if name]


def _told(node: Any, key: str) -> str:
    info = node.get_rt_info()
    return str(info[key].astype(str)) if key in info else ""


def _type(port: Any) -> str:
    return str(port.get_element_type().get_type_name())
