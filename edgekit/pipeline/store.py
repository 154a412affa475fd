"""Content-addressed stage results, so a second build redoes only what changed and a killed one resumes.

An entry is a directory ROOT/STAGE/KEY with the stage's files and `entry.json`, which lists their sha256. It
is written beside its place and renamed into it, so it is there whole or not at all: safe under kill -9 and
under two builds at once (the second finds the first's result in place and drops its own). A damaged entry is
a miss.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edgekit.files import default_root, sha256_file, storage_errors

STALE_SECONDS = 24 * 3600.0
_INDEX = "entry.json"


def key_of(**parts: Any) -> str:
    """The key of everything that went into a stage; parts are JSON data."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Store:
    """Stage results under `root`, by default the user's cache; `Store.temporary()` lasts one build."""

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        self.root = Path(root) if root else default_root()

    @staticmethod
    @contextmanager
    def temporary() -> Iterator[Store]:
        """An empty store that is removed at the end of the block."""
        with tempfile.TemporaryDirectory(prefix="edgekit-") as root:
            yield Store(root)

    def find(self, stage: str, key: str) -> Path | None:
        """The directory of a whole, undamaged entry, or None."""
        path = self.root / stage / key
        try:
            index = json.loads((path / _INDEX).read_text())
            whole = all(sha256_file(path / name) == digest for name, digest in index["files"].items())
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            whole = False
        if not whole and path.exists():
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
                write(temporary)
                paths = sorted(path for path in temporary.rglob("*") if path.is_file())
                files = {path.relative_to(temporary).as_posix(): sha256_file(path) for path in paths}
                (temporary / _INDEX).write_text(json.dumps({"files": files}, sort_keys=True))
                try:
                    os.rename(temporary, parent / key)
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return parent / key

    def _sweep(self, parent: Path) -> None:
        """Remove what killed builds left behind a day ago."""
        for path in parent.glob(".*"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > STALE_SECONDS:
                    shutil.rmtree(path, ignore_errors=True)
