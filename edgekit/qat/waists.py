"""Where a network is one tensor wide: what a trained graph is held to inside, block by block.

Enters: a float graph and what was quantized of it. Leaves: names of values that alone carry the network at
their place, and for each the factors by which equalization rescaled its channels.
"""

from __future__ import annotations

import torch

from edgekit.graph.ir import Graph, Value

Tensor = torch.Tensor
MOST = 8


def waists(graph: Graph, most: int = MOST) -> list[str]:
    """Names of at most `most` results, evenly spread, beside which nothing else is alive; no output."""
    last_use = {value: i for i, node in enumerate(graph.nodes) for value in node.operands}
    outputs = set(graph.outputs)
    alive: set[Value] = set(graph.inputs)
    found = []
    for i, node in enumerate(graph.nodes):
        alive.update(v for v in node.outputs if v in last_use or v in outputs)
        alive = {v for v in alive if v in outputs or last_use.get(v, -1) > i}
        if alive == {node.output} and node.output not in outputs:
            found.append(node.output)
    kept = [v for v in found if v.dtype.startswith("float") and v.quant is not None]
    places = torch.linspace(0, len(kept) - 1, min(most, len(kept))).round().int().tolist()
    return [kept[place].name for place in places]


def factors(wanted: Tensor, found: Tensor) -> Tensor:
    """What each channel of `wanted` is multiplied by in `found`, by least squares; broadcasts over both."""
    axis = 1 if wanted.ndim == 4 else wanted.ndim - 1
    others = [d for d in range(wanted.ndim) if d != axis]
    return (wanted * found).sum(others, keepdim=True) / wanted.square().sum(others, keepdim=True).clamp_min(
        1e-12
    )
