"""Program -> tf.Module: `serve` is the function behind serving_default, `parameters` what can be trained.

parameters: module path with slashes -> tf.Variable, in TensorFlow's own layout (convolution (kh, kw, I, O),
depthwise (kh, kw, C, multiplier), dense (O, I)). Batch norms are folded into them. The graph knows constants,
not which of them were buffers: an attention mask is a variable too, to be left out of training by its name.
"""

from __future__ import annotations

import re
from typing import Any

from edgekit.lower.savedmodel.call import Call, Parameter
from edgekit.lower.savedmodel.operators import OPERATORS
from edgekit.lower.savedmodel.program import Program


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
