"""ONNX Runtime on this machine, CPU: open a .onnx file, run images through it, read its tensors.

Threads do not spin between runs: several runtimes share one process in a latency measurement, and a pool that
burns a core while it waits slows the others down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from edgekit.errors import ArtifactError, UsageError
from edgekit.lower.onnx.reader import OnnxModel, read_model, with_outputs
from edgekit.runtimes.sources import ModelFile, Slot

_INTEGERS = ("int8", "uint8", "int16", "uint16")
_ERRORS_ONLY = 3


class Grid(NamedTuple):
    """The numbers an integer tensor stands for: scale * (integer - zero_point)."""

    scale: float
    zero_point: int

    def real(self, stored: np.ndarray) -> np.ndarray:
        return (stored.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)

    def stored(self, real: np.ndarray, dtype: str) -> np.ndarray:
        limits = np.iinfo(dtype)
        codes = np.rint(real / np.float32(self.scale)) + self.zero_point
        return np.clip(codes, limits.min, limits.max).astype(dtype)


def settings(threads: int = 1) -> dict[str, Any]:
    """What the runtime is told besides the file."""
    return {
        "providers": ["CPUExecutionProvider"],
        "graph_optimization": "all",
        "intra_op_threads": threads,
        "allow_spinning": False,
    }


def open_session(data: bytes, where: str, threads: int = 1, **options: Any) -> Any:
    """A session over a model that `read_model` accepted.

    Args:
        options: attributes of SessionOptions, as they are.
    Raises: ArtifactError when the runtime refuses the file, UsageError when it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UsageError(f"{where}: ONNX Runtime is not installed: pip install onnxruntime") from error
    asked = settings(threads)
    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = asked["intra_op_threads"]
    chosen.inter_op_num_threads = 1
    chosen.log_severity_level = _ERRORS_ONLY
    chosen.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    chosen.add_session_config_entry("session.intra_op.allow_spinning", str(int(asked["allow_spinning"])))
    for name, value in options.items():
        setattr(chosen, name, value)
    try:
        return onnxruntime.InferenceSession(data, chosen, providers=asked["providers"])
    except Exception as error:  # its classes share no base of their own
        reason = " ".join(str(error).split())[:300]
        raise ArtifactError(
            f"{where}: ONNX Runtime refuses it ({reason}): a file this runtime can run"
        ) from error


class Runner:
    """One session that images go through; arrays are float, in the file's order and layout."""

    def __init__(self, file: ModelFile, threads: int = 1) -> None:
        model = read_model(file.data, where=file.where)
        self.inputs = [Slot(t.name, tuple(t.shape)) for t in model.inputs]
        self.outputs = [Slot(t.name, tuple(t.shape)) for t in model.outputs]
        self.dtypes = [t.dtype for t in model.inputs]
        held = [*model.inputs, *model.outputs]
        self.grids = {t.name: grid_of(model, t.name) for t in held if t.dtype in _INTEGERS}
        self.session = open_session(file.data, file.where, threads)

    def raw(self, arrays: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The input tensors as the model takes them, the outputs as it gives them."""
        taken = self.feed(arrays)
        return list(taken.values()), self.session.run(None, taken)

    def real(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs as float32, dequantized by the file's own scales; plain integers stay what they are."""
        given = self.session.run(None, self.feed(arrays))
        return [self._real(slot.name, array) for slot, array in zip(self.outputs, given, strict=True)]

    def _real(self, name: str, array: np.ndarray) -> np.ndarray:
        if name in self.grids:
            return self.grids[name].real(array)
        return array.astype(np.float32) if array.dtype.kind == "f" else array

    def feed(self, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """The session's inputs by name."""
        taken = {}
        for slot, dtype, array in zip(self.inputs, self.dtypes, arrays, strict=True):
            grid = self.grids.get(slot.name)
            taken[slot.name] = grid.stored(array, dtype) if grid is not None else array.astype(dtype)
        return taken


def grid_of(model: OnnxModel, name: str) -> Grid:
    """Scale and zero point of an integer tensor, from the conversion that writes or reads it.

    An image may be given a fourth channel before it is converted.
    """
    producer, readers = model.producers().get(name), model.readers()
    beside = [producer] if producer is not None and producer.op == "QuantizeLinear" else []
    near = readers.get(name, [])
    near = [*near, *(node for pad in near if pad.op == "Pad" for node in readers.get(pad.outputs[0], []))]
    for node in [*beside, *(node for node in near if node.op == "DequantizeLinear")]:
        scale, *rest = (model.constants[i].data for i in node.inputs[1:] if i in model.constants)
        if scale is not None and scale.size == 1:
            zero_point = int(rest[0].reshape(-1)[0]) if rest and rest[0] is not None else 0
            return Grid(float(scale.reshape(-1)[0]), zero_point)
    raise ArtifactError(f"tensor {name!r}: integers without a scale: a conversion beside it is needed")


def read_values(
    file: ModelFile, names: Sequence[str], rows: Iterable[Sequence[np.ndarray]]
) -> dict[str, np.ndarray]:
    """Inner tensors by name over rows of inputs: float32 (N, *the tensor's shape in the file), dequantized.

    A float tensor that the file quantizes is read as the integers behind its QuantizeLinear: asking for the
    float itself would take the operator apart that the runtime fuses. An input is what it is given.
    """
    model = read_model(file.data, where=file.where)
    asked = _held_as(model, names)
    taken = {tensor.name for tensor in model.inputs}
    wanted = [held for held, _ in asked.values() if held not in taken]
    probe = ModelFile(file.kind, with_outputs(file.data, wanted), b"", file.where)
    runner = Runner(file)
    session = open_session(probe.data, file.where)
    found: dict[str, list[np.ndarray]] = {name: [] for name in asked}
    for arrays in rows:
        given = runner.feed(arrays)
        held_now = (
            {**given, **dict(zip(wanted, session.run(wanted, given), strict=True))} if wanted else given
        )
        for name, (held, grid) in asked.items():
            array = held_now[held]
            if grid is None and array.dtype.name in _INTEGERS:
                grid = grid_of(model, held)
            found[name].append(grid.real(array) if grid else array.astype(np.float32))
    return {name: np.stack(values) for name, values in found.items()}


def _held_as(model: OnnxModel, names: Sequence[str]) -> Mapping[str, tuple[str, Grid | None]]:
    """For each name, the tensor to read and its grid (None: read as it is)."""
    producers, readers = model.producers(), model.readers()
    found: dict[str, tuple[str, Grid | None]] = {}
    for name in names:
        producer = producers.get(name)
        held: str | None = None
        if producer is not None and producer.op == "QuantizeLinear":
            held = name
        elif producer is not None and producer.op == "DequantizeLinear":
            held = producer.inputs[0]
        else:
            held = next((n.outputs[0] for n in readers.get(name, []) if n.op == "QuantizeLinear"), None)
        found[name] = (name, None) if held is None else (held, grid_of(model, held))
    return found


def version() -> str:
    from importlib.metadata import version

    return f"onnxruntime {version('onnxruntime')}"
