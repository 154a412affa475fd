"""A model's answers over the evaluation images, on disk: one .npy an output, written image after image.

Outputs can be maps, and a few thousand of them do not fit into memory: they are filled and read as memory
maps. Where all answers together would exceed LIMIT_BYTES, fewer images are evaluated.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgekit.graph.ir import Graph
from edgekit.graph.run import per_image

LIMIT_BYTES = 1_000_000_000
_CHUNK_BYTES = 64_000_000
_CHUNK = 256  # images


class Answers:
    """Arrays (N, *what belongs to one image), one a graph output, that are being filled."""

    def __init__(self, directory: Path, graph: Graph, count: int) -> None:
        self.filled = 0
        self.arrays = [
            np.lib.format.open_memmap(
                directory / f"output{i}.npy",
                mode="w+",
                dtype=np.dtype(value.dtype),
                shape=(count, *per_image(value.shape)),
            )
            for i, value in enumerate(graph.outputs)
        ]

    def add(self, outputs: Sequence[np.ndarray]) -> int:
        """Append the outputs for some images; returns how many are there."""
        stop = self.filled + len(outputs[0])
        for array, output in zip(self.arrays, outputs, strict=True):
            array[self.filled : stop] = output
        self.filled = stop
        return stop

    def close(self) -> None:
        for array in self.arrays:
            array.flush()


def load(directory: Path) -> list[np.ndarray]:
    """The answers under a directory, read from disk as they are used."""
    paths = sorted(directory.glob("output*.npy"), key=lambda path: int(path.stem.removeprefix("output")))
    return [np.load(path, mmap_mode="r") for path in paths]


def affordable(graph: Graph, asked: int) -> int:
    """How many of `asked` images can be answered without exceeding LIMIT_BYTES; at least one."""
    return max(1, min(asked, LIMIT_BYTES // max(_bytes(graph), 1)))


def chunk(graph: Graph) -> int:
    """Images whose inputs and outputs are in memory at a time."""
    taken = sum(4 * int(np.prod(value.shape)) for value in graph.inputs)
    return max(1, min(_CHUNK, _CHUNK_BYTES // max(_bytes(graph), 1), 4 * _CHUNK_BYTES // max(taken, 1)))


def _bytes(graph: Graph) -> int:
    """Of one image's answers."""
    return sum(int(np.prod(v.shape)) * np.dtype(v.dtype).itemsize for v in graph.outputs)
