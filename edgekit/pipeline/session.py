"""One build in progress: its store, its progress lines, and the record of what each stage took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from edgekit.pipeline import records
from edgekit.pipeline.code_hash import code_hash
from edgekit.pipeline.store import Store, key_of

T = TypeVar("T")
_RECORD = "record.json"


class Line(Protocol):
    """The progress line of one stage."""

    cached: bool

    def advance(self, done: int, total: int) -> None: ...


class Display(Protocol):
    """Where progress goes: the terminal, or nowhere."""

    def stage(self, name: str) -> AbstractContextManager[Line]: ...


class Silent:
    """A Display that shows nothing."""

    class _Line:
        cached = False

        def advance(self, done: int, total: int) -> None:
            pass

    @contextmanager
    def stage(self, name: str) -> Iterator[Line]:
        yield self._Line()


class Session:
    """Runs stages and remembers them.

    `stages` becomes report.json's list: name, seconds, cached, in the order they ran.
    """

    def __init__(self, store: Store, display: Display | None = None) -> None:
        self.store = store
        self.display = display or Silent()
        self.stages: list[dict[str, Any]] = []

    @contextmanager
    def step(self, name: str) -> Iterator[Line]:
        """A stage that is always done again."""
        began = time.perf_counter()
        with self.display.stage(name) as line:
            yield line
        seconds = round(time.perf_counter() - began, 3)
        self.stages.append({"name": name, "seconds": seconds, "cached": line.cached})

    def stage(
        self, name: str, key: dict[str, Any], make: Callable[[Path, Line], None], label: str = ""
    ) -> Path:
        """The directory of a stage's files: found in the store, or filled by `make`.

        Args:
            name: the stage's folder in the store; `label` is added to it on the progress line.
            key: JSON data, everything the result depends on besides the code
                that `make` can reach.
        """
        return self._kept(name, key, label, make, make)

    def resumable(
        self,
        name: str,
        key: dict[str, Any],
        make: Callable[[Path, Line, Path], None],
        code: Callable[..., Any],
        label: str = "",
    ) -> Path:
        """A stage that goes on where a killed build left it; see `stage`.

        Args:
            make: is given the stage's directory, its progress line, and a directory that outlives a killed
                build: what it leaves there is there again when the same key is made the next time.
            code: whose sources the result depends on, besides those of `make`.
        """

        key = {**key, "code": code_hash(code, self.store), "made by": code_hash(make, self.store)}
        with self._looked_up(name, key, label) as (digest, line, found):
            if found is not None:
                return found
            with self.store.work(name, digest) as work:
                there = self.store.find(name, digest)  # made by the build that held the directory
                return there or self.store.put(name, digest, lambda folder: make(folder, line, work))

    def record(
        self, name: str, key: dict[str, Any], kind: type[T], make: Callable[[Line], T], label: str = ""
    ) -> T:
        """A stage whose result is one record, a dataclass `kind`; see `stage` and records.py."""

        def write(directory: Path, line: Line) -> None:
            records.write(directory / _RECORD, make(line))

        key = {**key, "records": code_hash(records.read, self.store)}
        found: T = records.read(self._kept(name, key, label, write, make) / _RECORD, kind)
        return found

    def _kept(
        self,
        name: str,
        key: dict[str, Any],
        label: str,
        write: Callable[[Path, Line], None],
        code: Callable[..., Any],
    ) -> Path:
        key = {**key, "code": code_hash(code, self.store)}
        with self._looked_up(name, key, label) as (digest, line, found):
            return found or self.store.put(name, digest, lambda directory: write(directory, line))

    @contextmanager
    def _looked_up(
        self, name: str, key: dict[str, Any], label: str
    ) -> Iterator[tuple[str, Line, Path | None]]:
        """A stage's digest, its progress line, and what the store has of it."""
        with self.step(f"{name} {label}".strip()) as line:
            digest = key_of(stage=name, **key)
            found = self.store.find(name, digest)
            line.cached = found is not None
            yield digest, line, found
