"""Execute a graph in torch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

import torch

from edgekit.errors import GraphError
from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import OPS

Tensor = torch.Tensor
T = TypeVar("T")
Apply = Callable[[Node, list[Tensor | None]], Sequence[Tensor]]
OnValue = Callable[[Value, Tensor], Tensor]


def run_node(node: Node, args: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """Apply one node's torch function; always a tuple, one tensor per output."""
    result = OPS[node.op].fn(*args, **node.attrs)
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def walk(
    graph: Graph,
    inputs: Sequence[T],
    apply: Callable[[Node, list[T | None]], Sequence[T]],
    on_value: Callable[[Value, Any], T] | None = None,
) -> Generator[tuple[Node, Sequence[T]], None, list[T]]:
    """Execute the graph node by node: the one walk, whatever a node computes and its readers see.

    Args:
        inputs: one per graph input. Where they are tensors, (N, ...): N may differ from the recorded batch of
            1 if the graph is batchable.
        apply: computes a node from its arguments (None for an absent one), one result per output. The list of
            arguments is its own: what it drops from it is freed.
        on_value: called with every value as it is first read or produced: inputs, results, and the tensors
            of constants. What it gives is what the readers see (fake-quantization, observers, the numbers
            of a runtime).
    Yields: each node and what `apply` gave, after `on_value` saw it.
    Returns: one per graph output. What nobody reads any more is freed before the next node.
    """
    if len(inputs) != len(graph.inputs):
        raise GraphError(f"[run] {len(inputs)} inputs given: the graph takes {len(graph.inputs)}")
    hook = on_value or (lambda _value, tensor: tensor)
    env: dict[Value, T] = {v: hook(v, given) for v, given in zip(graph.inputs, inputs, strict=True)}
    del inputs

    def read(value: Value) -> T:
        if value not in env:
            assert value.data is not None, value
            env[value] = hook(value, value.data)
        return env[value]

    last_use = {value: i for i, node in enumerate(graph.nodes) for value in node.operands}
    keep = set(graph.outputs)
    for i, node in enumerate(graph.nodes):
        args = [None if operand is None else read(operand) for operand in node.inputs]
        for spent in node.operands:
            if last_use[spent] == i and spent not in keep:
                env.pop(spent, None)
        results = apply(node, args)
        del args
        for value, result in zip(node.outputs, results, strict=True):
            seen = hook(value, result)
            if value in last_use or value in keep:
                env[value] = seen
            del seen, result
        yield node, results
        del results
    return [read(value) for value in graph.outputs]


def finish(steps: Generator[tuple[Node, Sequence[T]], None, list[T]]) -> list[T]:
    """The outputs of a walk whose steps nobody looks at; nothing of a step is held on to."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return list(end.value)


def run(
    graph: Graph,
    inputs: Sequence[Tensor],
    on_value: OnValue | None = None,
    apply: Apply = run_node,
    *,
    any_side: bool = False,
) -> list[Tensor]:
    """Execute the graph in torch.

    Args:
        inputs: one tensor per graph input, (N, ...); N may differ from the recorded batch of 1. A graph that
            is not batchable goes image by image.
        on_value, apply: as `walk` takes them.
        any_side: pictures may have another height and width than the recorded one (see `sides`).
    Returns: one tensor per graph output, (N, ...). Intermediates are freed after their last use.
    Raises: GraphError for another number or shape of inputs.
    """
    for value, tensor in zip(graph.inputs, inputs, strict=False):
        end = 2 if any_side and tensor.ndim == len(value.shape) == 4 else None
        if tuple(tensor.shape[1:end]) != value.shape[1:end]:
            raise GraphError(
                f"[run] input {value.name} has shape {tuple(tensor.shape)}: expected (N, "
                f"{', '.join(map(str, value.shape[1:]))})"
            )
    if graph.batchable or not inputs or len(inputs[0]) == 1:
        return finish(walk(graph, inputs, apply, on_value))
    images = zip(*(x.split(1) for x in inputs), strict=True)
    each = [finish(walk(graph, image, apply, on_value)) for image in images]
    shapes = [per_image(value.shape) for value in graph.outputs]
    return [
        torch.stack([part.reshape(shape) for part in parts])
        for parts, shape in zip(zip(*each, strict=True), shapes, strict=True)
    ]


def answers(graph: Graph, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The outputs image by image: one tensor per output, (N, *what belongs to one image), however many N."""
    count = len(inputs[0])
    given = run(graph, inputs)
    return [t.reshape(count, *per_image(v.shape)) for v, t in zip(graph.outputs, given, strict=True)]


def per_image(shape: Sequence[int]) -> tuple[int, ...]:
    """The part of a recorded shape that belongs to one image: without the batch of 1 where there is one."""
    return tuple(shape[1:] if tuple(shape[:1]) == (1,) else shape)
