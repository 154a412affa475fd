"""Small networks with images, quantized without rounding weights, and a clock that counts."""

from __future__ import annotations

import math

from edgekit.graph.ir import Graph
from edgekit.mixed.prices import units_of_graph
from edgekit.mixed.refit import Base
from edgekit.quantize import QuantizeSettings, quantize
from edgekit.targets import get_target
from tests.quantize.quantize_graphs import Builder, smooth_images


def network(seed: int = 0) -> Graph:
    """A stem, two bottlenecks with a sum and a gate, a classifier."""
    b = Builder((1, 3, 16, 16), seed)
    x = b.op("hardswish", b.conv(b.input, 8, 3, 2))
    y = b.op("hardswish", b.conv(x, 16))
    y = b.conv(y, 16, 3, groups=16, activation="relu")
    gate = b.op("hardsigmoid", b.conv(b.op("mean", y, dims=(2, 3), keepdim=True), 16))
    x = b.op("add", b.conv(b.op("mul", y, gate, activation=None), 8), x, activation=None)
    x = b.conv(x, 24, activation="relu")
    return b.graph(b.linear(b.op("mean", x, dims=(2, 3), keepdim=False), 5))


def base(count: int = 80) -> Base:
    graph, images = network(), smooth_images(count, 3, 16)
    for node in graph.nodes:  # a few channels that take most of a tensor's range
        if node.op == "conv2d" and node.inputs[1].shape[1] > 1:
            node.inputs[1].data[0] *= 4.0
    result = quantize(graph, images, QuantizeSettings(ranges="minmax", gptq=False))
    return Base(result.graph, graph, result.means, result.order, (images,))


class Clock:
    """Nanoseconds by what a unit reads and writes, floats four times as dear; a file takes its units' and a
    tenth more. slips: what a mixed file takes beyond that.
    """

    def __init__(self, slip: float = 1.0, float_price: float = 4.0) -> None:
        self.slip, self.float_price, self.timed = slip, float_price, 0

    def ns(self, units):
        known = {unit.key for unit in units}
        assert known
        return self.one

    def one(self, unit) -> float:
        price = 0.0
        for tensor in (*unit.inputs, *unit.outputs):
            price += math.prod(tensor.shape) * (self.float_price if tensor.dtype == "float32" else 1.0)
        return price

    def measured_ms(self, graphs):
        self.timed += 1
        found = {}
        for name, (graph, target) in graphs.items():
            units = units_of_graph(graph, get_target(target))
            found[name] = 1.1e-6 * sum(map(self.one, units)) * (self.slip if name == "mixed" else 1.0)
        return found
