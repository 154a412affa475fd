"""One trace of the serving function: what the operators of operators.py are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.lower.savedmodel.program import Program, Step

Arrange = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Parameter:
    """A variable and the numbers it starts from."""

    data: np.ndarray
    variable: Any


class Call:
    """One trace of the serving function: the tensors so far, and what operators need besides."""

    def __init__(self, tf: Any, program: Program, parameters: dict[str, Parameter], images: Any) -> None:
        self.tf = tf
        self.program = program
        self.parameters = parameters
        self.batch = tf.shape(images)[0]
        self.values: dict[int, Any] = {}

    def input(self, step: Step, i: int, arrange: Arrange | None = None) -> Any:
        """Input `i` of a step, None if absent; a constant rearranged by `arrange`."""
        index = step.inputs[i] if i < len(step.inputs) else -1
        if index < 0:
            return None
        return self.values[index] if index in self.values else self._constant(index, arrange)

    def array(self, step: Step, i: int) -> np.ndarray:
        """Input `i` of a step as numbers that are known now: axes, paddings, sizes."""
        data = self.program.tensors[step.inputs[i]].data
        assert data is not None
        return data

    def shape(self, step: Step) -> list[Any]:
        """The shape of a step's first result; at most one size is -1, others are computed from the batch."""
        sizes = self.program.tensors[step.outputs[0]].shape
        if sum(size < 0 for size in sizes) == 1:
            return [max(size, -1) for size in sizes]
        return [size if size >= 0 else -size * self.batch for size in sizes]

    def sizes(self, index: int) -> tuple[int, ...]:
        """The sizes of a tensor as the program states them: negative where they count images."""
        return self.program.tensors[index].shape

    def _constant(self, index: int, arrange: Arrange | None) -> Any:
        tensor = self.program.tensors[index]
        assert tensor.data is not None, tensor.name
        data = arrange(tensor.data) if arrange else tensor.data
        if tensor.variable is None:
            return self.tf.constant(data)
        name, count = tensor.variable.replace(".", "/"), 0
        key = name
        while key in self.parameters and not np.array_equal(self.parameters[key].data, data):
            count += 1
            key = f"{name}_{count}"
        if key not in self.parameters:
            with self.tf.init_scope():
                self.parameters[key] = Parameter(data, self.tf.Variable(data, name=key))
        return self.parameters[key].variable
