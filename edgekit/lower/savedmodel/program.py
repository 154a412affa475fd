"""What TensorFlow is to rebuild: tensors and steps with nothing of torch, flatbuffers or TensorFlow in them.

A Program crosses a process boundary by pickle. Sizes that count images are negative: in the shape of a tensor
-k stands for k times the number of images, so one program serves any batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor in the file's layout; a constant when `data` is set, one to train when `variable` names it.

    Constants with the same `variable` and the same content are one variable.
    """

    name: str
    shape: Shape
    dtype: str
    data: np.ndarray | None = None
    variable: str | None = None


@dataclass(frozen=True)
class Step:
    """One TFLite operator. inputs, outputs: tensor indices, -1 for an absent input. source: module path."""

    builtin: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Any]
    source: str


@dataclass(frozen=True)
class Program:
    """inputs, outputs: (signature key, tensor index), in order."""

    name: str
    tensors: tuple[Tensor, ...]
    steps: tuple[Step, ...]
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]

    @property
    def batchable(self) -> bool:
        """Whether it takes any number of images at a time."""
        return all(self.tensors[index].shape[0] < 0 for _, index in self.inputs)
