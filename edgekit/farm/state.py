"""The journal of a run: journal.jsonl in the run's directory. Rows in, the rows of a killed run out.

The first line is the header (what was asked for), every further line a finished job, written in one piece and
synced. A line that a kill cut short is dropped when the journal is opened again. One client at a time: the
file is locked while it is open.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgekit.errors import ArtifactError, UsageError
from edgekit.files import storage_errors, write_atomic

NAME = "journal.jsonl"
VERSION = 1
VALID, INVALID, FAILED, UNREACHED, NOT_RUN = "valid", "INVALID", "failed", "unreached", "not run"
FINAL = (VALID, INVALID, FAILED)  # never measured again in the same run
Row = dict[str, Any]


class Journal:
    """An open journal: `header`, and `rows` by job id. A context manager."""

    def __init__(
        self, path: Path, descriptor: int, header: Mapping[str, Any], rows: Mapping[str, Row]
    ) -> None:
        self.path, self.header, self.rows = path, dict(header), dict(rows)
        self._descriptor = descriptor

    @property
    def directory(self) -> Path:
        return self.path.parent

    def append(self, row: Row) -> None:
        """Keep the row of a finished job; it is on disk when this returns."""
        line = json.dumps(row, sort_keys=True).encode() + b"\n"
        with storage_errors(self.path):
            os.write(self._descriptor, line)
            os.fsync(self._descriptor)
        self.rows[row["job"]] = row

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def create(directory: str | Path, header: Mapping[str, Any]) -> Journal:
    """A new journal; a finished one that is there makes way.

    Raises: UsageError when an unfinished run is there, or a client still works on it.
    """
    path = Path(directory) / NAME
    if path.exists():
        with resume(directory) as earlier:
            done, jobs = len(_final(earlier.rows)), len(earlier.header["jobs"])
            if done < jobs:
                raise UsageError(
                    f"{directory}: a run with {done} of {jobs} jobs measured: --resume to go on, "
                    f"or another --out"
                )
    write_atomic(path, json.dumps({"version": VERSION, **header}, sort_keys=True) + "\n")
    return resume(directory)


def resume(directory: str | Path) -> Journal:
    """The journal of an earlier run. Raises: UsageError without one or while a client holds it."""
    path = Path(directory) / NAME
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    except FileNotFoundError:
        raise UsageError(f"{directory}: no run to resume: the --out of an earlier run") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be opened ({error.strerror}): a directory of yours") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{directory}: a client works on this run: wait for it, or another --out"
            ) from None
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):  # a kill cut the last line short
            os.ftruncate(descriptor, whole)
        header, rows = _parse(path, data[:whole])
    except BaseException:
        os.close(descriptor)
        raise
    return Journal(path, descriptor, header, rows)


def read(directory: str | Path) -> tuple[dict[str, Any], dict[str, Row]]:
    """Header and rows of a journal that someone else may be writing."""
    path = Path(directory) / NAME
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}): the --out of a farm run") from None
    return _parse(path, data[: data.rfind(b"\n") + 1])


def overlaps(rows: Iterable[Row]) -> list[str]:
    """Pairs of jobs that one board ran at the same time, from their records: empty is what must be.

    Times of one machine share its monotonic clock; those of two machines are not compared.
    """
    of_board: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.get("start_ns") is not None:
            of_board[row["device"], row["boot"]].append(row)
    found = []
    for (device, _), runs in of_board.items():
        runs.sort(key=lambda row: row["start_ns"])
        for before, after in pairwise(runs):
            if after["start_ns"] < before["end_ns"]:
                found.append(f"{device}: {before['job']} and {after['job']}")
    return found


def _final(rows: Mapping[str, Row]) -> list[Row]:
    return [row for row in rows.values() if row["status"] in FINAL]


def _parse(path: Path, data: bytes) -> tuple[dict[str, Any], dict[str, Row]]:
    try:
        header, *rows = [json.loads(line) for line in data.splitlines()]
        if header["version"] != VERSION:
            raise ArtifactError(f"{path}: version {header['version']}: {VERSION}, of this edgekit")
        return header, {row["job"]: row for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path}: damaged ({error}): a journal of edgekit farm, or another --out"
        ) from None
