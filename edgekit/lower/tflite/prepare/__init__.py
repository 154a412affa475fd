"""Graph passes that only the .tflite format needs: a copy in, the same function in a form that lowers well
out.

The result is an ordinary graph with its quantization annotated, so that it runs in torch and can be held
against the file value by value.
"""

from __future__ import annotations

from edgekit.graph.ir import Graph
from edgekit.lower.lowered import Form, Pass, prepared
from edgekit.lower.tflite.prepare.absorb_hardsigmoid import absorb_hardsigmoid
from edgekit.lower.tflite.prepare.annotate import annotate
from edgekit.lower.tflite.prepare.center_matmul_operands import center_matmul_operands
from edgekit.lower.tflite.prepare.convert_types import convert_types
from edgekit.lower.tflite.prepare.expand_silu import expand_silu
from edgekit.lower.tflite.prepare.flatten_in_place import flatten_in_place
from edgekit.lower.tflite.prepare.fold_channel_shuffle import fold_channel_shuffle
from edgekit.lower.tflite.prepare.grow_before_max_pool import grow_before_max_pool
from edgekit.lower.tflite.prepare.repeat_before_depthwise import repeat_before_depthwise
from edgekit.lower.tflite.prepare.widen_depthwise import widen_depthwise
from edgekit.targets import Target

PASSES: tuple[Pass | Form, ...] = (
    annotate,  # first: every other pass copies the parameters it finds
    Form(center_matmul_operands),
    absorb_hardsigmoid,
    expand_silu,
    flatten_in_place,
    repeat_before_depthwise,
    fold_channel_shuffle,  # after repeat_before_depthwise, which leaves a shuffle
    grow_before_max_pool,
    Form(widen_depthwise),
    convert_types,  # last: the others rewrite nodes that read values as they are
)


def prepare(graph: Graph, target: Target, io_dtype: str | None = None) -> Graph:
    """A copy of `graph` in the forms `target` runs best, with that target's quantization parameters.

    `io_dtype` changes nothing here: every input is on its grid.
    """
    return prepared(graph, target, PASSES)


__all__ = ["PASSES", "prepare"]
