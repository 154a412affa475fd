"""The runtimes: one entry here and one folder each, so that nothing else has to know them by name.

A folder holds, imported when asked for:

    run.py     Runner (files run, one at a time), read_values, settings, version; oldest, where files say
               which version of the runtime they need
    audit.py   audit, placement: what is executed, what the runtime takes over
    times.py   times: the milliseconds of each part of a file

A runtime that is handed whole directories has no Runner and no other file than run.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class FileKind:
    """A kind of model file.

    suffix: of the file that is loaded. weights: suffix of the file beside it. magic: (place, bytes) by which
    content without a name is known, white space in front of it aside.
    """

    name: str
    suffix: str
    magic: tuple[int, bytes]
    weights: str = ""


@dataclass(frozen=True)
class Runtime:
    """What runs a kind of file on this machine.

    files: None for one that opens directories.
    folder: where its code is, under edgekit.runtimes; another's for a runtime that is not on this machine.
    host: whether its files are timed here and compared with others'; a hand-over is not, nor what another
        machine compiles and places.
    audits: whether what it executes can be read.
    as_written: whether it executes the operators of the file as they are written, so that each is held
        against its own formula; others are asked for values, since they fuse.
    delegate: whether it hands parts of a file to a delegate; others run it in one piece.
    second: the runtime that gives a second opinion on its files.
    """

    name: str
    files: FileKind | None
    folder: str = ""
    host: bool = True
    audits: bool = True
    as_written: bool = False
    delegate: bool = False
    second: str = ""

    def part(self, name: str) -> Any:
        """A module of its folder."""
        return import_module(f"edgekit.runtimes.{self.folder or self.name}.{name}")

    def version(self) -> str:
        """Name and version of what runs here. Raises: UsageError with the line that installs it."""
        return self.part("run").version()

    def settings(self, threads: int = 1) -> dict[str, Any]:
        """What it is told besides the file."""
        return self.part("run").settings(threads)


_TFLITE = FileKind("tflite", ".tflite", (4, b"TFL3"))
_ONNX = FileKind("onnx", ".onnx", (0, b"\x08"))

RUNTIMES: dict[str, Runtime] = {
    runtime.name: runtime
    for runtime in (
        Runtime("litert", _TFLITE, as_written=True, delegate=True, second="tensorflow"),
        Runtime("onnxruntime", _ONNX),
        Runtime("openvino", FileKind("openvino", ".xml", (0, b"<"), weights=".bin")),
        Runtime("tensorrt", _ONNX, folder="onnxruntime", host=False),  # places operators on its GPU
        Runtime("tensorflow", None, host=False, audits=False),  # answers for a hand-over
    )
}


def opening(kind: str) -> Runtime:
    """The runtime of this machine that opens a kind of file, by the kind's name."""
    return next(r for r in RUNTIMES.values() if r.host and r.files is not None and r.files.name == kind)


def kinds() -> tuple[FileKind, ...]:
    """Every kind of file that a runtime opens."""
    return tuple(dict.fromkeys(r.files for r in RUNTIMES.values() if r.files is not None))
