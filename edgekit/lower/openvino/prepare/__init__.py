"""Graph passes that only OpenVINO needs: a copy in, the same function in a form that runs well out.

The result is an ordinary graph whose annotations say what the file quantizes, so that it runs in torch
and can be held against the file value by value.
"""

from __future__ import annotations

from collections.abc import Callable

from edgekit.graph.check import check
from edgekit.graph.ir import Graph
from edgekit.lower.openvino.prepare.drop_quantization import drop_quantization
from edgekit.lower.openvino.prepare.place_quantization import place_quantization
from edgekit.lower.openvino.prepare.sum_in_place import sum_in_place
from edgekit.targets import Target

Pass = Callable[[Graph], int]


def passes(target: Target) -> tuple[Pass, ...]:
    return (place_quantization, sum_in_place) if target.quantized else (drop_quantization,)


def prepare(graph: Graph, target: Target, io_dtype: str | None = None) -> Graph:
    """A copy of `graph` in the forms `target` runs best, quantized where that pays.

    `io_dtype` changes nothing here: inputs are float32.
    """
    prepared = graph.copy()
    prepared.remove_dead()
    for run_pass in passes(target):
        run_pass(prepared)
        check(prepared)
    prepared.remove_dead()
    return prepared


__all__ = ["passes", "prepare"]
