"""LiteRT on this machine: open a .tflite file safely, run images through it, read its tensors.

A file is parsed by our own checked reader before native code sees it, so a damaged file is an ArtifactError
and not a dead interpreter.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from edgekit.errors import ArtifactError
from edgekit.lower.tflite.expose import with_outputs
from edgekit.lower.tflite.oldest_runtime import oldest_runtime
from edgekit.lower.tflite.reader import read_model
from edgekit.runtimes.sources import ModelFile, Slot, Source, open_source

_INTEGERS = {np.dtype(np.int8), np.dtype(np.uint8), np.dtype(np.int16), np.dtype(np.int32)}
_STDERR = threading.Lock()


@contextlib.contextmanager
def _without_runtime_chatter() -> Iterator[None]:
    """Swallow the runtime's native 'INFO:' lines on file descriptor 2; everything else is passed on."""
    with _STDERR, tempfile.TemporaryFile() as sink:
        sys.stderr.flush()
        saved = os.dup(2)
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            sink.seek(0)
            rest = [line for line in sink.read().splitlines(keepends=True) if not line.startswith(b"INFO: ")]
            os.write(saved, b"".join(rest))
            os.close(saved)


def open_interpreter(
    source: Source | ModelFile, *, threads: int = 1, delegate: bool = True, **options: Any
) -> Any:
    """A LiteRT interpreter with its tensors allocated.

    Args:
        source: path or bytes of a .tflite file; parsed and checked first.
        delegate: False runs LiteRT's own kernels instead of XNNPACK.
        options: LiteRT's experimental_* switches, as they are.
    Raises: ArtifactError when the file is damaged or the runtime refuses it.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    file = open_source(source)
    read_model(file.data, file.where)
    resolver = OpResolverType.AUTO if delegate else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        with _without_runtime_chatter(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            interpreter = Interpreter(
                model_content=file.data,
                num_threads=threads,
                experimental_op_resolver_type=resolver,
                **options,
            )
            interpreter.allocate_tensors()
            interpreter.get_input_details()  # raises on names it cannot decode
            interpreter.get_output_details()
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ArtifactError(
            f"{file.where}: LiteRT refuses it ({reason}): a file this runtime can run"
        ) from error
    return interpreter


def quantize_to(values: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    """Float32 values in the tensor's own type: its scale and zero point, round half to even, saturating."""
    kind = np.dtype(detail["dtype"])
    if kind not in _INTEGERS:
        return values.astype(kind)
    scale, zero_point = detail["quantization"]
    if not scale:
        raise ArtifactError(f"tensor {detail['name']!r}: {kind} without a scale: one scale is needed")
    limits = np.iinfo(kind)
    integers = np.rint(values * np.float32(1.0 / np.float32(scale))) + zero_point
    return np.clip(integers, limits.min, limits.max).astype(kind)


def dequantize_from(values: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    """The real values a tensor's integers stand for, float32."""
    scale, zero_point = detail["quantization"]
    if values.dtype.kind in "iub" and not scale:
        return values
    if values.dtype not in _INTEGERS:
        return values.astype(np.float32)
    return (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


def infer(interpreter: Any, arrays: Sequence[np.ndarray]) -> None:
    """Run one float array an input, in the file's order and layout, quantized as the file wants."""
    for taken, array in zip(interpreter.get_input_details(), arrays, strict=True):
        interpreter.set_tensor(taken["index"], quantize_to(array, taken))
    try:
        interpreter.invoke()
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ArtifactError(f"LiteRT cannot run the file ({reason}): a complete model is needed") from error


class Runner:
    """One interpreter that images go through; arrays are float, in the file's order and layout."""

    def __init__(self, file: ModelFile, threads: int = 1) -> None:
        self.interpreter = open_interpreter(file, threads=threads)
        self.inputs, self.outputs = slots(self.interpreter)

    def raw(self, arrays: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The input tensors as the model takes them, the outputs as it gives them."""
        infer(self.interpreter, arrays)
        taken, given = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        read = self.interpreter.get_tensor
        return [read(detail["index"]) for detail in taken], [read(detail["index"]) for detail in given]

    def real(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs as float32, dequantized by the file's own scales; numbers without one stay integers."""
        infer(self.interpreter, arrays)
        return [
            dequantize_from(self.interpreter.get_tensor(detail["index"]), detail)
            for detail in self.interpreter.get_output_details()
        ]


def slots(interpreter: Any) -> tuple[list[Slot], list[Slot]]:
    """Names and shapes of the file's inputs and outputs, in its order."""

    def read(details: list[dict[str, Any]]) -> list[Slot]:
        return [Slot(d["name"], tuple(int(size) for size in d["shape"])) for d in details]

    return read(interpreter.get_input_details()), read(interpreter.get_output_details())


def settings(threads: int = 1) -> dict[str, Any]:
    """What the runtime is told besides the file."""
    return {"delegate": "XNNPACK", "threads": threads}


def read_values(
    file: ModelFile, names: Sequence[str], rows: Iterable[Sequence[np.ndarray]]
) -> dict[str, np.ndarray]:
    """Inner tensors by name over rows of inputs: float32 (N, *the tensor's shape in the file)."""
    read_model(file.data, file.where)
    interpreter = open_interpreter(with_outputs(file.data, names))
    details = {detail["name"]: detail for detail in interpreter.get_output_details()}
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for arrays in rows:
        infer(interpreter, arrays)
        for name, values in found.items():
            values.append(dequantize_from(interpreter.get_tensor(details[name]["index"]), details[name]))
    return {name: np.stack(values) for name, values in found.items()}


def oldest(file: ModelFile) -> str:
    """The oldest TensorFlow Lite runtime that runs a file right."""
    return oldest_runtime(read_model(file.data, file.where))


def version() -> str:
    from importlib.metadata import version

    return f"ai-edge-litert {version('ai-edge-litert')}"
