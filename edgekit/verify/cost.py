"""What a graph costs to run, counted from its shapes: Graph -> Cost.

Conventions. One multiply-add is one MAC; convolutions, linear layers and matrix products are counted, biases,
normalisations, activations and pooling are not (torchvision's published GFLOPS are MACs in this sense).
Params are the elements of floating constants, each counted once; batch norm's running statistics are buffers
and do not count. Memory traffic is what every node reads and writes if nothing stays in cache: constants,
inputs, outputs; ops that only rename dimensions touch nothing. Peak activation memory is the largest sum of
live tensors at any node, its inputs and outputs included, constants not.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import OPS, VIEWS, WEIGHT_AXIS

_BIAS_BYTES = 4  # float32 or int32, whatever the weights are


@dataclass(frozen=True)
class LayerCost:
    """One node. `intensity` is MACs per byte moved: low means the memory sets the pace."""

    op: str
    module: str
    output: str
    shape: tuple[int, ...]
    params: int
    macs: int
    mem_bytes: int

    @property
    def intensity(self) -> float:
        return self.macs / self.mem_bytes if self.mem_bytes else 0.0


@dataclass(frozen=True)
class Cost:
    params: int
    macs: int
    mem_bytes: int
    peak_activation_bytes: int
    bytes_per_element: int
    layers: tuple[LayerCost, ...]

    @property
    def intensity(self) -> float:
        return self.macs / self.mem_bytes if self.mem_bytes else 0.0

    def as_dict(self) -> dict[str, Any]:
        content = asdict(self) | {"intensity": self.intensity}
        for row, layer in zip(content["layers"], self.layers, strict=True):
            row["intensity"] = layer.intensity
        return content


def cost(graph: Graph, bytes_per_element: int = 4) -> Cost:
    """Count a graph at its recorded shapes (batch 1).

    Args:
        bytes_per_element: of activations and weights: 4 for float32, 1 for int8. Biases always take 4.
    """
    spent: set[Value] = set()
    layers = []
    for node in graph.nodes:
        own = [v for v in _parameters(node) if v not in spent]
        spent.update(own)
        layers.append(
            LayerCost(
                node.op,
                node.source,
                node.output.name,
                node.output.shape,
                sum(elements(v) for v in own),
                node_macs(node),
                _traffic(node, bytes_per_element),
            )
        )
    return Cost(
        params=sum(layer.params for layer in layers),
        macs=sum(layer.macs for layer in layers),
        mem_bytes=sum(layer.mem_bytes for layer in layers),
        peak_activation_bytes=peak_activation_bytes(graph, bytes_per_element),
        bytes_per_element=bytes_per_element,
        layers=tuple(layers),
    )


def elements(value: Value) -> int:
    return math.prod(value.shape)


def node_macs(node: Node) -> int:
    """Multiply-adds of one node; 0 for ops without a matrix product."""
    count = OPS[node.op].macs
    return count([() if v is None else v.shape for v in node.inputs], node.output.shape) if count else 0


def peak_activation_bytes(graph: Graph, bytes_per_element: int = 4) -> int:
    """The largest sum of live activation tensors over the program order; a view shares its input's memory."""
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
        peak = max(peak, sum(elements(v) for v in live if not v.is_constant))
        live = {v for v in live if last_use.get(v, -1) > i}
    return peak * bytes_per_element


def _parameters(node: Node) -> list[Value]:
    statistics = node.inputs[3:5] if node.op == "batch_norm" else []
    return [
        v
        for v in dict.fromkeys(node.operands)
        if v.is_constant and v.dtype.startswith("float") and v not in statistics
    ]


def _traffic(node: Node, bytes_per_element: int) -> int:
    if node.op in VIEWS:
        return 0
    total = sum(elements(v) for v in (*node.operands, *node.outputs)) * bytes_per_element
    bias = node.inputs[2] if node.op in WEIGHT_AXIS else None
    return total if bias is None else total + elements(bias) * (_BIAS_BYTES - bytes_per_element)
