"""Small graphs and modules the core tests share; random numbers come from local generators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from edgekit.capture import capture
from edgekit.graph.check import check
from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.run import run


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """Eval mode, with weights and batch norm statistics that are all different from zero and one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.running_mean.normal_(0.0, 0.2, generator=generator)
                part.running_var.uniform_(0.5, 1.5, generator=generator)
                if part.weight is not None:
                    part.weight.uniform_(0.5, 1.5, generator=generator)
                    part.bias.normal_(0.0, 0.2, generator=generator)
            elif isinstance(part, nn.Conv2d | nn.Linear | nn.ConvTranspose2d):
                fan_in = part.weight[0].numel()
                part.weight.normal_(0.0, (2.0 / fan_in) ** 0.5, generator=generator)
                if part.bias is not None:
                    part.bias.normal_(0.0, 0.2, generator=generator)
    return module.eval()


class Apply(nn.Module):
    """`fn(module, *inputs)` as a module, with a few layers to call."""

    def __init__(self, fn: Callable[..., Any], **layers: nn.Module | torch.Tensor) -> None:
        super().__init__()
        self.fn = fn
        for name, layer in layers.items():
            if isinstance(layer, nn.Module):
                setattr(self, name, layer)
            else:
                self.register_buffer(name, layer)

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.fn(self, *inputs)


def captured(fn: Callable[..., Any], *inputs: torch.Tensor, **layers: nn.Module | torch.Tensor) -> Graph:
    return capture(randomize(Apply(fn, **layers)), [x.clone() for x in inputs])


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def chain(shape: tuple[int, ...], *steps: tuple[Any, ...]) -> Graph:
    """input -> step -> step ...; a step is (op, output shape, constants, attrs)."""
    last = Value("input", shape)
    graph = Graph([last], [], [])
    for i, (op, out, constants, attrs) in enumerate(steps):
        inputs = [
            None if c is None else Value(f"{op}{i}/{j}", tuple(c.shape), str(c.dtype)[6:], c)
            for j, c in enumerate(constants)
        ]
        result = Value(f"{op}{i}", out)
        graph.nodes.append(Node(op, [last, *inputs], [result], attrs, f"layer{i}"))
        last = result
    graph.outputs = [last]
    check(graph)
    return graph


def outputs(graph: Graph, *inputs: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        return run(graph, [x.clone() for x in inputs])
