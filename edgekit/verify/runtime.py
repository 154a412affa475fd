"""LiteRT on this machine: open a file safely, run images through it, read its tensors.

The only place where a proof touches the host runtime in-process. A file is parsed by our own checked reader
before native code sees it, so a damaged file is an ArtifactError and not a dead interpreter.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from edgekit.errors import ArtifactError
from edgekit.lower.tflite.reader import read_bytes, read_model

Source = str | os.PathLike[str] | bytes
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


def open_interpreter(source: Source, *, threads: int = 1, delegate: bool = True, **options: Any) -> Any:
    """A LiteRT interpreter with its tensors allocated.

    Args:
        source: path or bytes of a .tflite file; parsed and checked first.
        delegate: False runs LiteRT's own kernels instead of XNNPACK.
        options: LiteRT's experimental_* switches, as they are.
    Raises: ArtifactError when the file is damaged or the runtime refuses it.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    data, where = read_bytes(source)
    read_model(data if where.startswith("the ") else where)
    resolver = OpResolverType.AUTO if delegate else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        with _without_runtime_chatter(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            interpreter = Interpreter(
                model_content=data,
                num_threads=threads,
                experimental_op_resolver_type=resolver,
                **options,
            )
            interpreter.allocate_tensors()
            interpreter.get_input_details()  # raises on names it cannot decode
            interpreter.get_output_details()
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ArtifactError(f"{where}: LiteRT refuses it ({reason}): a file this runtime can run") from error
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
    if values.dtype not in _INTEGERS or not scale:
        return values.astype(np.float32)
    return (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


def to_layout(item: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """One input without its batch dimension as the file takes it: an image (C, H, W) as (1, H, W, C)."""
    wanted = tuple(int(size) for size in shape)
    if item.ndim == 3 and wanted == (1, *item.shape[1:], item.shape[0]):
        return np.ascontiguousarray(item.transpose(1, 2, 0)[None])
    if wanted == (1, *item.shape):
        return item[None]
    raise ArtifactError(f"input: an image of shape {item.shape} was given: the file takes {wanted}")


def infer(interpreter: Any, image: np.ndarray) -> None:
    """Run one float input (C, H, W), quantized and laid out as the file wants, through an interpreter."""
    details = interpreter.get_input_details()
    if len(details) != 1:
        raise ArtifactError(f"the file takes {len(details)} inputs: one image input is needed")
    taken = details[0]
    interpreter.set_tensor(taken["index"], quantize_to(to_layout(image, taken["shape"]), taken))
    try:
        interpreter.invoke()
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ArtifactError(f"LiteRT cannot run the file ({reason}): a complete model is needed") from error


def run_tflite(
    source: Source,
    images: np.ndarray,
    *,
    threads: int = 1,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Logits of a classifier file over many images.

    Args:
        images: float32 (N, C, H, W), preprocessed as the float model takes them.
        threads: of each interpreter. workers: interpreters that run side by side, each on its share.
        progress: called with the number of images done since the last call, from the workers' threads.
    Returns: float32 (N, K), dequantized by the file's own output scale; the file's first output.
    """
    data, _ = read_bytes(source)
    images = np.asarray(images, np.float32)
    if images.ndim != 4:
        raise ArtifactError(f"images of shape {images.shape} were given: (N, C, H, W) is needed")

    def share(part: np.ndarray) -> list[np.ndarray]:
        interpreter = open_interpreter(data, threads=threads)
        given = interpreter.get_output_details()[0]
        rows = []
        for image in part:
            infer(interpreter, image)
            rows.append(dequantize_from(interpreter.get_tensor(given["index"]), given).reshape(-1))
            if progress:
                progress(1)
        return rows

    if workers <= 1 or len(images) < 2 * workers:
        rows = share(images)
    else:
        with ThreadPoolExecutor(workers) as pool:
            rows = [row for part in pool.map(share, np.array_split(images, workers)) for row in part]
    return np.stack(rows) if rows else np.zeros((0, 0), np.float32)


def run_vector(source: Source, image: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """One image through the file: the input tensors as the model takes them, the outputs as it gives them.

    Args:
        image: float32 (C, H, W), preprocessed as the float model takes it.
    """
    interpreter = open_interpreter(source)
    taken = interpreter.get_input_details()[0]
    x = quantize_to(to_layout(image, taken["shape"]), taken)
    interpreter.set_tensor(taken["index"], x)
    interpreter.invoke()
    return [x], [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]


def runtime_version() -> str:
    from importlib.metadata import version

    return f"ai-edge-litert {version('ai-edge-litert')}"
