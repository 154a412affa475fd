"""Generated pictures in a temporary file: a few thousand of them would fill memory, and drawing them anew for
every stage takes longer than reading them.

In: arrays of pictures, one after another. Out: a `Spool`, whose slices are read when they are asked for.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import IO

import numpy as np

from edgekit.errors import DataError


class _File:
    """A file without a name, which goes with the last who reads it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self.descriptor)


@dataclass(frozen=True)
class Spool:
    """uint8 pictures (N, H, W, 3) in a file, one after another.

    Args:
        count: how many of them are meant. shape: of one.
    """

    file: _File
    count: int
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return self.count

    def first(self, count: int) -> Spool:
        """The first `count` pictures; nothing is read."""
        return replace(self, count=min(count, self.count))

    def __getitem__(self, part: slice) -> np.ndarray:
        """Neighbouring pictures, an array of their own."""
        start, stop, _ = part.indices(self.count)
        found = np.empty((max(0, stop - start), *self.shape), np.uint8)
        size = int(np.prod(self.shape))
        for i, picture in enumerate(found, start):  # one at a time: a read of the system has a limit
            picture.reshape(-1)[:] = np.frombuffer(os.pread(self.file.descriptor, size, i * size), np.uint8)
        return found


def spooled(parts: Iterable[np.ndarray]) -> Spool:
    """Put pictures away as they come.

    Args:
        parts: uint8 (n, H, W, 3), at least one.
    Raises: DataError where the temporary folder has no room for them.
    """
    count, shape = 0, ()
    try:
        with tempfile.TemporaryFile() as file:
            for part in parts:
                file.write(np.ascontiguousarray(part).data)
                count, shape = count + len(part), part.shape[1:]
            file.flush()
            return Spool(_File(file), count, shape)
    except OSError as error:
        raise DataError(
            f"{tempfile.gettempdir()}: no room for generated pictures ({error.strerror}): TMPDIR elsewhere, "
            "or fewer images"
        ) from error
