"""Execute and train a graph in torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from edgekit.errors import GraphError
from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import OPS


def run_node(node: Node, args: Sequence[torch.Tensor | None]) -> tuple[torch.Tensor, ...]:
    """Apply one node's torch function; always a tuple, one tensor per output."""
    result = OPS[node.op].fn(*args, **node.attrs)
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def run(
    graph: Graph,
    inputs: Sequence[torch.Tensor],
    on_value: Callable[[Value, torch.Tensor], torch.Tensor] | None = None,
    before_node: Callable[[Node, list[torch.Tensor | None]], None] | None = None,
) -> list[torch.Tensor]:
    """Execute the graph in torch.

    Args:
        inputs: one tensor per graph input, (N, ...); N may differ from the recorded batch of 1.
        on_value: called with every value, constants and inputs included, as it is first read or produced; its
            result is what the readers see (fake-quantization, observers).
        before_node: called with a node and its arguments just before it runs.
    Returns: one tensor per graph output, (N, ...). Intermediates are freed after their last use.
    """
    if not graph.batchable and inputs and len(inputs[0]) > 1:
        images = zip(*(x.split(1) for x in inputs), strict=True)
        each = [run(graph, image, on_value, before_node) for image in images]
        shapes = [per_image(value.shape) for value in graph.outputs]
        return [
            torch.stack([part.reshape(shape) for part in parts])
            for parts, shape in zip(zip(*each, strict=True), shapes, strict=True)
        ]
    hook = on_value or (lambda _value, tensor: tensor)
    if len(inputs) != len(graph.inputs):
        raise GraphError(f"[run] {len(inputs)} inputs given: the graph takes {len(graph.inputs)}")
    env: dict[Value, torch.Tensor] = {}
    for value, tensor in zip(graph.inputs, inputs, strict=True):
        if tuple(tensor.shape[1:]) != value.shape[1:]:
            raise GraphError(
                f"[run] input {value.name} has shape {tuple(tensor.shape)}: expected (N, "
                f"{', '.join(map(str, value.shape[1:]))})"
            )
        env[value] = hook(value, tensor)
    last_use = {value: i for i, node in enumerate(graph.nodes) for value in node.operands}
    keep = set(graph.outputs)
    for i, node in enumerate(graph.nodes):
        args: list[torch.Tensor | None] = []
        for operand in node.inputs:
            if operand is None:
                args.append(None)
                continue
            if operand not in env:
                assert operand.data is not None, operand
                env[operand] = hook(operand, operand.data)
            args.append(env[operand])
        if before_node:
            before_node(node, args)
        for value, tensor in zip(node.outputs, run_node(node, args), strict=True):
            env[value] = hook(value, tensor)
        for spent in node.operands:
            if last_use[spent] == i and spent not in keep:
                env.pop(spent, None)
    for value in graph.outputs:
        if value not in env and value.data is not None:
            env[value] = hook(value, value.data)
    return [env[value] for value in graph.outputs]


def per_image(shape: Sequence[int]) -> tuple[int, ...]:
    """The part of a recorded shape that belongs to one image: without the batch of 1 where there is one."""
    return tuple(shape[1:] if tuple(shape[:1]) == (1,) else shape)


def as_module(graph: Graph) -> torch.nn.Module:
    """An nn.Module whose floating constants are parameters, shared with this graph: training edits it."""
    return _GraphModule(graph)


class _GraphModule(torch.nn.Module):
    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        for value in graph.constants():
            assert value.data is not None
            if value.data.is_floating_point():
                value.data = torch.nn.Parameter(value.data.detach().clone())
                name = value.name.replace(".", "/")
                while hasattr(self, name):  # "a.b" beside "a/b", or a constant called "graph"
                    name += "_"
                self.register_parameter(name, value.data)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        results = run(self.graph, inputs)
        return results[0] if len(results) == 1 else results
