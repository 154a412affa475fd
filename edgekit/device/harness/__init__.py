"""What measures on a board: a task in, figures of every file out; one Harness a runtime or vendor tool.

Our own script (script.py, runner.py) gives raw nanoseconds and outputs; the tools of others give summaries.
"""

from __future__ import annotations

import hashlib
import inspect
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

from edgekit.device.inventory import Device
from edgekit.device.profiles import Profile
from edgekit.device.transport import Completed, Transport
from edgekit.errors import ArtifactError, DeviceJobError

SEED = 0
_Asked = TypeVar("_Asked")


@dataclass(frozen=True)
class Board:
    """A connected board and what the inventory says about it."""

    transport: Transport
    device: Device

    @property
    def python(self) -> str:
        if self.device.python:
            return self.device.python
        return sys.executable if self.device.local else "python3"

    def tool(self, name: str) -> str:
        """Where a tool lies on the board: the inventory's path, or its name for PATH to find."""
        return self.device.tools.get(name, name)

    def push(self, model: Path) -> str:
        """A model's path on the board, with the weights of an OpenVINO file beside it."""
        stem = model_sha256(model)[:16]
        places = [self.transport.push(part, stem + part.suffix) for part in model_files(model)]
        return places[0]

    def run(self, argv: Sequence[str], timeout: float | None = None) -> Completed:
        """Run a command with the inventory's environment, for at most its wall time."""
        given = [f"{name}={value}" for name, value in self.device.env.items()]
        words = ["env", *given, *argv] if given else list(argv)
        return self.transport.run(words, timeout=timeout or self.device.limits.wall_time_s)


@dataclass(frozen=True)
class Runtime:
    """What a harness found on the board."""

    name: str
    version: str
    python: str | None = None


@dataclass(frozen=True)
class Task:
    """files: name -> path on the board; delegate: what must run the model; starts: keep when each began.

    process: which of the profile's processes this is; each takes the files in an order of its own.
    """

    files: Mapping[str, str]
    profile: Profile
    threads: int = 1
    delegate: str = "none"
    starts: bool = False
    process: int = 0


@dataclass
class FileRun:
    """One file in one fresh process.

    preempted: samples that were dropped since the system gave the processor to others meanwhile, None where
    it does not tell. undisturbed: False where too few others were left, so that samples_ns holds those too.

    samples_ns is None for tools that only give `summary_ms` (p50, p90, p95, p99, mean as far as they do).
    partitions is None where the runtime does not tell.
    """

    init_ns: int | None = None
    first_ns: int | None = None
    samples_ns: list[int] | None = None
    starts_ns: list[int] | None = None
    began_at_s: float | None = None
    summary_ms: dict[str, float] = field(default_factory=dict)
    count: int = 0
    preempted: int | None = None
    undisturbed: bool = True
    partitions: int | None = None
    delegate: str = "none"
    memory_bytes: int | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Memory:
    peak_bytes: int | None
    method: str


@dataclass(frozen=True)
class Outputs:
    """arrays: an .npz on this machine with "0", "1", ... (N, ...); sha256 over them as the board had them.

    delegate and partitions are what ran, as in FileRun.
    """

    arrays: Path
    sha256: str
    count: int
    delegate: str
    partitions: int | None


class Harness:
    """One way to measure. A subclass sets name, formats and delegates (the first is its default)."""

    name: str
    formats: tuple[str, ...]
    delegates: tuple[str, ...]

    @property
    def version(self) -> str:
        """A hash of what measures: figures of two versions are not to be compared."""
        digest = hashlib.sha256((files("edgekit.device.harness") / "runner.py").read_bytes())
        digest.update(Path(inspect.getfile(type(self))).read_bytes())
        return digest.hexdigest()[:16]

    def check(self, board: Board, delegate: str | None = None) -> Runtime:
        """What is installed. Raises: DeviceJobError saying what is missing; InvalidMeasurementError when the
        runtime is there and `delegate` is not."""
        raise NotImplementedError

    def measure(self, board: Board, task: Task) -> dict[str, FileRun]:
        """One fresh process. Raises: DeviceJobError; InvalidMeasurementError without the delegate."""
        raise NotImplementedError

    def memory(self, board: Board, path: str, task: Task) -> Memory | None:
        """Peak memory of one file, None where the tool tells it with its figures or not at all."""
        return None

    def outputs(self, board: Board, path: str, inputs: Path, task: Task, into: Path) -> Outputs | None:
        """Inputs through the file on the board, or None for a tool that keeps its outputs to itself."""
        return None


def load_order(files: Mapping[str, _Asked], process: int) -> dict[str, _Asked]:
    """Files as a process loads them: forwards in every other one, backwards in those between.

    What is loaded later lies better in memory: the same OpenVINO file, loaded twice, ran up to 4 % faster as
    the fifth than as the first.
    """
    return dict(list(files.items())[:: -1 if process % 2 else 1])


def model_files(path: Path) -> list[Path]:
    """What makes the model: an OpenVINO .xml has its weights in a .bin of the same stem.

    Raises: ArtifactError for a file that is not there.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: there is no such file: a model file")
    if path.suffix != ".xml":
        return [path]
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise ArtifactError(f"{path}: {weights.name} is missing: the .xml with its .bin beside it")
    return [path, weights]


def model_sha256(path: Path) -> str:
    """sha256 over the bytes of all its files, as `cat model.xml model.bin | sha256sum` gives it."""
    digest = hashlib.sha256()
    for part in model_files(path):
        digest.update(part.read_bytes())
    return digest.hexdigest()


def failed(board: Board, done: Completed, accepted: str) -> DeviceJobError:
    """The error for a command that ended badly; its last line says why."""
    lines = (done.err.strip() or done.out.strip() or "no message").splitlines()
    return DeviceJobError(
        f"{board.device.id}: {shlex.split(done.command)[0]} ended with {done.exit_code} ({lines[-1][:300]}): "
        f"{accepted}",
        device=board.device.id,
        command=done.command,
        exit_code=done.exit_code,
        stderr=done.err,
    )
