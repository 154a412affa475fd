"""Program -> tf.Module: `serve` is the function behind serving_default, `parameters` what can be trained.

parameters: module path with slashes -> tf.Variable, in TensorFlow's own layout (convolution (kh, kw, I, O),
depthwise (kh, kw, C, multiplier), dense (O, I)). Batch norms are folded into them. The graph knows constants,
not which of them were buffers: an attention mask is a variable too, to be left out of training by its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.lower.savedmodel.operators import OPERATORS
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


def identifier(name: str) -> str:
    """`name` with what TensorFlow takes in names of arguments and scopes."""
    return re.sub(r"[^A-Za-z0-9_]", "_", name)


def run_program(
    tf: Any, program: Program, parameters: dict[str, Parameter], images: tuple[Any, ...]
) -> dict[str, Any]:
    """The program's outputs by signature key."""
    call = Call(tf, program, parameters, images[0])
    for (_, index), given in zip(program.inputs, images, strict=True):
        call.values[index] = given
    for step in program.steps:
        with tf.name_scope(identifier(step.source or "edge")):
            results = OPERATORS[step.builtin](call, step)
        if not isinstance(results, list):
            results = [results]
        call.values.update(zip(step.outputs, results, strict=True))
    return {key: call.values[index] for key, index in program.outputs}


def build(tf: Any, program: Program) -> Any:
    """The tf.Module. tf: the imported tensorflow package."""
    module = tf.Module()
    parameters: dict[str, Parameter] = {}
    specs = []
    for key, index in program.inputs:
        sizes = [None if size < 0 else size for size in program.tensors[index].shape]
        specs.append(tf.TensorSpec(sizes, tf.float32, name=identifier(key)))

    def serve(*images: Any) -> dict[str, Any]:
        return run_program(tf, program, parameters, images)

    module.serve = tf.function(serve, input_signature=specs)
    module.serve.get_concrete_function()
    module.parameters = {name: parameter.variable for name, parameter in parameters.items()}
    return module
