"""What a graph costs to run, counted from its shapes and without running it: Graph -> Counts.

Conventions. One multiply-add is one MAC; convolutions, linear layers and matrix products are counted, biases,
normalisations, activations and pooling are not: torchvision's published "GFLOPS" are MACs in this sense,
timm's tables count a few more operators (0-4 %). Params are the elements of floating constants, each counted
once whoever reads it; batch norm's running statistics are buffers and do not count. Memory traffic is a
number of its own and no multiple of the MACs: what every node reads and writes if nothing stays in cache,
constants included; ops that only rename dimensions touch nothing, and one that picks a part reads that part.
Peak activation memory is the largest sum of live tensors at any node, its inputs and outputs included,
constants not; a view shares its input's memory.

Every node counts as it stands: hand in an optimized graph for the traffic and the peak of what is built, a
captured one has its batch norms and activations as tensors of their own.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from edgekit.errors import GraphError
from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import OPS, VIEWS, WEIGHT_AXIS

# type of the activations -> bytes of one, of a number in a weight, of any other parameter (int32 biases)
_WIDTHS = {
    "float32": (4, 4, 4),
    "float16": (2, 2, 2),
    "int8": (1, 1, 4),
    "int16": (2, 1, 8),  # int16 x int8 sums in int64
}
_OTHER_BYTES = {"bool": 1, "int8": 1, "uint8": 1, "int16": 2, "int32": 4, "int64": 8}


@dataclass(frozen=True)
class NodeCounts:
    """One node; parameters count at their first reader."""

    op: str
    module: str
    output: str
    shape: tuple[int, ...]
    params: int
    weight_bytes: int
    macs: int
    traffic_bytes: int

    @property
    def intensity(self) -> float:
        """MACs per byte moved: low means that the memory sets the pace."""
        return _intensity(self.macs, self.traffic_bytes)


@dataclass(frozen=True)
class Counts:
    """A graph's sums at its recorded shapes (batch 1), for activations of `dtype`."""

    macs: int
    params: int
    weight_bytes: int
    traffic_bytes: int
    peak_activation_bytes: int
    dtype: str
    nodes: tuple[NodeCounts, ...]

    @property
    def intensity(self) -> float:
        """MACs per byte moved."""
        return _intensity(self.macs, self.traffic_bytes)

    def as_dict(self) -> dict[str, Any]:
        """What JSON takes, intensities included."""
        content = asdict(self) | {"intensity": self.intensity}
        for row, node in zip(content["nodes"], self.nodes, strict=True):
            row["intensity"] = node.intensity
        return content


def count(graph: Graph, dtype: str = "float32") -> Counts:
    """Count a graph at its recorded shapes.

    Args:
        dtype: of the activations: "float32", "float16", "int8" (int8 weights, int32 biases) or "int16" (int8
            weights, int64 biases). Booleans and whole numbers that point somewhere keep their own width.
    Raises: GraphError for another dtype.
    """
    activation, _, _ = widths = _widths(dtype)
    spent: set[Value] = set()
    nodes = []
    for node in graph.nodes:
        own = [v for v in parameters(node) if v not in spent]
        spent.update(own)
        nodes.append(
            NodeCounts(
                node.op,
                node.source,
                node.output.name,
                node.output.shape,
                sum(elements(v) for v in own),
                sum(_stored(node, v, widths) for v in own),
                node_macs(node),
                _traffic(node, widths),
            )
        )
    return Counts(
        macs=sum(node.macs for node in nodes),
        params=sum(node.params for node in nodes),
        weight_bytes=sum(node.weight_bytes for node in nodes),
        traffic_bytes=sum(node.traffic_bytes for node in nodes),
        peak_activation_bytes=_peak(graph, activation),
        dtype=dtype,
        nodes=tuple(nodes),
    )


def elements(value: Value) -> int:
    return math.prod(value.shape)


def node_macs(node: Node) -> int:
    """Multiply-adds of one node; 0 for ops without a matrix product."""
    rule = OPS[node.op].macs
    return rule([() if v is None else v.shape for v in node.inputs], node.output.shape) if rule else 0


def parameters(node: Node) -> list[Value]:
    """The floating constants that a node reads, without batch norm's running statistics."""
    statistics = node.inputs[3:5] if node.op == "batch_norm" else []
    return [
        v
        for v in dict.fromkeys(node.operands)
        if v.is_constant and v.dtype.startswith("float") and v not in statistics
    ]


def peak_activation_bytes(graph: Graph, dtype: str = "float32") -> int:
    """The largest sum of live activation tensors over the program order."""
    return _peak(graph, _widths(dtype)[0])


def _widths(dtype: str) -> tuple[int, int, int]:
    if dtype not in _WIDTHS:
        raise GraphError(f"[cost] activations of {dtype!r} are not counted: one of {', '.join(_WIDTHS)}")
    return _WIDTHS[dtype]


def _intensity(macs: int, traffic_bytes: int) -> float:
    return macs / traffic_bytes if traffic_bytes else 0.0


def _bytes(value: Value, width: int) -> int:
    return elements(value) * _OTHER_BYTES.get(value.dtype, width)


def _stored(node: Node, value: Value, widths: tuple[int, int, int]) -> int:
    """Bytes of a constant in the file: as weights of a product, as biases and scales, or as an operand."""
    activation, weight, other = widths
    if node.op in WEIGHT_AXIS:
        return _bytes(value, weight if value is node.inputs[1] else other)
    return _bytes(value, other if OPS[node.op].parameters else activation)


def _traffic(node: Node, widths: tuple[int, int, int]) -> int:
    if node.op in VIEWS:
        return 0
    read = sum(_stored(node, v, widths) if v.is_constant else _bytes(v, widths[0]) for v in node.operands)
    written = sum(_bytes(v, widths[0]) for v in node.outputs)
    if OPS[node.op].movement == "place":
        read = min(read, written)
    return read + written


def _peak(graph: Graph, width: int) -> int:
    storage: dict[Value, Value] = {}
    for node in graph.nodes:
        if node.op in VIEWS and node.inputs[0] is not None and not node.inputs[0].is_constant:
            storage[node.output] = storage.get(node.inputs[0], node.inputs[0])

    def root(value: Value) -> Value:
        return storage.get(value, value)

    last_use = {root(v): i for i, node in enumerate(graph.nodes) for v in node.operands}
    last_use.update({root(v): len(graph.nodes) for v in graph.outputs})
    live = set(graph.inputs)
    peak = 0
    for i, node in enumerate(graph.nodes):
        live.update(root(v) for v in node.outputs)
        peak = max(peak, sum(_bytes(v, width) for v in live if not v.is_constant))
        live = {v for v in live if last_use.get(v, -1) > i}
    return peak
