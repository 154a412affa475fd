"""Graph passes that only the .onnx format needs: a copy in, the same function in a form that lowers well out.

After them `value.quant` says what is really quantized in the file, so that the prepared graph runs in torch
and in the integer simulation as the file does.
"""

from __future__ import annotations

from edgekit.graph.ir import Graph
from edgekit.lower.lowered import Form, Pass, prepared
from edgekit.lower.onnx.prepare.derive_parameters import derive_parameters
from edgekit.lower.onnx.prepare.end_at_six import end_at_six
from edgekit.lower.onnx.prepare.expand_channel_shuffle import expand_channel_shuffle
from edgekit.lower.onnx.prepare.expand_gates import expand_gates
from edgekit.lower.onnx.prepare.fold_shuffle import fold_shuffle
from edgekit.lower.onnx.prepare.keep_pooled_dimensions import keep_pooled_dimensions
from edgekit.lower.onnx.prepare.place_for_onnxruntime import place_for_onnxruntime
from edgekit.lower.onnx.prepare.place_for_tensorrt import place_for_tensorrt
from edgekit.lower.onnx.prepare.round_biases import round_biases
from edgekit.lower.onnx.prepare.take_integers import take_integers
from edgekit.lower.onnx.prepare.widen_depthwise import widen_depthwise
from edgekit.targets import Target

PASSES: tuple[Pass | Form, ...] = (
    derive_parameters,  # first: every other pass copies the parameters it finds
    Form(end_at_six),
    keep_pooled_dimensions,
    Form(fold_shuffle),
    expand_channel_shuffle,
    Form(place_for_onnxruntime),  # placement sees the nodes of the file
    Form(widen_depthwise),  # after placement: only integer kernels gain
    Form(expand_gates),  # after placement: what stays in float stays whole
    Form(place_for_tensorrt),
    Form(round_biases),  # last: the scales on both sides are those of the file
)


def prepare(graph: Graph, target: Target, io_dtype: str | None = None) -> Graph:
    """A copy of `graph` in the forms `target` runs best, quantized where its runtime gains by it.

    Args:
        io_dtype: type of the file's inputs, as `lower` is told it: "uint8" puts them on their grid even where
            the layers that read them compute in float.
    """
    copy = prepared(graph, target, PASSES)
    if io_dtype == "uint8":
        take_integers(copy)
    return copy


__all__ = ["PASSES", "prepare"]
