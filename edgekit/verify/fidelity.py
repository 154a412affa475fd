"""Does the runtime compute what the graph says? Every operator, in output steps: graph + files -> Fidelity.

Teacher-forced: each operator is given the very integers the runtime's own predecessors produced, so a
difference belongs to the operator it is found at and to no other. The runtime's inner values come from a
probe file, the same lowering with every quantized value as a further output; the probe and the shipped file
must give identical answers, or the probe proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch

from edgekit.errors import ArtifactError
from edgekit.graph import batch
from edgekit.graph.boundaries import is_dynamic
from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.run import answers as graph_answers
from edgekit.graph.run import walk
from edgekit.lower.ports import Ports
from edgekit.runtimes.layout import to_graph
from edgekit.runtimes.litert.run import infer, open_interpreter, slots
from edgekit.runtimes.runtime import Inputs, Source, as_inputs, laid_out
from edgekit.tasks.statistics import SQNR_CEILING_DB, sqnr_db
from edgekit.verify.integers import compute, is_exact, quantize_reals

Tensor = torch.Tensor


class Probe(Protocol):
    """What a lowering returns: the file, and where each graph value lies in it."""

    @property
    def data(self) -> bytes: ...
    @property
    def tensors(self) -> Mapping[str, str]: ...
    @property
    def layouts(self) -> Mapping[str, tuple[int, ...]]: ...
    @property
    def ports(self) -> Ports: ...


_NO_NUMBER = 255.0  # steps that a quotient by an integer zero is off: it has no value to agree on


@dataclass(frozen=True)
class OpFidelity:
    """One value: how far the runtime is from the formula."""

    op: str
    module: str
    value: str
    max_lsb: int
    mismatch_share: float
    exact_expected: bool


@dataclass(frozen=True)
class Fidelity:
    """max_lsb is over every operator. `probe_agrees`: the probe and the shipped file answer alike."""

    max_lsb: int
    mismatch_share: float
    by_op: dict[str, dict[str, Any]]
    layers: tuple[OpFidelity, ...]
    probe_agrees: bool
    images: int
    checked_ops: int
    unchecked_ops: tuple[str, ...]

    @property
    def worst(self) -> OpFidelity | None:
        """The operator furthest from its formula."""
        return max(self.layers, key=lambda row: (row.max_lsb, row.mismatch_share), default=None)

    def unexpected(self) -> list[OpFidelity]:
        """Operators with a bit-exact formula that differ all the same."""
        return [row for row in self.layers if row.exact_expected and row.max_lsb > 0]

    def as_dict(self) -> dict[str, Any]:
        content = asdict(self)
        content["layers"] = [row for row in content["layers"] if row["max_lsb"]]
        return content


def probe_values(graph: Graph) -> tuple[str, ...]:
    """Names of the values a probe file must expose: every quantized result, and floats that a kernel rounds
    by itself, where the last bit decides between two steps.
    """
    rounded = {node.operands[0] for node in graph.nodes if is_dynamic(node)}
    return tuple(v.name for node in graph.nodes for v in node.outputs if v.quant is not None or v in rounded)


def read_values(probe: Probe, graph: Graph, inputs: Inputs) -> dict[str, Tensor]:
    """The runtime's codes (integer - zero point) of every exposed value, (N, ...) in torch's layout; reals of
    those in float.

    Args:
        inputs: float32, one array a graph input, (N, ...).
    """
    interpreter = open_interpreter(probe.data)
    readers = _readers(probe, graph, interpreter.get_output_details())
    found: dict[str, list[Tensor]] = {}
    for arrays in _rows(interpreter, probe.ports, inputs):
        infer(interpreter, arrays)
        for detail, value, layout in readers:
            codes = _codes(interpreter.get_tensor(detail["index"]), detail, value)
            found.setdefault(value.name, []).append(torch.from_numpy(to_graph(codes, layout, value.shape)))
    along = batch_dims(graph)
    return {name: _joined(found.pop(name), along[name]) for name in list(found)}


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    """One tensor an image -> all images along `dim`; a value without dimensions has one image alone."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _rows(interpreter: Any, ports: Ports, inputs: Inputs) -> Iterator[list[np.ndarray]]:
    """The inputs of one image after the other as the file takes them."""
    taken, arrays = slots(interpreter)[0], as_inputs(inputs)
    for i in range(len(arrays[0])):
        yield laid_out(taken, [array[i : i + 1] for array in arrays], ports)


def batch_dims(graph: Graph) -> dict[str, int]:
    """Which dimension of each computed value counts images, by name; the first where none does."""
    return {value.name: dim or 0 for value, dim in batch.batch_dims(graph).items()}


def _readers(
    probe: Probe, graph: Graph, given: Sequence[dict[str, Any]]
) -> list[tuple[dict[str, Any], Value, Sequence[int]]]:
    """(output, value it holds, its layout): the exposed tensors, then graph outputs behind a conversion."""
    outputs = {detail["name"]: detail for detail in given}
    found: list[tuple[dict[str, Any], Value, Sequence[int]]] = [
        (outputs[probe.tensors[value.name]], value, probe.layouts[value.name])
        for value in graph.values()
        if not value.is_constant and probe.tensors.get(value.name) in outputs
    ]
    held = {value for _, value, _ in found}
    for port, value in zip(probe.ports.outputs, graph.outputs, strict=True):
        if value.quant is not None and value not in held:
            found.append((outputs[port.name], value, port.layout))
            held.add(value)
    return found


def _codes(stored: np.ndarray, detail: dict[str, Any], value: Value) -> np.ndarray:
    """An output tensor as codes of the value; floats go back on the value's grid, which loses nothing."""
    if value.quant is None:
        return stored
    if stored.dtype.kind == "f":
        return np.rint(stored / np.float32(value.quant.scale[0]))
    return stored.astype(np.float32) - np.float32(detail["quantization"][1])


def steps_between(expected: torch.Tensor, actual: torch.Tensor) -> torch.Tensor:
    """How many steps two tensors of codes are apart, element by element."""
    apart = (expected.double() - actual.double()).abs()
    return torch.nan_to_num(apart, nan=_NO_NUMBER, posinf=_NO_NUMBER)


def fidelity(graph: Graph, probe: Probe, inputs: Inputs, shipped: Source | None = None) -> Fidelity:
    """Hold every operator of an int8 file against its integer formula.

    Args:
        graph: the prepared graph both files were lowered from.
        probe: the lowering with `probe_values(graph)` as further outputs.
        inputs: float32, one array a graph input, (N, ...); two to four images are enough, every element
            counts. One image where the graph is not batchable.
        shipped: the file that ships; None compares nothing and reports probe_agrees as True.
    """
    arrays = as_inputs(inputs)
    agrees = shipped is None or _same_answers(probe, shipped, arrays)
    actual = read_values(probe, graph, arrays)
    rows: list[OpFidelity] = []
    counts: dict[str, list[int]] = {}
    unchecked: list[str] = []
    for node, results in _computed(graph, [torch.from_numpy(array) for array in arrays], actual):
        checked = False
        for value, expected in zip(node.outputs, results, strict=True):
            if value.quant is None or value.name not in actual:
                continue
            checked = True
            steps = steps_between(expected, actual[value.name])
            wrong, worst = int((steps > 0).sum()), int(steps.max()) if steps.numel() else 0
            rows.append(
                OpFidelity(node.op, node.source, value.name, worst, wrong / steps.numel(), is_exact(node))
            )
            total = counts.setdefault(node.op, [0, 0, 0, 0])
            total[0], total[1] = max(total[0], worst), total[1] + wrong
            total[2], total[3] = total[2] + steps.numel(), total[3] + 1
        if not checked:
            unchecked.append(f"{node.op} at {node.source}")
    elements = sum(total[2] for total in counts.values())
    return Fidelity(
        max_lsb=max((row.max_lsb for row in rows), default=0),
        mismatch_share=sum(total[1] for total in counts.values()) / elements if elements else 0.0,
        by_op={
            op: {"max_lsb": worst, "mismatch_share": wrong / count, "layers": layers}
            for op, (worst, wrong, count, layers) in sorted(counts.items())
        },
        layers=tuple(rows),
        probe_agrees=agrees,
        images=len(arrays[0]),
        checked_ops=len(graph.nodes) - len(unchecked),
        unchecked_ops=tuple(unchecked),
    )


@dataclass(frozen=True)
class FloatFidelity:
    """A float file's outputs against torch, the worst of them.

    sqnr_db: lowest over the outputs of real numbers. max_relative_error: largest error over the largest
    number of its output. equal_share: lowest share of equal numbers over the outputs of integers, None where
    there is none.
    """

    sqnr_db: float
    max_relative_error: float
    images: int
    equal_share: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return {"max_lsb": None, "by_op": {}} | asdict(self)


def float_fidelity(graph: Graph, answers: Sequence[np.ndarray], inputs: Inputs) -> FloatFidelity:
    """Compare a float (or float16, or dynamic int8) file with its graph.

    Args:
        answers: one array a graph output, (N, ...), as `run_model` gives them. inputs: one a graph input.
    """
    arrays = as_inputs(inputs)
    with torch.inference_mode():
        wanted = [t.numpy() for t in graph_answers(graph, [torch.from_numpy(array) for array in arrays])]
    shapes = [[array.shape for array in side] for side in (answers, wanted)]
    if shapes[0] != shapes[1]:
        raise ArtifactError(f"fidelity: the file gives outputs {shapes[0]}: the graph gives {shapes[1]}")
    pairs = list(zip(wanted, answers, strict=True))
    reals = [(a, b) for a, b in pairs if a.dtype.kind == "f"]
    whole = [(a, b) for a, b in pairs if a.dtype.kind != "f"]
    return FloatFidelity(
        min((float(sqnr_db(a, b)) for a, b in reals), default=SQNR_CEILING_DB),
        max((_relative_error(a, b) for a, b in reals), default=0.0),
        len(arrays[0]),
        min((float((a == b).mean()) for a, b in whole), default=None),
    )


def _relative_error(wanted: np.ndarray, found: np.ndarray) -> float:
    peak, error = float(np.abs(wanted).max()), float(np.abs(found - wanted).max())
    return error / peak if peak else error


def _computed(
    graph: Graph, inputs: Sequence[Tensor], actual: Mapping[str, Tensor]
) -> Iterator[tuple[Node, Sequence[Tensor]]]:
    """(node, computed outputs) in order; readers of an exposed value get the runtime's own integers."""
    sources = set(graph.inputs)

    def formula(node: Node, args: list[Tensor | None]) -> Sequence[Tensor]:
        absent = [value is None or value.is_constant for value in node.inputs]
        return compute(node, [None if gone else arg for gone, arg in zip(absent, args, strict=True)])

    def seen(value: Value, tensor: Tensor) -> Tensor:
        if value in sources and value.quant is not None:
            tensor = quantize_reals(tensor, value.quant)
        return tensor if value.is_constant else actual.get(value.name, tensor)

    with torch.inference_mode():
        yield from walk(graph, inputs, formula, seen)


def _same_answers(probe: Probe, shipped: Source, inputs: Inputs) -> bool:
    """Whether the shipped file's outputs are bit for bit those of the probe's outputs of the same names."""
    first, second = open_interpreter(shipped), open_interpreter(probe.data)
    wanted = first.get_output_details()
    named = {detail["name"]: detail for detail in second.get_output_details()}
    missing = [detail["name"] for detail in wanted if detail["name"] not in named]
    if missing:
        raise ArtifactError(
            f"fidelity: the probe file lacks output {missing[0]!r}: a probe of the same graph"
        )
    for arrays in _rows(first, probe.ports, inputs):
        infer(first, arrays)
        infer(second, arrays)
        for detail in wanted:
            other = second.get_tensor(named[detail["name"]]["index"])
            if not np.array_equal(first.get_tensor(detail["index"]), other):
                return False
    return True


__all__ = [
    "Fidelity",
    "FloatFidelity",
    "OpFidelity",
    "Probe",
    "batch_dims",
    "fidelity",
    "float_fidelity",
    "probe_values",
    "read_values",
]
