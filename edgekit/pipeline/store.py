"""Content-addressed stage results, so a second build redoes only what changed and a killed one resumes.

An entry is a directory ROOT/STAGE/KEY with the stage's files and `entry.json`, which lists their sha256. It
is written beside its place and renamed into it, so it is there whole or not at all: safe under kill -9 and
under two builds at once (the second finds the first's result in place and drops its own). A damaged entry is
a miss.

When an entry was last used is the modification time of its `entry.json`, which `find` sets. Above the limit
the entries that were not used for longest go, but none that a running build has used: each build holds a
lease, a file it keeps locked with flock(2), and what was used since the oldest lease began stays. The kernel
ends the lock with its process, so a killed build holds nothing.

A stage that takes long has a directory of its own besides (`work`): what it writes there outlives a killed
build, and the next build of the same key goes on from it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edgekit.errors import StoreError
from edgekit.files import default_root, sha256_file, storage_errors

STALE_SECONDS = 24 * 3600.0
WORK_STALE_SECONDS = 14 * STALE_SECONDS
_INDEX = "entry.json"
_WORK = ".work-"
_LOCK, _LEASES, _PRUNED = ".lock", ".leases", ".pruned-"


def key_of(**parts: Any) -> str:
    """The key of everything that went into a stage; parts are JSON data."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """One stage's result in the store. used_ns: when it was last found or made, Unix nanoseconds."""

    path: Path
    stage: str
    size_bytes: int
    used_ns: int


class Store:
    """Stage results under `root`, by default the user's cache; `Store.temporary()` lasts one build.

    limit_bytes: what the entries may hold together, None for no limit; see edgekit.pipeline.cache_limit.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None, limit_bytes: int | None = None) -> None:
        self.root = Path(root) if root else default_root()
        if any("\udc80" <= character <= "\udcff" for character in str(self.root)):
            raise StoreError(
                f"{self.root}: a name that is not UTF-8, which native readers cannot open: another --cache"
            )
        self.limit_bytes = limit_bytes

    @staticmethod
    @contextmanager
    def temporary() -> Iterator[Store]:
        """An empty store that is removed at the end of the block."""
        with tempfile.TemporaryDirectory(prefix="edgekit-") as root:
            yield Store(root)

    def find(self, stage: str, key: str) -> Path | None:
        """The directory of a whole, undamaged entry, or None."""
        path = self.root / stage / key
        if not path.exists():
            return None
        with self._locked(fcntl.LOCK_SH), suppress(OSError):
            os.utime(path / _INDEX)
        try:
            index = json.loads((path / _INDEX).read_text())
            whole = all(sha256_file(path / name) == digest for name, digest in index["files"].items())
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            whole = False
        if not whole:
            shutil.rmtree(path, ignore_errors=True)
        return path if whole else None

    def put(self, stage: str, key: str, write: Callable[[Path], None]) -> Path:
        """Let `write` fill a directory with files and move it into place; returns where it is."""
        parent = self.root / stage
        with storage_errors(parent):
            parent.mkdir(parents=True, exist_ok=True)
            self._sweep(parent)
            temporary = Path(tempfile.mkdtemp(dir=parent, prefix="."))
            try:
                with storage_errors(parent):  # before what filled the disk is removed
                    write(temporary)
                paths = sorted(path for path in temporary.rglob("*") if path.is_file())
                files = {path.relative_to(temporary).as_posix(): sha256_file(path) for path in paths}
                (temporary / _INDEX).write_text(json.dumps({"files": files}, sort_keys=True))
                with self._locked(fcntl.LOCK_SH):
                    try:
                        os.rename(temporary, parent / key)
                    except OSError as error:
                        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                            raise
                        os.utime(parent / key / _INDEX)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            if self.limit_bytes is not None:
                self.prune(self.limit_bytes)
        return parent / key

    @contextmanager
    def work(self, stage: str, key: str) -> Iterator[Path]:
        """A directory for a stage's unfinished work: one build has it at a time, the others wait.

        It stays when the block is left by an exception or its process killed, and goes at the block's end.
        """
        path = self.root / stage / f"{_WORK}{key}"
        with storage_errors(path):
            file = self._held(path)
        with file:
            yield path
            shutil.rmtree(path, ignore_errors=True)

    def _held(self, path: Path) -> IO[str]:
        """The directory's lock file, locked; made again where the one waited for has gone with it."""
        while True:
            path.mkdir(parents=True, exist_ok=True)
            try:
                file = open(path / _LOCK, "a")  # noqa: SIM115 (the caller closes it)
            except FileNotFoundError:
                continue
            fcntl.flock(file, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), os.stat(path / _LOCK)):
                    os.utime(path)
                    return file
            file.close()

    @contextmanager
    def lease(self) -> Iterator[None]:
        """What is found or made inside the block stays until its end; then the limit holds for all."""
        folder = self.root / _LEASES
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with self._locked(fcntl.LOCK_SH):  # a lease that is not locked yet looks like a dead one
                descriptor, name = tempfile.mkstemp(dir=folder, prefix=f"{os.getpid()}-")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            Path(name).unlink(missing_ok=True)
            os.close(descriptor)
            if self.limit_bytes is not None:
                self.prune(self.limit_bytes)

    def entries(self) -> list[Entry]:
        """Every entry, the one that was not used for longest first."""
        found = []
        for index in self.root.glob(f"[!.]*/*/{_INDEX}"):  # what is being pruned or written is hidden
            folder = index.parent
            if not folder.name.startswith(".") and not folder.parent.name.startswith("."):
                with suppress(FileNotFoundError):  # another build may prune meanwhile
                    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
                    found.append(Entry(folder, folder.parent.name, size, index.stat().st_mtime_ns))
        return sorted(found, key=lambda entry: (entry.used_ns, entry.path))

    def prune(self, limit_bytes: int) -> list[Entry]:
        """Remove entries until the rest fits the limit or is in use; returns what went."""
        if not self.root.is_dir():
            return []
        gone = []
        with storage_errors(self.root):
            with self._locked(fcntl.LOCK_EX):
                entries, in_use_ns = self.entries(), self._oldest_lease_ns()
                total = sum(entry.size_bytes for entry in entries)
                trash = Path(tempfile.mkdtemp(dir=self.root, prefix=_PRUNED))
                for entry in entries:
                    if total <= limit_bytes or (in_use_ns is not None and entry.used_ns >= in_use_ns):
                        break
                    os.rename(entry.path, trash / f"{entry.stage}-{entry.path.name}")
                    total -= entry.size_bytes
                    gone.append(entry)
            for left in self.root.glob(f"{_PRUNED}*"):  # those of killed builds too
                shutil.rmtree(left, ignore_errors=True)
        return gone

    def _oldest_lease_ns(self) -> int | None:
        """When the oldest build that still runs began; removes leases whose process is gone."""
        began = []
        for path in (self.root / _LEASES).glob("*"):
            with suppress(FileNotFoundError), open(path) as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    began.append(path.stat().st_mtime_ns)
                else:
                    path.unlink(missing_ok=True)
        return min(began, default=None)

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        """The store's lock: shared to use an entry, exclusive to remove some."""
        try:
            file = open(self.root / _LOCK, "a")  # noqa: SIM115 (closed below)
        except OSError:  # where nothing can be written nothing can be removed
            yield
            return
        with file:
            fcntl.flock(file, how)
            yield

    def _sweep(self, parent: Path) -> None:
        """Remove what killed builds left behind a day ago."""
        for path in parent.glob(".*"):
            stale = WORK_STALE_SECONDS if path.name.startswith(_WORK) else STALE_SECONDS
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > stale:
                    shutil.rmtree(path, ignore_errors=True)
