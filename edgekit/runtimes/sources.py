"""Model files of every kind, opened: path, bytes or a lowering's files -> ModelFile.

A source is a path, the bytes of a .tflite or .onnx file, or a mapping of file names to bytes as a lowering
returns it ({"model.xml": ..., "model.bin": ...}). A path to an .xml takes the .bin beside it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from edgekit.errors import ArtifactError

Source = str | os.PathLike[str] | bytes | Mapping[str, bytes]
KINDS = ("tflite", "onnx", "openvino")
_SUFFIXES = {".tflite": "tflite", ".onnx": "onnx", ".xml": "openvino"}


@dataclass(frozen=True)
class ModelFile:
    """kind: one of KINDS. weights: the .bin of an OpenVINO file, empty for others."""

    kind: str
    data: bytes
    weights: bytes
    where: str

    @property
    def size_bytes(self) -> int:
        return len(self.data) + len(self.weights)

    @property
    def files(self) -> dict[str, bytes]:
        """The content under the names it is written by."""
        if self.kind == "openvino":
            return {"model.xml": self.data, "model.bin": self.weights}
        return {f"model.{self.kind}": self.data}


class Slot(NamedTuple):
    """An input or output as a file states it: its name, its shape with -1 for what is open, further names."""

    name: str
    shape: tuple[int, ...]
    aliases: tuple[str, ...] = ()


def open_source(source: Source | ModelFile) -> ModelFile:
    """Read a model's bytes and say of which kind they are; nothing is parsed.

    Raises: ArtifactError for a file that cannot be read, or of a kind that no runtime here opens.
    """
    if isinstance(source, ModelFile):
        return source
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
        kind = _sniffed(data)
        return ModelFile(kind, data, b"", f"the .{'xml' if kind == 'openvino' else kind} bytes")
    if isinstance(source, Mapping):
        return _from_files(source)
    path = Path(source)
    data = _read(path)
    kind = _SUFFIXES.get(path.suffix.lower()) or _sniffed(data)
    weights = _read(path.with_suffix(".bin")) if kind == "openvino" else b""
    return ModelFile(kind, data, weights, str(source))


def kind_of(source: Source | ModelFile) -> str:
    """The kind of a model file, by its name where it has one."""
    if isinstance(source, str | os.PathLike) and (kind := _SUFFIXES.get(Path(source).suffix.lower())):
        return kind
    return open_source(source).kind


def _from_files(files: Mapping[str, bytes]) -> ModelFile:
    for name, data in files.items():
        kind = _SUFFIXES.get(Path(name).suffix.lower())
        if kind is not None:
            stem = str(Path(name).with_suffix(".bin"))
            return ModelFile(kind, bytes(data), bytes(files.get(stem, b"")), name)
    raise ArtifactError(f"files {', '.join(files) or 'none'}: one model.tflite, model.onnx or model.xml")


def _sniffed(data: bytes) -> str:
    """By content; what looks like nothing is left to the TFLite reader, whose message says what it lacks."""
    if data[4:8] == b"TFL3":
        return "tflite"
    if data.lstrip()[:1] == b"<":
        return "openvino"
    return "onnx" if data[:1] == b"\x08" else "tflite"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        kinds = ", ".join(_SUFFIXES)
        raise ArtifactError(f"{path}: cannot be read ({reason}): a model file ({kinds})") from error
