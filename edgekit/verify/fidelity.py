"""Does the runtime compute what the graph says? Every operator, in output steps: graph + files -> Fidelity.

Teacher-forced: each operator is given the very integers the runtime's own predecessors produced, so a
difference belongs to the operator it is found at and to no other. The runtime's inner values come from a
probe file, the same lowering with every quantized value as a further output; the probe and the shipped file
must give identical answers, or the probe proves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch

from edgekit.errors import ArtifactError
from edgekit.graph.ir import Graph, Value
from edgekit.graph.run import run
from edgekit.runtimes.litert.run import infer, open_interpreter
from edgekit.runtimes.runtime import Source
from edgekit.verify.drift import sqnr_db
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
    """Names of the values a probe file must expose: every quantized result."""
    return tuple(v.name for node in graph.nodes for v in node.outputs if v.quant is not None)


def read_values(probe: Probe, graph: Graph, images: np.ndarray) -> dict[str, Tensor]:
    """The runtime's codes (integer - zero point) of every exposed value, (N, ...) in torch's layout.

    Args:
        images: float32 (N, C, H, W).
    """
    interpreter = open_interpreter(probe.data)
    readers = _readers(probe, graph, interpreter.get_output_details())
    found: dict[str, list[Tensor]] = {}
    for image in np.asarray(images, np.float32):
        infer(interpreter, image)
        for detail, value, layout in readers:
            codes = _codes(interpreter.get_tensor(detail["index"]), detail, value)
            found.setdefault(value.name, []).append(_in_torch_layout(codes, value, layout))
    along = batch_dims(graph)
    return {name: torch.cat(parts, along[name]) for name, parts in found.items()}


def batch_dims(graph: Graph) -> dict[str, int]:
    """Which dimension of each computed value counts images: attention's permutes do not leave it in front."""
    shapes: dict[Value, tuple[int, ...]] = {}

    def record(value: Value, tensor: Tensor) -> Tensor:
        shapes[value] = tuple(tensor.shape)
        return tensor.to("meta")

    run(graph, [torch.empty((2, *v.shape[1:]), device="meta") for v in graph.inputs], on_value=record)
    return {
        value.name: next((d for d, (n, m) in enumerate(zip(value.shape, shape, strict=True)) if n != m), 0)
        for value, shape in shapes.items()
        if not value.is_constant
    }


def _readers(
    probe: Probe, graph: Graph, given: Sequence[dict[str, Any]]
) -> list[tuple[dict[str, Any], Value, Sequence[int]]]:
    """(output, value it holds, its layout): the exposed tensors, then graph outputs behind a conversion."""
    outputs = {detail["name"]: detail for detail in given}
    found: list[tuple[dict[str, Any], Value, Sequence[int]]] = [
        (outputs[probe.tensors[value.name]], value, probe.layouts[value.name])
        for value in graph.values()
        if value.quant is not None and not value.is_constant and probe.tensors.get(value.name) in outputs
    ]
    held = {value for _, value, _ in found}
    for detail, value in zip(given, graph.outputs, strict=False):
        if value.quant is not None and value not in held:
            rank = len(value.shape)
            found.append((detail, value, (0, 2, 3, 1) if rank == 4 else tuple(range(rank))))
    return found


def _codes(stored: np.ndarray, detail: dict[str, Any], value: Value) -> Tensor:
    """An output tensor as codes of the value; floats go back on the value's grid, which loses nothing."""
    assert value.quant is not None
    if stored.dtype.kind == "f":
        return torch.from_numpy(np.rint(stored / np.float32(value.quant.scale[0])))
    return torch.from_numpy(stored.astype(np.float32) - np.float32(detail["quantization"][1]))


def fidelity(graph: Graph, probe: Probe, images: np.ndarray, shipped: Source | None = None) -> Fidelity:
    """Hold every operator of an int8 file against its integer formula.

    Args:
        graph: the prepared graph both files were lowered from.
        probe: the lowering with `probe_values(graph)` as further outputs.
        images: float32 (N, C, H, W); two to four are enough, every element counts.
        shipped: the file that ships; None compares nothing and reports probe_agrees as True.
    """
    images = np.asarray(images, np.float32)
    agrees = shipped is None or _same_answers(probe.data, shipped, images)
    actual = read_values(probe, graph, images)
    rows: list[OpFidelity] = []
    counts: dict[str, list[int]] = {}
    unchecked: list[str] = []
    for node, results in _walk(graph, torch.from_numpy(images), actual):
        checked = False
        for value, expected in zip(node.outputs, results, strict=True):
            if value.quant is None or value.name not in actual:
                continue
            checked = True
            steps = (expected.double() - actual[value.name].double()).abs()
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
        images=len(images),
        checked_ops=len(graph.nodes) - len(unchecked),
        unchecked_ops=tuple(unchecked),
    )


@dataclass(frozen=True)
class FloatFidelity:
    """A float file's outputs against torch: SQNR, and the largest error over the largest output."""

    sqnr_db: float
    max_relative_error: float
    images: int

    def as_dict(self) -> dict[str, Any]:
        return {"max_lsb": None, "by_op": {}} | asdict(self)


def float_fidelity(graph: Graph, answers: np.ndarray, images: np.ndarray) -> FloatFidelity:
    """Compare the answers (N, K) of a float (or float16, or dynamic int8) file with those of its graph."""
    images = np.asarray(images, np.float32)
    with torch.inference_mode():
        wanted = run(graph, [torch.from_numpy(images)])[0].reshape(len(images), -1).numpy()
    if answers.shape != wanted.shape:
        raise ArtifactError(
            f"fidelity: the file gives outputs {answers.shape}: the graph gives {wanted.shape}"
        )
    peak = float(np.abs(wanted).max())
    error = float(np.abs(answers - wanted).max())
    return FloatFidelity(float(sqnr_db(wanted, answers)), error / peak if peak else error, len(images))


def _walk(graph: Graph, images: Tensor, actual: Mapping[str, Tensor]) -> Any:
    """Yield (node, computed outputs) in order; readers of an exposed value get the runtime's own integers."""
    source = graph.inputs[0]
    env: dict[Value, Tensor] = {
        source: quantize_reals(images, source.quant) if source.quant is not None else images
    }
    env[source] = actual.get(source.name, env[source])
    last_use = {value: i for i, node in enumerate(graph.nodes) for value in node.operands}
    with torch.inference_mode():
        for i, node in enumerate(graph.nodes):
            operands = [None if v is None or v.is_constant else env[v] for v in node.inputs]
            results = compute(node, operands)
            yield node, results
            for value, result in zip(node.outputs, results, strict=True):
                env[value] = actual.get(value.name, result)
            for spent in node.operands:
                if last_use[spent] == i:
                    env.pop(spent, None)


def _in_torch_layout(codes: Tensor, value: Value, layout: Sequence[int]) -> Tensor:
    """A stored tensor with its dimensions back in the graph's order."""
    inverse = [0] * len(layout)
    for position, dim in enumerate(layout):
        inverse[dim] = position
    return codes.reshape([value.shape[dim] for dim in layout]).permute(inverse).contiguous()


def _same_answers(probe: bytes, shipped: Source, images: np.ndarray) -> bool:
    """Whether the shipped file's outputs are bit for bit those of the probe's outputs of the same names."""
    first, second = open_interpreter(shipped), open_interpreter(probe)
    wanted = first.get_output_details()
    named = {detail["name"]: detail for detail in second.get_output_details()}
    missing = [detail["name"] for detail in wanted if detail["name"] not in named]
    if missing:
        raise ArtifactError(
            f"fidelity: the probe file lacks output {missing[0]!r}: a probe of the same graph"
        )
    for image in images:
        infer(first, image)
        infer(second, image)
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
