"""The channel means of a trained graph, as its own simulation has them.

A target that leaves some values in float gets biases fitted to what every channel is meant to be
(`quantize.placement.fit_biases`). Of a calibrated graph that is the float graph's mean; a trained one has
moved away from it, and what it computes in integers is what was trained.
"""

from __future__ import annotations

import torch

from edgekit.graph.batch import batch_dims
from edgekit.graph.ir import Graph, Node
from edgekit.quantize import rules
from edgekit.quantize.fused import Arguments
from edgekit.quantize.images import Given, Images
from edgekit.quantize.observers import channel_mean
from edgekit.quantize.simulate import Simulator, in_integers

Tensor = torch.Tensor


def channel_means(graph: Graph, images: Given) -> dict[str, Tensor]:
    """Result's name -> (N, O): its mean in each image and channel before the activation."""
    given, found = Images(graph, images), _Means(graph)
    with torch.inference_mode():
        for inputs in given.batches(given.at_once()):
            found.count = len(inputs[0])
            found.run(inputs)
    return {name: torch.cat(rows).clone() for name, rows in found.rows.items()}


class _Means(Simulator):
    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.rows: dict[str, list[Tensor]] = {}
        self.dims, self.count = batch_dims(graph), 0

    def step(self, node: Node, args: Arguments) -> tuple[Tensor, ...]:
        if not in_integers(node):
            return super().step(node, args)
        sums = self.accumulate(node, args)
        self.prepare(node)
        x, weight, bias = node.inputs[0], rules.weight_of(node), self.biases[node]
        assert x is not None and x.quant and weight is not None and weight.quant
        unit = torch.tensor(weight.quant.scale, dtype=torch.float64) * x.quant.scale[0]
        means = channel_mean(node, sums, self.dims.get(node.output), self.count)
        means = means if bias is None else means + bias
        self.rows.setdefault(node.output.name, []).append(means * unit.float())
        return (self.requantize(node, sums),)
