"""Run a graph node by node, with the caller computing each node.

`ir.run` serves hooks on values; calibration needs more: the tensor before the fused activation, integers
instead of reals, weights that change on the way. The walk keeps the bookkeeping (arguments, lifetimes) and
nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import OPS

Arguments = list[torch.Tensor | None]
Apply = Callable[[Node, Arguments], Sequence[torch.Tensor]]


def walk(
    graph: Graph,
    inputs: Sequence[torch.Tensor],
    apply: Apply,
    constant: Callable[[Value], torch.Tensor] | None = None,
) -> list[torch.Tensor]:
    """Execute `graph`; `apply(node, arguments)` returns the node's output tensors."""
    env: dict[Value, torch.Tensor] = dict(zip(graph.inputs, inputs, strict=True))
    last_use = {value: i for i, node in enumerate(graph.nodes) for value in node.operands}
    keep = set(graph.outputs)
    for i, node in enumerate(graph.nodes):
        args: Arguments = []
        for operand in node.inputs:
            if operand is None:
                args.append(None)
            elif operand.data is not None:
                args.append(constant(operand) if constant else operand.data)
            else:
                args.append(env[operand])
        for spent in node.operands:
            if last_use[spent] == i and spent not in keep:
                env.pop(spent, None)
        env.update(zip(node.outputs, apply(node, args), strict=True))
        del args
    return [env[v] if v in env else (constant(v) if constant else v.data) for v in graph.outputs]  # type: ignore[misc]


def without_activation(node: Node, args: Arguments) -> torch.Tensor:
    """The result of a node before its fused activation."""
    attrs = node.attrs
    if attrs.get("activation"):
        attrs = {**attrs, "activation": None}
    result = OPS[node.op].fn(*args, **attrs)
    assert isinstance(result, torch.Tensor)
    return result


def activate_(tensor: torch.Tensor, activation: str | None) -> torch.Tensor:
    """The fused activation, in place."""
    if activation == "relu":
        return tensor.relu_()
    if activation == "relu6":
        return tensor.clamp_(0.0, 6.0)
    return tensor
