"""One face over the runtimes of this machine, chosen by the kind of file.

    .tflite      LiteRT with XNNPACK     litert/run.py
    .onnx        ONNX Runtime, CPU       onnxruntime/run.py
    .xml + .bin  OpenVINO, CPU           openvino/run.py

Enters: a model file (path, bytes or a lowering's files) and float inputs. Leaves: every output, in the layout
of the graph the file was lowered from where its `Ports` are given. A damaged file is
an ArtifactError, a runtime that is not installed a UsageError with the line that installs it. Runtimes are
imported when a file asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from edgekit.errors import ArtifactError
from edgekit.lower.ports import NHWC, Port, Ports
from edgekit.runtimes.layout import to_file, to_graph
from edgekit.runtimes.registry import opening
from edgekit.runtimes.sources import ModelFile, Slot, Source, kind_of, open_source

Inputs = np.ndarray | Sequence[np.ndarray]


class OpenModel:
    """A file that is opened once for images that come in batches.

    Args:
        ports, threads, workers: as for `run_model`.
    """

    def __init__(
        self, source: Source | ModelFile, ports: Ports | None = None, *, threads: int = 1, workers: int = 1
    ) -> None:
        self._file = open_source(source)
        self._ports, self._threads, self._workers = ports, threads, workers
        self._runners: list[Any] = []

    def __call__(self, inputs: Inputs, progress: Callable[[int], None] | None = None) -> list[np.ndarray]:
        """Every output for some images; see `run_model`."""
        arrays = as_inputs(inputs)
        count = len(arrays[0])
        workers = 1 if count < 2 * self._workers else max(1, self._workers)

        def share(k: int) -> list[list[np.ndarray]]:
            runner = self._runners[k]
            rows = []
            for i in range(count * k // workers, count * (k + 1) // workers):
                given = runner.real(_taken(runner.inputs, arrays, i, self._ports))
                rows.append(_given(runner.outputs, given, self._ports))
                if progress:
                    progress(1)
            return rows

        opened = _module(self._file.kind).Runner
        while len(self._runners) < workers:
            self._runners.append(opened(self._file, self._threads))
        if workers == 1:
            rows = share(0)
        else:
            with ThreadPoolExecutor(workers) as pool:
                rows = [row for part in pool.map(share, range(workers)) for row in part]
        return [np.stack(column) for column in zip(*rows, strict=True)]


def run_model(
    source: Source | ModelFile,
    inputs: Inputs,
    ports: Ports | None = None,
    *,
    threads: int = 1,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> list[np.ndarray]:
    """Every output of a file over many images.

    Args:
        inputs: one array an input, (N, ...), as the float model takes them; one array for one input.
        ports: what the lowering knows of the file. Without it inputs go in the file's order, a picture in
            whichever layout the file takes, and outputs come as the file holds them.
        threads: of each session. workers: sessions that run side by side, each on its share.
        progress: called with the number of images done since the last call, from the workers' threads.
    Returns: one array an output, in the graph's order and layout: (N, *what belongs to one image), float32 by
        the file's own output scale, or integers where the output is made of integers.
    """
    return OpenModel(source, ports, threads=threads, workers=workers)(inputs, progress)


def run_vector(
    source: Source | ModelFile, inputs: Sequence[np.ndarray], ports: Ports | None = None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """One image through the file: the input tensors as the model takes them, the outputs as it gives them.

    Args:
        inputs: float32, one array an input without its batch, as the float model takes them.
    """
    file = open_source(source)
    runner = _module(file.kind).Runner(file)
    arrays = [np.asarray(x, np.float32)[None] for x in inputs]
    return runner.raw(_taken(runner.inputs, arrays, 0, ports))


def read_values(
    source: Source | ModelFile, names: Sequence[str], inputs: Inputs, ports: Ports | None = None
) -> dict[str, np.ndarray]:
    """Inner tensors of a file, by the names they have in it.

    Args:
        names: tensors that some operator of the file writes (`Lowered.tensors` has them per graph value).
        inputs, ports: as for `run_model`.
    Returns: name -> float32 (N, *the tensor's shape in the file), dequantized. The tensors become further
        outputs of a copy of the file.
    """
    file = open_source(source)
    arrays = as_inputs(inputs)
    slots = _module(file.kind).Runner(file).inputs
    rows = (_taken(slots, arrays, i, ports) for i in range(len(arrays[0])))
    return _module(file.kind).read_values(file, list(names), rows)


def as_inputs(inputs: Inputs) -> list[np.ndarray]:
    """One float32 array an input, all of one length."""
    arrays = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
    arrays = [np.asarray(array, np.float32) for array in arrays]
    if not arrays or any(array.ndim < 1 or len(array) != len(arrays[0]) for array in arrays):
        told = ", ".join(str(array.shape) for array in arrays) or "none"
        raise ArtifactError(f"inputs of shapes {told} were given: one array an input, (N, ...) with one N")
    return arrays


def laid_out(slots: Sequence[Slot], arrays: Sequence[np.ndarray], ports: Ports | None) -> list[np.ndarray]:
    """One image's arrays (1, ...), in the graph's order and layout, as the file takes them."""
    if len(arrays) != len(slots):
        raise ArtifactError(f"inputs: {len(arrays)} were given: the file takes {len(slots)}")
    found = []
    for i, slot in enumerate(slots):
        if ports is None:
            found.append(_fitted(arrays[i], slot))
            continue
        k, port = _port(ports.inputs, slot)
        array = arrays[k]
        if array.ndim != len(port.layout):
            raise _misfit(array, slot)
        found.append(_checked(to_file(array, port.layout), slot, array))
    return found


def _taken(
    slots: Sequence[Slot], arrays: Sequence[np.ndarray], i: int, ports: Ports | None
) -> list[np.ndarray]:
    return laid_out(slots, [array[i : i + 1] for array in arrays], ports)


def _given(slots: Sequence[Slot], arrays: Sequence[np.ndarray], ports: Ports | None) -> list[np.ndarray]:
    """The file's outputs for one image as the graph's, each without its batch of 1."""
    if ports is None:
        return [array[0] if array.shape[:1] == (1,) else array for array in arrays]
    places = {name: i for i, slot in enumerate(slots) for name in (slot.name, *slot.aliases)}
    found = []
    for port in ports.outputs:
        if port.name not in places:
            raise ArtifactError(f"the file has no output {port.name!r}: {', '.join(s.name for s in slots)}")
        array = to_graph(arrays[places[port.name]], port.layout, port.shape).reshape(port.row)
        found.append(array.astype(port.dtype) if port.dtype.startswith(("int", "uint")) else array)
    return found


def _port(ports: Sequence[Port], slot: Slot) -> tuple[int, Port]:
    for k, port in enumerate(ports):
        if port.name in (slot.name, *slot.aliases):
            return k, port
    known = ", ".join(port.name for port in ports)
    raise ArtifactError(f"the file's input {slot.name!r} is none of the graph's: {known}")


def _fitted(array: np.ndarray, slot: Slot) -> np.ndarray:
    """An input of a file whose lowering is not known: channels last where only that is what it takes."""
    if array.ndim == 4 and _fits(to_file(array, NHWC).shape, slot.shape):
        return to_file(array, NHWC)
    return _checked(array, slot, array)


def _checked(stored: np.ndarray, slot: Slot, array: np.ndarray) -> np.ndarray:
    if not _fits(stored.shape, slot.shape):
        raise _misfit(array, slot)
    return stored


def _misfit(array: np.ndarray, slot: Slot) -> ArtifactError:
    return ArtifactError(f"input: an image of shape {array.shape[1:]} was given: the file takes {slot.shape}")


def _fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    return len(shape) == len(wanted) and all(w in (-1, n) for n, w in zip(shape, wanted, strict=True))


def runtime_version(kind: str = "tflite") -> str:
    """Name and version of the runtime for a kind of file."""
    return _module(kind).version()


def settings(kind: str, threads: int = 1) -> dict[str, Any]:
    """What a runtime is told besides the file, as it stands in a report."""
    return _module(kind).settings(threads)


def min_runtime_version(source: Source | ModelFile) -> str | None:
    """The oldest runtime that runs a file right, where files say what they need; None elsewhere."""
    file = open_source(source)
    oldest = getattr(_module(file.kind), "oldest", None)
    return oldest(file) if oldest is not None else None


def _module(kind: str) -> Any:
    return opening(kind).part("run")


__all__ = [
    "Inputs",
    "ModelFile",
    "OpenModel",
    "Source",
    "as_inputs",
    "kind_of",
    "laid_out",
    "open_source",
    "read_values",
    "run_model",
    "run_vector",
    "runtime_version",
    "settings",
]
