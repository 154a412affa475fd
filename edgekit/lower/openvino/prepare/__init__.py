"""Graph passes that only OpenVINO needs: a copy in, the same function in a form that runs well out.

The result is an ordinary graph whose annotations say what the file quantizes, so that it runs in torch
and can be held against the file value by value.
"""

from __future__ import annotations

from edgekit.graph.ir import Graph
from edgekit.lower.lowered import Form, Pass, prepared
from edgekit.lower.openvino.prepare.drop_quantization import drop_quantization
from edgekit.lower.openvino.prepare.place_quantization import place_quantization
from edgekit.lower.openvino.prepare.sum_in_place import sum_in_place
from edgekit.targets import Target

PASSES: tuple[Pass | Form, ...] = (
    Form(drop_quantization),
    Form(place_quantization),
    Form(sum_in_place),
)


def prepare(graph: Graph, target: Target, io_dtype: str | None = None) -> Graph:
    """A copy of `graph` in the forms `target` runs best, quantized where that pays.

    `io_dtype` changes nothing here: inputs are float32.
    """
    return prepared(graph, target, PASSES)


__all__ = ["PASSES", "prepare"]
