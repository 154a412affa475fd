"""Every measurement ever made, in one SQLite file: checked records in, records out.

Write-ahead logging and short immediate transactions make it safe for several processes of one machine; it
must not lie on a network file system, where SQLite's locks do not hold. `PRAGMA user_version` is the schema's
version: an older file is migrated when it is opened, a newer one refused. Raw samples are kept compressed.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgekit.errors import StoreError, UsageError
from edgekit.files import home
from edgekit.history.record import Record, timestamp, validate

BUSY_SECONDS = 30.0

# Script i brings a file of version i to version i + 1. Published scripts never change.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE runs (
        run TEXT PRIMARY KEY,
        created TEXT NOT NULL,
        model TEXT NOT NULL,
        target TEXT NOT NULL,
        device TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        record TEXT NOT NULL,
        samples BLOB NOT NULL
    );
    CREATE INDEX runs_series ON runs (model, target, device, created);
    CREATE INDEX runs_created ON runs (created);
    """,
)


@dataclass(frozen=True)
class Series:
    """Runs of one artifact name under equal conditions, oldest first; records without raw samples."""

    model: str
    target: str
    device: str
    threads: int
    delegate: str | None
    power_mode: str | None
    profile: str
    runs: tuple[Record, ...]


def default_path() -> Path:
    """$EDGEKIT_HISTORY, or edgekit/history.sqlite under the user's data directory."""
    if path := os.environ.get("EDGEKIT_HISTORY"):
        return Path(path)
    data = os.environ.get("XDG_DATA_HOME") or home() / ".local" / "share"
    return Path(data) / "edgekit" / "history.sqlite"


class History:
    """The file at `path`; a context manager. With `create=False` a missing file is an empty history."""

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        create: bool = True,
        migrations: Sequence[str] = MIGRATIONS,
    ) -> None:
        self.path = Path(path) if path else default_path()
        with self._errors():
            there = self.path.exists()
            if create and not there:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            where = self.path if create or there else ":memory:"
            self._db = sqlite3.connect(where, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            with self._errors():
                self._open(migrations)
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()

    def add(self, record: Record) -> bool:
        """Keep a record; False when this very record is there already.

        Raises: UsageError when the record is not valid, or its run id stands for another one.
        """
        validate(record, f"run {record.get('run', '?')}" if isinstance(record, dict) else "record")
        rest = {key: value for key, value in record.items() if key not in ("samples_ns", "samples_file")}
        text = json.dumps(rest, sort_keys=True)
        samples = json.dumps(record["samples_ns"])
        artifact = record["artifact"]
        row = (
            record["run"],
            timestamp(record["created"]),
            artifact["name"],
            artifact["target"],
            record["device"]["id"],
            artifact["sha256"],
            text,
            zlib.compress(samples.encode(), 6),
        )
        with self._transaction():
            known = self._db.execute("SELECT record, samples FROM runs WHERE run = ?", row[:1]).fetchone()
            if known is None:
                self._db.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        if known is None:
            return True
        if known[0] == text and zlib.decompress(known[1]).decode() == samples:
            return False
        raise UsageError(f"{self.path}: run {record['run']} is there with other content: a new run id")

    def get(self, run: str) -> Record:
        """The record of a run id or of an unambiguous beginning of one, samples included."""
        with self._errors():
            exact = self._db.execute("SELECT record, samples FROM runs WHERE run = ?", (run,)).fetchone()
            found = self._db.execute(
                "SELECT run FROM runs WHERE substr(run, 1, ?) = ? ORDER BY created DESC", (len(run), run)
            ).fetchall()
            if exact is None and run and len(found) == 1:
                return self.get(found[0][0])
            if exact is not None:
                return self._record(*exact)
        if not found or not run:
            raise UsageError(f"{self.path}: no run {run!r}: a run id that `edgekit history` lists")
        names = ", ".join(name for (name,) in found[:4]) + (", ..." if len(found) > 4 else "")
        raise UsageError(f"{self.path}: {run!r} begins {len(found)} run ids ({names}): more of the id")

    def query(
        self,
        *,
        model: str | None = None,
        target: str | None = None,
        device: str | None = None,
        sha256: str | None = None,
        since: str | None = None,
        limit: int | None = None,
        samples: bool = False,
    ) -> list[Record]:
        """Records, newest first; raw samples only with `samples`. `sha256` may be a beginning."""
        if limit is not None and limit < 1:
            raise UsageError(f"history: a limit of {limit}: at least 1")
        wanted: list[tuple[str, Any]] = [("model = ?", model), ("target = ?", target), ("device = ?", device)]
        wanted.append(("substr(sha256, 1, length(?)) = ?", sha256))
        wanted.append(("created >= ?", timestamp(since, "history: since") if since else None))
        used = [(clause, value) for clause, value in wanted if value is not None]
        where = " AND ".join(clause for clause, _ in used) or "1"
        values = [value for clause, value in used for _ in range(clause.count("?"))]
        columns = "record, samples" if samples else "record"
        with self._errors():
            rows = self._db.execute(
                f"SELECT {columns} FROM runs WHERE {where} ORDER BY created DESC, rowid DESC LIMIT ?",
                [*values, -1 if limit is None else limit],
            ).fetchall()
            return [self._record(*row) for row in rows]

    def series(self, **filters: Any) -> list[Series]:
        """The runs that `query` finds, grouped by artifact name and conditions; the latest series first."""
        return series_of(self.query(**filters))

    def _open(self, migrations: Sequence[str]) -> None:
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:
                # the switch to WAL does not wait for a lock as other statements do
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        if self._version() != len(migrations):
            self._migrate(migrations)

    def _migrate(self, migrations: Sequence[str]) -> None:
        with self._transaction():
            version = self._version()  # again: another process may have migrated meanwhile
            if version > len(migrations):
                raise StoreError(
                    f"{self.path}: history of version {version}, this edgekit knows {len(migrations)}: "
                    f"a newer edgekit, or another --history FILE"
                )
            tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if version == 0 and tables:
                raise StoreError(f"{self.path}: another program's database: another --history FILE")
            for script in migrations[version:]:
                for statement in script.split(";"):
                    self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {len(migrations)}")

    def _version(self) -> int:
        return self._db.execute("PRAGMA user_version").fetchone()[0]

    @staticmethod
    def _record(text: str, samples: bytes | None = None) -> Record:
        record = json.loads(text)
        if samples is not None:
            record["samples_ns"] = json.loads(zlib.decompress(samples))
        return record

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Begin immediately, so that a reader never has to become a writer; all or nothing."""
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """What SQLite or the file system says, as one StoreError line."""
        try:
            yield
        except (sqlite3.Error, zlib.error, json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
            raise StoreError(f"{self.path}: {_reason(error)}") from error


def series_of(records: Sequence[Record]) -> list[Series]:
    """Group records (newest first) into series; the order is that of their newest runs."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        groups.setdefault(tuple(_conditions(record).values()), []).append(record)
    return [Series(**_conditions(runs[0]), runs=tuple(reversed(runs))) for runs in groups.values()]


def _conditions(record: Record) -> dict[str, Any]:
    return {
        "model": record["artifact"]["name"],
        "target": record["artifact"]["target"],
        "device": record["device"]["id"],
        "threads": record["threads"],
        "delegate": record["runtime"]["delegate"],
        "power_mode": record["power_mode"],
        "profile": record["profile"],
    }


def _reason(error: Exception) -> str:
    code = getattr(error, "sqlite_errorcode", -1) & 0xFF
    reasons = {
        sqlite3.SQLITE_FULL: "the disk is full: free some space",
        sqlite3.SQLITE_BUSY: f"locked by another process for {BUSY_SECONDS:.0f} s: let it finish",
        sqlite3.SQLITE_READONLY: "no permission to write: another --history FILE",
        sqlite3.SQLITE_CANTOPEN: "cannot be opened: a file in a folder you may write to",
        sqlite3.SQLITE_NOTADB: "not a history database: another --history FILE, or move this one away",
    }
    if isinstance(error, OSError):
        return f"cannot be opened ({error.strerror}): a file in a folder you may write to"
    return reasons.get(code, f"damaged ({error}): another --history FILE, or move this one away")
