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
from edgekit.runtimes.registry import FileKind, kinds

Source = str | os.PathLike[str] | bytes | Mapping[str, bytes]


@dataclass(frozen=True)
class ModelFile:
    """kind: name of a FileKind. weights: what lies in a file beside it, empty where the kind has none."""

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
        kind = _named(self.kind)
        files = {f"model{kind.suffix}": self.data}
        return files | ({f"model{kind.weights}": self.weights} if kind.weights else {})


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
        return ModelFile(kind.name, data, b"", f"the {kind.suffix} bytes")
    if isinstance(source, Mapping):
        return _from_files(source)
    path = Path(source)
    data = _read(path)
    kind = _by_suffix(path) or _sniffed(data)
    weights = _read(path.with_suffix(kind.weights)) if kind.weights else b""
    return ModelFile(kind.name, data, weights, str(source))


def kind_of(source: Source | ModelFile) -> str:
    """The kind of a model file, by its name where it has one."""
    if isinstance(source, str | os.PathLike) and (kind := _by_suffix(Path(source))):
        return kind.name
    return open_source(source).kind


def _from_files(files: Mapping[str, bytes]) -> ModelFile:
    for name, data in files.items():
        kind = _by_suffix(Path(name))
        if kind is not None:
            beside = str(Path(name).with_suffix(kind.weights)) if kind.weights else ""
            return ModelFile(kind.name, bytes(data), bytes(files.get(beside, b"")), name)
    *most, last = (f"model{kind.suffix}" for kind in kinds())
    raise ArtifactError(f"files {', '.join(files) or 'none'}: one {', '.join(most)} or {last}")


def _named(name: str) -> FileKind:
    return next(kind for kind in kinds() if kind.name == name)


def _by_suffix(path: Path) -> FileKind | None:
    return next((kind for kind in kinds() if kind.suffix == path.suffix.lower()), None)


def _sniffed(data: bytes) -> FileKind:
    """By content; what looks like nothing is left to the first reader, whose message says what it lacks."""
    for kind in kinds():
        place, magic = kind.magic
        if data[place : place + len(magic)] == magic or (place == 0 and data.lstrip().startswith(magic)):
            return kind
    return kinds()[0]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        known = ", ".join(kind.suffix for kind in kinds())
        raise ArtifactError(f"{path}: cannot be read ({reason}): a model file ({known})") from error
