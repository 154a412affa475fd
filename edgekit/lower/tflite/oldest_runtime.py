"""The oldest TensorFlow Lite runtime that runs a file right: its operators' versions -> "2.10".

An older runtime refuses an operator version it does not know. One thing it does not refuse: up to 2.9 the
kernel of FULLY_CONNECTED takes the first of per-channel scales for all channels and answers with the same
wrong numbers for every picture.

LiteRT counts on its own: its first release, 1.0, is TensorFlow 2.17's runtime.
"""

from __future__ import annotations

import re

from edgekit.lower.tflite.reader import Model, Operator, Subgraph

PER_CHANNEL_FULLY_CONNECTED = "2.10"
_LEAST = "2.3"  # everything this package writes that is not listed below

# builtin -> {version: the first runtime that knows it}; a version between two entries needs the lower one's
_FIRST: dict[str, dict[int, str]] = {
    "ABS": {2: "2.4", 3: "2.5"},
    "ADD": {3: "2.4"},
    "ARG_MAX": {3: "2.9"},
    "BATCH_MATMUL": {3: "2.4", 4: "2.5"},
    "BROADCAST_TO": {2: "2.5"},
    "CAST": {2: "2.7", 3: "2.8"},
    "CONV_2D": {5: "2.4", 6: "2.9"},
    "CUMSUM": {1: "2.4"},
    "DEPTH_TO_SPACE": {2: "2.5"},
    "FULLY_CONNECTED": {10: "2.17"},  # refused by 2.14; LiteRT takes it
    "GATHER": {4: "2.4", 5: "2.5"},
    "GELU": {1: "2.9"},
    "MEAN": {3: "2.4"},
    "PAD": {3: "2.4", 4: "2.6"},
    "PADV2": {3: "2.4", 4: "2.6"},
    "REDUCE_MAX": {3: "2.5"},
    "RELU": {3: "2.5"},
    "RELU6": {3: "2.5"},
    "RESIZE_BILINEAR": {4: "2.5"},
    "RESIZE_NEAREST_NEIGHBOR": {4: "2.4"},
    "RSQRT": {2: "2.5"},
    "SLICE": {4: "2.4", 5: "2.5"},
    "SQUARED_DIFFERENCE": {2: "2.5"},
    "SUB": {4: "2.4"},
    "TRANSPOSE": {5: "2.4", 6: "2.17"},
    "TRANSPOSE_CONV": {4: "2.17"},
}


def oldest_runtime(model: Model) -> str:
    """The release of TensorFlow Lite, as "2.10": every older one refuses the file or answers wrong."""
    needs = [_LEAST]
    for graph in model.subgraphs:
        for operator in graph.operators:
            known = _FIRST.get(operator.name, {})
            needs += [first for version, first in known.items() if version <= operator.version]
            if _per_channel(graph, operator):
                needs.append(PER_CHANNEL_FULLY_CONNECTED)
    return max(needs, key=release)


def release(version: str) -> tuple[int, ...]:
    """(2, 10) of "2.10.1": what two versions are compared by."""
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


def _per_channel(graph: Subgraph, operator: Operator) -> bool:
    if operator.name != "FULLY_CONNECTED":
        return False
    x, weight = (graph.tensors[i] for i in operator.inputs[:2])
    return x.dtype == "int8" and weight.scale.size > 1
