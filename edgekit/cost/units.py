"""What runs as one on LiteRT with XNNPACK: a file's operators -> fused units, each with a key and a kind.

    PAD + CONV_2D / DEPTHWISE_CONV_2D       the delegate pads while it gathers the input
    DEQUANTIZE - scalar functions - QUANTIZE  one pass through a table of 256 entries
    the same and MUL(x, its result)         one table too: SiLU
    DEQUANTIZE of a constant + its reader   weights stored in half the bytes, turned when the file is opened

every other operator is a unit by itself. Enters: operators as `lower.tflite` writes them, from a graph that
is lowered or from a file that is unpacked; both give the same units. Two units of one key take the same time
wherever they stand; a kind is what units have in common whose time is one function of their sizes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.lower.tflite import reader
from edgekit.lower.tflite.builder import Operator, Signature, Tensor
from edgekit.runtimes.litert.audit import table_chains

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_SETTINGS = ("int32", "int64")  # constants that say what an operator does: axes, bounds, paddings
_MOST_SETTINGS = 64
_RAW = np.zeros(0, np.uint8)


@dataclass(frozen=True, eq=False)
class Unit:
    """Operators that run as one.

    operators: in the file's order. inputs, outputs: tensors from outside, and those read outside.
    key: everything its time depends on. kind, sizes: see `Kind`.
    """

    operators: tuple[Operator, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    key: str
    kind: str
    sizes: Mapping[str, int]

    @property
    def source(self) -> str:
        """The module of the operator that computes."""
        return self.operators[-1].source

    @property
    def family(self) -> str:
        """Kinds like this one; see `family_of`."""
        return family_of(self.kind, self.sizes)

    @property
    def nodes(self) -> tuple[int, ...]:
        """Indices of the prepared graph's nodes it came from; empty for a file that was read."""
        return tuple(dict.fromkeys(op.node_index for op in self.operators if op.node_index >= 0))


def family_of(kind: str, sizes: Mapping[str, int]) -> str:
    """What kinds are pooled with where there is little of their own.

    Depthwise convolutions of all kernels, dense ones with 1x1, linear and transposed; for the rest, all that
    goes through elements of the same type.
    """
    types = kind.split()[-1] if "out" in sizes else kind.split()[1]
    if "out" not in sizes:
        return f"elements {types.split(',')[0]}"
    return f"{'depthwise' if kind.startswith('depthwise') else 'dense'} {types}"


def units_of(operators: Sequence[Operator], signature: Signature) -> list[Unit]:
    """The fused units of a file, in the order of their last operators."""
    readers: dict[Tensor, list[int]] = {}
    for i, op in enumerate(operators):
        for tensor in dict.fromkeys(t for t in op.inputs if t is not None):
            readers.setdefault(tensor, []).append(i)
    outside = {tensor for _, tensor in signature.outputs}
    stored = {i for i, op in enumerate(operators) if all(t is None or t.data is not None for t in op.inputs)}
    stored = {i for i in stored if not any(t in outside for t in operators[i].outputs)}
    leader = _leaders(operators, signature, readers, outside, stored)
    groups: dict[int, list[int]] = {}
    for i in range(len(operators)):
        if i not in stored:
            groups.setdefault(leader.get(i, i), []).append(i)
    makers = {t: i for i in stored for t in operators[i].outputs}
    found = []
    for members in groups.values():
        read = dict.fromkeys(t for i in members for t in operators[i].inputs if t is not None)
        with_stored = sorted({*members, *(makers[t] for t in read if t in makers)})
        found.append((members[-1], _unit([operators[i] for i in with_stored], members, readers, outside)))
    return [unit for _, unit in sorted(found, key=lambda pair: pair[0])]


def _leaders(
    operators: Sequence[Operator],
    signature: Signature,
    readers: Mapping[Tensor, list[int]],
    outside: set[Tensor],
    stored: set[int],
) -> dict[int, int]:
    """Operator -> the one whose unit it is part of."""
    leader: dict[int, int] = {}
    made = {op.outputs[0]: i for i, op in enumerate(operators)}
    for chain in table_chains(_as_subgraph(operators, signature)):
        last = chain[-1].index
        x, y = operators[chain[0].index].inputs[0], operators[last].outputs[0]
        users = readers.get(y, [])
        if len(users) == 1 and y not in outside and _is_product(operators[users[0]], x, y):
            last = users[0]
            leader[last] = last
        leader.update(dict.fromkeys((op.index for op in chain), last))
    for i, op in enumerate(operators):
        x = op.inputs[0]
        if op.name in _CONVOLUTIONS and x in made and i not in stored:
            before = operators[made[x]]
            if before.name == "PAD" and readers[x] == [i] and x not in outside:
                leader[made[x]] = i
    return leader


def _is_product(op: Operator, x: Tensor | None, y: Tensor) -> bool:
    return op.name == "MUL" and set(op.inputs) == {x, y} and not _activation(op.options)


def _unit(
    operators: list[Operator],
    members: list[int],
    readers: Mapping[Tensor, list[int]],
    outside: set[Tensor],
) -> Unit:
    made = {t for op in operators for t in op.outputs}
    inputs = dict.fromkeys(
        t for op in operators for t in op.inputs if t is not None and t.data is None and t not in made
    )
    inner = set(members)
    outputs = [
        t
        for op in operators
        for t in op.outputs
        if t in outside or any(i not in inner for i in readers.get(t, [])) or t not in readers
    ]
    outputs = [t for t in outputs if not _is_turned_constant(t, operators)]
    kind, sizes = _kind(operators, inputs, outputs)
    return Unit(tuple(operators), tuple(inputs), tuple(outputs), _key(operators, list(inputs)), kind, sizes)


def _is_turned_constant(tensor: Tensor, operators: Sequence[Operator]) -> bool:
    """Made of constants alone: each reader has it in its own unit."""
    maker = next(op for op in operators if tensor in op.outputs)
    return all(t is None or t.data is not None for t in maker.inputs)


def _key(operators: Sequence[Operator], inputs: list[Tensor]) -> str:
    names = {tensor: f"in{i}" for i, tensor in enumerate(inputs)}
    lines = []
    for op in operators:
        for tensor in op.outputs:
            names[tensor] = f"t{len(names) - len(inputs)}"
        read = ",".join(_operand(tensor, names) for tensor in op.inputs)
        written = ",".join(f"{names[t]}:{_type(t)}" for t in op.outputs)
        lines.append(f"{op.name}({read})->{written}{_settings(op.options)}")
    return ";".join(lines)


def _operand(tensor: Tensor | None, names: Mapping[Tensor, str]) -> str:
    if tensor is None:
        return "-"
    if tensor.data is None:
        return f"{names[tensor]}:{_type(tensor)}"
    if _says_what(tensor):
        return f"={tensor.data.reshape(-1).tolist()}".replace(" ", "")
    return f"c:{_type(tensor)}"


def _says_what(tensor: Tensor) -> bool:
    data = tensor.data
    return data is not None and tensor.dtype in _SETTINGS and not tensor.quant and data.size <= _MOST_SETTINGS


def _type(tensor: Tensor) -> str:
    return f"{tensor.dtype}[{'x'.join(map(str, tensor.shape))}]"


def _settings(options: Any) -> str:
    if options is None:
        return ""
    told = {name: np.asarray(value) for name, value in sorted(vars(options).items()) if value is not None}
    words = [f"{name}={value.tolist()}".replace(" ", "") for name, value in told.items() if value.any()]
    return f"{{{','.join(words)}}}" if words else ""


def _activation(options: Any) -> int:
    return int(getattr(options, "fusedActivationFunction", 0) or 0)


def _kind(
    operators: Sequence[Operator], inputs: Mapping[Tensor, None], outputs: Sequence[Tensor]
) -> tuple[str, dict[str, int]]:
    """The kind and its sizes: of what multiplies by weights pixels, channels and taps, of others elements."""
    main = next((op for op in reversed(operators) if op.name != "DEQUANTIZE"), operators[-1])
    out = main.outputs[0]
    if main.name in (*_CONVOLUTIONS, "FULLY_CONNECTED", "TRANSPOSE_CONV"):
        return _weighted(main, out)
    sizes = {
        "read": sum(math.prod(t.shape) for t in inputs),
        "written": sum(math.prod(t.shape) for t in outputs),
        "rows": math.prod(out.shape[:-1]) * len(inputs),  # what is moved, is moved in runs of channels
    }
    if operators[-1].name == "QUANTIZE" and operators[0].name == "DEQUANTIZE" and len(inputs) == 1:
        return f"table {out.dtype}", sizes
    if len(operators) > 1 and operators[-1].name == "MUL":
        return f"gated table {out.dtype}", sizes
    names = "+".join(op.name for op in operators)
    types = ",".join(dict.fromkeys((*(t.dtype for t in inputs), *(t.dtype for t in outputs))))
    shapes = {tuple(n for n in t.shape if n != 1) for t in main.inputs if t is not None and t.data is None}
    broadcast = " broadcast" if len(shapes) > 1 and main.name in ("ADD", "SUB", "MUL", "DIV") else ""
    with_constant = (
        " constant"
        if any(t is not None and t.data is not None and not _says_what(t) for t in main.inputs)
        else ""
    )
    return f"{names} {types}{broadcast}{with_constant}", sizes


def _weighted(op: Operator, out: Tensor) -> tuple[str, dict[str, int]]:
    weight = op.inputs[1]
    x = op.inputs[2] if op.name == "TRANSPOSE_CONV" else op.inputs[0]
    assert weight is not None and x is not None
    types = f"{x.dtype}*{weight.dtype}"
    channels, pixels = out.shape[-1], math.prod(out.shape[:-1])
    if op.name == "FULLY_CONNECTED":
        return f"linear {types}", {"pixels": pixels, "in": weight.shape[1], "out": channels, "taps": 1}
    taps = weight.shape[1] * weight.shape[2]
    stride = f"/{op.options.strideH}x{op.options.strideW}"
    kernel = f"{weight.shape[1]}x{weight.shape[2]}{stride if taps > 1 or op.options.strideH > 1 else ''}"
    if op.name == "DEPTHWISE_CONV_2D":
        return f"depthwise {kernel} {types}", {"pixels": pixels, "out": channels, "taps": taps}
    if op.name == "TRANSPOSE_CONV":
        pixels = math.prod(x.shape[:-1])
        return f"transposed {types}", {"pixels": pixels, "in": x.shape[-1], "out": channels, "taps": taps}
    groups = x.shape[-1] // weight.shape[3]
    sizes = {"pixels": pixels, "in": weight.shape[3], "out": channels // groups, "taps": taps}
    if groups > 1:
        return f"grouped {types}", sizes | {"groups": groups}
    pointwise = taps == 1 and op.options.strideH == op.options.strideW == 1
    return f"{'pointwise' if pointwise else 'convolution'} {types}", sizes


def _as_subgraph(operators: Sequence[Operator], signature: Signature) -> reader.Subgraph:
    """The view of a file that the audit's rules are written for."""
    tensors = dict.fromkeys(
        t for op in operators for t in (*op.inputs, *op.outputs) if t is not None
    ) | dict.fromkeys(t for _, t in (*signature.inputs, *signature.outputs))
    index = {tensor: i for i, tensor in enumerate(tensors)}
    nothing, zero = np.zeros(0, np.float32), np.zeros(0, np.int64)
    return reader.Subgraph(
        "main",
        tuple(
            reader.Tensor(i, t.name, t.shape, t.dtype, nothing, zero, 0, None if t.data is None else _RAW)
            for t, i in index.items()
        ),
        tuple(
            reader.Operator(
                i,
                op.name,
                tuple(-1 if t is None else index[t] for t in op.inputs),
                tuple(index[t] for t in op.outputs),
            )
            for i, op in enumerate(operators)
        ),
        tuple(index[t] for _, t in signature.inputs),
        tuple(index[t] for _, t in signature.outputs),
    )
