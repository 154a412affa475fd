"""Does ONNX Runtime or OpenVINO compute what the graph says? Every quantized value: graph + file -> steps.

Teacher-forced as in `fidelity`: each operator is given the values the runtime itself computed before it. What
is expected is the graph's meaning: the float operator on dequantized inputs and weights, its result on the
grid of `value.quant`. These runtimes requantize in float32, in an order of their own, and fuse float
operators into the 8-bit kernel before them, so a result on the edge between two steps may go either way: one
step is rounding. More than one step is a kernel with other arithmetic: 16-bit saturation of u8 x s8 products
on CPUs without VNNI, for one.

The inner values are read from a copy of the file with further outputs, which can make the runtime fuse
differently; `probe_db` is the SQNR of the copy's answers against the file's, and `probe_agrees` judges it.
A float clamp is read too: OpenVINO's file holds a FakeQuantize there, which rounds in the copy and not in the
shipped file's addition in place. What only the shipped file fuses shows in `answers_db`: its outputs against
those of the graph run freely with every annotated value on its grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from edgekit.errors import ArtifactError
from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.run import per_image, run, run_node, walk
from edgekit.runtimes.runtime import Inputs, as_inputs, run_model
from edgekit.tasks.statistics import sqnr_db
from edgekit.verify.fidelity import steps_between
from edgekit.verify.integers import dequantize, quantize_reals, weight_codes
from edgekit.verify.placed import Placed, placed_values

Tensor = torch.Tensor
# A copy with more outputs may round a tie the other way or fuse less, and a step in a squeeze-excite gate
# reaches the logits: 19 to 30 dB on a trained MobileNetV3-Large, where quantization alone leaves 15 to 20.
_SAME_ANSWERS_DB = 10.0


@dataclass(frozen=True)
class ValueFidelity:
    """One value: the runtime against the graph's meaning, in steps of its grid and in dB."""

    op: str
    module: str
    value: str
    max_lsb: int
    mismatch_share: float
    sqnr_db: float


@dataclass(frozen=True)
class RuntimeFidelity:
    """max_lsb is over every quantized value; by_op: max_lsb, mismatch_share, sqnr_db and layers per op."""

    max_lsb: int
    mismatch_share: float
    min_sqnr_db: float
    by_op: dict[str, dict[str, Any]]
    layers: tuple[ValueFidelity, ...]
    answers_db: float
    probe_db: float
    probe_agrees: bool
    images: int
    checked_ops: int
    unchecked_ops: tuple[str, ...]

    @property
    def worst(self) -> ValueFidelity | None:
        """The value furthest from its meaning."""
        return max(self.layers, key=lambda row: (row.max_lsb, row.mismatch_share), default=None)

    def as_dict(self) -> dict[str, Any]:
        content = asdict(self)
        content["layers"] = [row for row in content["layers"] if row["max_lsb"]]
        return content


def runtime_fidelity(placed: Placed, inputs: Inputs) -> RuntimeFidelity:
    """Hold every quantized value of an .onnx or .xml file against the graph it was lowered from.

    Args:
        placed: the prepared graph, whose `value.quant` says what the file quantizes, and the file.
        inputs: float32, one array a graph input, (N, ...); two to four images are enough, every element
            counts.
    Returns: figures over all values that are quantized and have a place in the file; `unchecked_ops` are the
        nodes that have none, which are checked together with the next one that has.
    """
    arrays, graph = as_inputs(inputs), placed.graph
    images = [[torch.from_numpy(x[i : i + 1]) for x in arrays] for i in range(len(arrays[0]))]
    actual = placed_values(placed, _readable(placed), arrays)
    sums: dict[str, _Sum] = {}
    for i, image in enumerate(images):
        own = {name: torch.from_numpy(array[i]) for name, array in actual.items()}
        for node, value, expected in _expected(graph, image, own):
            sums.setdefault(value.name, _Sum(node, value)).add(expected, own[value.name])
    rows = tuple(one.row() for one in sums.values())
    checked = {id(one.node) for one in sums.values()} & {id(node) for node in graph.nodes}
    unchecked = [f"{n.op} at {n.source}" for n in graph.nodes if id(n) not in checked]
    answers = run_model(placed.file, arrays, placed.ports)
    meant = [np.stack(rows) for rows in zip(*(_meant(graph, image) for image in images), strict=True)]
    probe_db = _probe_db(placed, actual, arrays, answers)
    wrong, elements = sum(one.wrong for one in sums.values()), sum(one.elements for one in sums.values())
    return RuntimeFidelity(
        max_lsb=max((row.max_lsb for row in rows), default=0),
        mismatch_share=wrong / elements if elements else 0.0,
        min_sqnr_db=min((row.sqnr_db for row in rows), default=0.0),
        by_op=_by_op(rows),
        layers=rows,
        answers_db=min(map(_db, meant, answers)),
        probe_db=probe_db,
        probe_agrees=probe_db >= _SAME_ANSWERS_DB,
        images=len(images),
        checked_ops=len(checked),
        unchecked_ops=tuple(unchecked),
    )


class _Sum:
    """What is found out about one value, over images."""

    def __init__(self, node: Node, value: Value) -> None:
        self.node, self.value = node, value
        self.worst, self.wrong, self.elements = 0, 0, 0
        self.pairs: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, expected: Tensor, actual: Tensor) -> None:
        assert self.value.quant is not None
        scale = float(np.float32(self.value.quant.scale[0]))
        steps = steps_between(expected, torch.round(actual.double() / scale))
        self.worst = max(self.worst, int(steps.max()) if steps.numel() else 0)
        self.wrong += int((steps > 0).sum())
        self.elements += steps.numel()
        self.pairs.append((expected.numpy() * np.float32(scale), actual.numpy()))

    def row(self) -> ValueFidelity:
        wanted, found = (np.stack(side) for side in zip(*self.pairs, strict=True))
        return ValueFidelity(
            self.node.op,
            self.node.source,
            self.value.name,
            self.worst,
            self.wrong / self.elements,
            float(sqnr_db(wanted, found)),
        )


def _by_op(rows: tuple[ValueFidelity, ...]) -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = {}
    for op in sorted({row.op for row in rows}):
        own = [row for row in rows if row.op == op]
        table[op] = {
            "max_lsb": max(row.max_lsb for row in own),
            "mismatch_share": sum(row.mismatch_share for row in own) / len(own),
            "sqnr_db": min(row.sqnr_db for row in own),
            "layers": len(own),
        }
    return table


def _readable(placed: Placed) -> list[str]:
    graph = placed.graph
    made = [(value, node.op) for node in graph.nodes for value in node.outputs]
    names = [
        value.name
        for value, op in [*((value, "input") for value in graph.inputs), *made]
        if (value.quant is not None or op == "clamp") and value.name in placed.tensors
    ]
    if not names:
        raise ArtifactError("fidelity: the file holds no value that the graph quantizes: an int8 file of it")
    return names


def _db(one: np.ndarray, other: np.ndarray) -> float:
    return float(sqnr_db(one.reshape(other.shape), other))


def _expected(
    graph: Graph, image: Sequence[Tensor], actual: dict[str, Tensor]
) -> Iterator[tuple[Node, Value, Tensor]]:
    """(node, value, the codes its meaning gives) for every value in `actual`, in order.

    The input is one of them: a saturated picture lies on the edge between two steps wherever it is saturated.
    """
    for value, real in zip(graph.inputs, image, strict=True):
        if value.name in actual and value.quant is not None:
            yield Node("input", [], [value], {}, ""), value, quantize_reals(real, value.quant)

    def seen(value: Value, tensor: Tensor) -> Tensor:
        found = None if value.is_constant else actual.get(value.name)
        return _stored(value, tensor) if found is None else found

    with torch.inference_mode():
        for node, results in walk(graph, image, run_node, seen):
            for value, result in zip(node.outputs, results, strict=True):
                if value.name in actual and value.quant is not None:
                    yield node, value, quantize_reals(result, value.quant)


def _stored(value: Value, real: Tensor) -> Tensor:
    """A value as its readers find it in the file."""
    return _constant(value) if value.is_constant else _on_grid(value, real)


def _on_grid(value: Value, real: Tensor) -> Tensor:
    return real if value.quant is None else dequantize(quantize_reals(real, value.quant), value.quant)


def _constant(value: Value) -> Tensor:
    """A constant as the file holds it."""
    assert value.data is not None
    data, quant = value.data.detach(), value.quant
    if quant is None or not data.is_floating_point():
        return data
    shape = [1] * data.ndim
    if len(quant.scale) > 1:
        shape[quant.axis or 0] = -1
    scale = torch.tensor(quant.scale, dtype=torch.float32).reshape(shape)
    if quant.dtype == "int32":
        return (torch.round(data.double() / scale.double()) * scale.double()).float()
    return weight_codes(value) * scale


def _meant(graph: Graph, image: Sequence[Tensor]) -> list[np.ndarray]:
    """The outputs of the graph for one image with every annotated value on its grid."""
    with torch.inference_mode():
        given = run(graph, image, _stored)
    return [t.reshape(per_image(v.shape)).numpy() for v, t in zip(graph.outputs, given, strict=True)]


def _probe_db(
    placed: Placed, actual: dict[str, np.ndarray], inputs: Inputs, answers: Sequence[np.ndarray]
) -> float:
    """SQNR of the answers of the copy with further outputs against the file's own, the lowest."""
    outs = placed.graph.outputs
    for out in outs:
        if out.name not in placed.tensors:
            raise ArtifactError(
                f"fidelity: the file has no place for the output {out.name!r}: one of the graph"
            )
    names = list(dict.fromkeys([*actual, *(out.name for out in outs)]))
    given = actual if len(names) == len(actual) else placed_values(placed, names, inputs)
    return min(
        float(sqnr_db(ours, given[out.name].reshape(ours.shape)))
        for ours, out in zip(answers, outs, strict=True)
    )
