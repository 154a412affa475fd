"""Files that are written whole or not at all, their hashes, and where the cache lives."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgekit.errors import StoreError


def default_root() -> Path:
    """$EDGEKIT_CACHE, or edgekit/ under the user's cache directory."""
    if path := os.environ.get("EDGEKIT_CACHE"):
        return Path(path)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekit"


def sha256_file(path: str | os.PathLike[str]) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def storage_errors(where: str | os.PathLike[str]) -> Iterator[None]:
    """Disk full, no permission and the like under `where`, as one StoreError line."""
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: "the disk is full: free some space",
            errno.EDQUOT: "the disk quota is used up: free some space",
            errno.EACCES: "no permission to write: choose another --out or --cache",
            errno.EROFS: "a read-only file system: choose another --out or --cache",
            errno.ENOTDIR: "a file is in the way: choose another --out or --cache",
            errno.EEXIST: "a file is in the way: choose another --out or --cache",
        }
        reason = reasons.get(error.errno or 0)
        if reason is None:
            raise
        raise StoreError(f"{error.filename or where}: {reason}") from error


def write_atomic(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write a file whole or not at all."""
    path = Path(path)
    payload = data.encode() if isinstance(data, str) else data
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
