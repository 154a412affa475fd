"""One lock a machine: builds share it, whatever takes times has it alone.

A flock(2) on a file of this user: the kernel ends it with its process.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def machine(alone: bool) -> Iterator[None]:
    """Wait for the machine, and have it until the end of the block."""
    path = Path(tempfile.gettempdir()) / f"edgekit-sweep-{os.getuid()}.lock"
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
