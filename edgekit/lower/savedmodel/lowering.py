"""Graph -> SavedModel files, by way of the float .tflite lowering.

To learn which sizes of the file count images the graph is lowered for two batches, both prime, that no layer
has as a size: a size that differs is a multiple of the batch. A graph that bakes in its batch of 1 gives a
model that takes one image at a time.

The bytes of two builds of one graph are equal, with one file left out: TensorFlow gives every saved model a
random identifier in fingerprint.pb, which loading does not need. Another version of TensorFlow writes other
bytes.
"""

from __future__ import annotations

import importlib.util
import pickle
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from edgekit.errors import ArtifactError, UnsupportedError, UsageError
from edgekit.graph.ir import Graph, Value
from edgekit.graph.run import run
from edgekit.lower import tflite
from edgekit.lower.lowered import Lowered
from edgekit.lower.ports import ports_of
from edgekit.lower.savedmodel.module import identifier
from edgekit.lower.savedmodel.operators import OPERATORS, SHAPED_BY_RESULT
from edgekit.lower.savedmodel.program import Program, Shape, Step, Tensor
from edgekit.lower.tflite.options import read_options
from edgekit.lower.tflite.reader import Subgraph, read_model
from edgekit.targets import Target, get_target

DIRECTORY = "saved_model"
_BATCHES = (1009, 1013)
_RANDOM = ("fingerprint.pb",)
_TIMEOUT_S = 900


def _float(target: Target) -> Target:
    assert target.format == "savedmodel"
    return get_target("tflite-float32")


def prepare(graph: Graph, target: Target, io_dtype: str | None = None) -> Graph:
    """A copy of the graph in the float lowering's forms.

    `io_dtype` changes nothing here: inputs are float32.
    """
    return tflite.prepare(graph, _float(target))


def unsupported(graph: Graph, target: Target) -> list[str]:
    """One line for every node that cannot be lowered."""
    return tflite.unsupported(graph, _float(target))


def lower(graph: Graph, target: Target, *, io_dtype: str | None = None) -> Lowered:
    """The SavedModel of a graph that went through `prepare`, signature serving_default.

    Raises: UnsupportedError naming every node at once, UsageError where TensorFlow is not installed or the
        I/O type is not float32.
    """
    if io_dtype not in (None, *target.io_dtypes):
        accepted = ", ".join(target.io_dtypes)
        raise UsageError(f"[target] {io_dtype!r} is no input type of {target.name}: one of {accepted}")
    if importlib.util.find_spec("tensorflow") is None:
        raise UsageError(f"[target] {target.name} needs TensorFlow: pip install 'edgekit[tensorflow]'")
    program, lowered = program_of(graph, target)
    taken = dict(zip(graph.inputs, (key for key, _ in program.inputs), strict=True))
    given = dict(zip(dict.fromkeys(graph.outputs), (key for key, _ in program.outputs), strict=True))
    values = [*taken, *given]
    return Lowered(
        files=_written(program),
        tensors={value.name: key for value, key in (*taken.items(), *given.items())},
        layouts={v.name: (0, 2, 3, 1) if len(v.shape) == 4 else tuple(range(len(v.shape))) for v in values},
        certificate=lowered.certificate,
        operators=lowered.operators,
        inputs=tuple(key for key, _ in program.inputs),
        outputs=tuple(key for key, _ in program.outputs),
        batchable=program.batchable,
        ports=ports_of(
            graph,
            lambda v: identifier(taken[v]),
            lambda v: given[v],
            channels_last=True,
        ),
    )


def program_of(graph: Graph, target: Target) -> tuple[Program, Lowered]:
    """What TensorFlow is to rebuild for a prepared graph, and the float file it was read from."""
    lines = unsupported(graph, target)
    if lines:
        raise UnsupportedError(f"{target.name}: {'; '.join(dict.fromkeys(lines))}")
    float_target = _float(target)
    if graph.batchable:
        files = [tflite.lower(_with_batch(graph, n), float_target) for n in _BATCHES]
        try:
            return _program(graph, files[0], files[1], target), files[0]
        except _FixedBatch:
            pass
    only = tflite.lower(graph, float_target)
    return _program(graph, only, only, target), only


class _FixedBatch(Exception):
    """The files for two batches differ in more than sizes."""


def _with_batch(graph: Graph, batch: int) -> Graph:
    """A copy of the graph with the shapes it has for `batch` images; nothing is computed."""
    shapes: dict[str, Shape] = {}

    def record(value: Value, tensor: torch.Tensor) -> torch.Tensor:
        shapes[value.name] = tuple(tensor.shape)
        return tensor.to("meta")

    run(graph, [torch.empty((batch, *v.shape[1:]), device="meta") for v in graph.inputs], on_value=record)
    copy = graph.copy()
    for value in copy.values():
        if not value.is_constant:
            value.shape = shapes[value.name]
    return copy


def _program(graph: Graph, first: Lowered, second: Lowered, target: Target) -> Program:
    a, b = read_model(first.data).main, read_model(second.data).main
    if [(op.name, op.inputs, op.outputs) for op in a.operators] != [
        (op.name, op.inputs, op.outputs) for op in b.operators
    ]:
        raise _FixedBatch
    options = read_options(first.data)
    steps = tuple(
        Step(op.name, op.inputs, op.outputs, chosen, origin.source)
        for op, chosen, origin in zip(a.operators, options, first.operators, strict=True)
    )
    missing = [
        f"{step.builtin} at {step.source or 'top level'}" for step in steps if step.builtin not in OPERATORS
    ]
    if missing:
        raise UnsupportedError(f"{target.name}: cannot rebuild {'; '.join(dict.fromkeys(missing))}")
    return Program(
        graph.name,
        tuple(_tensors(a, b, _trained(graph, first, a))),
        steps,
        tuple(zip(first.inputs, a.inputs, strict=True)),
        tuple(zip(first.outputs, a.outputs, strict=True)),
    )


def _tensors(a: Subgraph, b: Subgraph, trained: dict[int, str]) -> Iterator[Tensor]:
    read = {i for op in a.operators if op.name not in SHAPED_BY_RESULT for i in op.inputs}
    for one, other in zip(a.tensors, b.tensors, strict=True):
        data = one.numpy() if one.is_constant else None
        if data is not None and one.index in read and not np.array_equal(data, other.numpy()):
            raise _FixedBatch
        shape = one.shape if data is not None else tuple(map(_size, one.shape, other.shape))
        yield Tensor(one.name, shape, one.dtype, data, trained.get(one.index))


def _size(a: int, b: int) -> int:
    """A size as the program states it, from those for the two batches."""
    if a == b:
        return a
    images, rest = divmod(a, _BATCHES[0])
    if rest or b != images * _BATCHES[1]:
        raise _FixedBatch
    return -images


def _trained(graph: Graph, lowered: Lowered, file: Subgraph) -> dict[int, str]:
    """Tensor index -> variable name: the graph's float constants, and batch norms no convolution took in.

    A constant that several operators read is in the file once for each, as name, name_1, ...
    """
    names = {v.name for v in graph.constants() if v.dtype == "float32"}
    found = {}
    for op, origin in zip(file.operators, lowered.operators, strict=True):
        for index in op.inputs:
            tensor = file.tensors[index]
            if index < 0 or not tensor.is_constant or tensor.dtype != "float32":
                continue
            name = tensor.name if tensor.name in names else re.sub(r"_\d+$", "", tensor.name)
            if name in names or origin.op == "batch_norm":
                found[index] = name
    return found


def _written(program: Program) -> dict[str, bytes]:
    """The directory's files, written by TensorFlow in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / DIRECTORY
        done = subprocess.run(
            [sys.executable, "-m", "edgekit.lower.savedmodel.worker", str(place)],
            input=pickle.dumps(program),
            capture_output=True,
            timeout=_TIMEOUT_S,
        )
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"]
            raise ArtifactError(
                f"savedmodel: TensorFlow ended with exit code {done.returncode} ({said[-1][:300]}): "
                "a working TensorFlow is needed"
            )
        paths = sorted(p for p in place.rglob("*") if p.is_file() and p.name not in _RANDOM)
        paths.sort(key=lambda path: path.name != "saved_model.pb")
        return {path.relative_to(scratch).as_posix(): path.read_bytes() for path in paths}
