"""Small float graphs for the quantization tests, built directly: no capture, no passes."""

from __future__ import annotations

import math

import torch

from edgekit.graph.check import check
from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.run import run
from edgekit.quantize import equalize


class Builder:
    """Appends nodes to a graph; every method returns the new value."""

    def __init__(self, shape: tuple[int, ...], seed: int = 0) -> None:
        self.rng = torch.Generator().manual_seed(seed)
        self.input = Value("image", shape)
        self.nodes: list[Node] = []

    def random(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.rng)

    def op(self, op: str, *inputs: Value | None, outputs: int = 1, **attrs) -> Value:
        name = f"{op}_{len(self.nodes)}"
        values = [Value(f"{name}.{i}" if outputs > 1 else name, ()) for i in range(outputs)]
        self.nodes.append(Node(op, list(inputs), values, attrs, source=name))
        self._shapes()
        return values[0]

    def _shapes(self) -> None:
        node = self.nodes[-1]
        args = [
            None if v is None else (v.data if v.data is not None else torch.zeros(v.shape))
            for v in node.inputs
        ]
        graph = Graph([v for v in node.operands if v.data is None], node.outputs, [node])
        for value, tensor in zip(
            node.outputs,
            run(graph, [a for a, v in zip(args, node.inputs, strict=True) if v in graph.inputs]),
            strict=True,
        ):
            value.shape = tuple(tensor.shape)

    def constant(self, name: str, data: torch.Tensor) -> Value:
        return Value(name, tuple(data.shape), data=data)

    def conv(
        self, x: Value, out: int, kernel: int = 1, stride: int = 1, groups: int = 1, activation=None
    ) -> Value:
        fan_in = x.shape[1] // groups * kernel * kernel
        weight = self.random(out, x.shape[1] // groups, kernel, kernel) * math.sqrt(2 / fan_in)
        n = len(self.nodes)
        return self.op(
            "conv2d",
            x,
            self.constant(f"conv2d_{n}.weight", weight),
            self.constant(f"conv2d_{n}.bias", 0.3 * self.random(out)),
            stride=(stride, stride),
            padding=(kernel // 2,) * 4,
            dilation=(1, 1),
            groups=groups,
            activation=activation,
        )

    def linear(self, x: Value, out: int, activation=None) -> Value:
        n = len(self.nodes)
        weight = self.random(out, x.shape[-1]) / math.sqrt(x.shape[-1])
        return self.op(
            "linear",
            x,
            self.constant(f"linear_{n}.weight", weight),
            self.constant(f"linear_{n}.bias", 0.1 * self.random(out)),
            activation=activation,
        )

    def graph(self, *outputs: Value) -> Graph:
        graph = Graph([self.input], list(outputs), self.nodes, "small")
        check(graph)
        return graph


def inverted_residual_net(seed: int = 0, size: int = 32) -> Graph:
    """What MobileNetV3 is made of: stem, depthwise, squeeze-excite, residual add, pooling, classifier."""
    b = Builder((1, 3, size, size), seed)
    x = b.op("hardswish", b.conv(b.input, 8, 3, 2))
    x = b.conv(x, 8)
    for expand in (24, 32):
        y = b.conv(x, expand, activation="relu")
        y = b.conv(y, expand, 3, groups=expand, activation="relu")
        gate = b.op("mean", y, dims=(2, 3), keepdim=True)
        gate = b.op("hardsigmoid", b.conv(b.conv(gate, 8, activation="relu"), expand))
        y = b.conv(b.op("mul", gate, y), 8)
        x = b.op("add", y, x)
    x = b.op("hardswish", b.conv(x, 48))
    x = b.op("mean", x, dims=(2, 3), keepdim=False)
    x = b.op("hardswish", b.linear(x, 64))
    return b.graph(b.linear(x, 20))


def smooth_images(count: int, seed: int, size: int = 32) -> torch.Tensor:
    """Random images with structure at several scales, roughly unit variance."""
    rng = torch.Generator().manual_seed(seed)
    image = torch.zeros(count, 3, size, size)
    for coarse, share in ((4, 1.0), (size // 2, 0.5), (size, 0.3)):
        noise = torch.randn(count, 3, coarse, coarse, generator=rng)
        image += share * torch.nn.functional.interpolate(noise, (size, size), mode="bilinear")
    return image


def rescale_channels(graph: Graph, seed: int = 0, spread: float = 1.0) -> int:
    """Multiply channels by exp(N(0, spread)) wherever the function stays the same; returns how many families.

    What training with weight decay rarely produces and exported or pruned models do: the same function with
    channels that differ a hundredfold. Families with a ReLU6 are left alone: it is not homogeneous.
    """
    rng = torch.Generator().manual_seed(seed)
    done = 0
    for family in equalize.families(graph):
        if not family.relu6:
            factors = torch.exp(spread * torch.randn(family.units, generator=rng))
            equalize.apply_scales(family, factors)
            done += 1
    return done
