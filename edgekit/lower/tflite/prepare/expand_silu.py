"""silu(x) = x * sigmoid(x), so that the sigmoid is one table and the product one integer MUL.

The sigmoid's scale is searched: over the 256 values x can take, the scale whose rounded product comes nearest
the true silu. It must not clip, so the search starts at sigmoid(largest x) / 255.
"""

from __future__ import annotations

import numpy as np

from edgekit.ir import Graph, Node, QuantParams, Value
from edgekit.targets import Target


def expand_silu(graph: Graph, target: Target) -> int:
    """Rewrite every silu into sigmoid and mul; returns how many."""
    nodes: list[Node] = []
    taken = {value.name for value in graph.values()}
    count = 0
    for node in graph.nodes:
        if node.op != "silu":
            nodes.append(node)
            continue
        x, out = node.inputs[0], node.output
        assert x is not None
        name = f"{out.name}.gate"
        while name in taken:
            name += "_1"
        taken.add(name)
        gate = Value(name, x.shape)
        if x.quant is not None and out.quant is not None:
            gate.quant = gate_parameters(x.quant, out.quant)
            gate.range = (0.0, 1.0)
        sigmoid = Node("sigmoid", [x], [gate], {}, node.source)
        nodes += [sigmoid, Node("mul", [x, gate], [out], {"activation": None}, node.source)]
        count += 1
    graph.nodes = nodes
    return count


def gate_parameters(x: QuantParams, out: QuantParams) -> QuantParams:
    """The sigmoid's parameters between an input and a product of these parameters."""
    if x.dtype != "int8":
        return QuantParams((1.0 / 32768.0,), (0,), "int16")
    reals = (np.arange(-128, 128) - x.zero_point[0]) * np.float64(x.scale[0])
    true = 1.0 / (1.0 + np.exp(-reals))
    low, high = (np.array([-128, 127]) - out.zero_point[0]) * np.float64(out.scale[0])
    wanted = np.clip(reals * true, low, high)
    base = true.max() / 255.0
    candidates = base * np.linspace(1.0, 1.01, 81)
    steps = np.rint(true[None, :] / candidates[:, None])
    product = np.clip(reals * np.minimum(steps, 255) * candidates[:, None], low, high)
    rounded = np.rint(product / out.scale[0]) * out.scale[0]
    error = np.square(rounded - wanted).sum(1)
    return QuantParams((float(np.float32(candidates[int(error.argmin())])),), (-128,), "int8")
