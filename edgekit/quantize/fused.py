"""A node in the parts that calibration needs: what it computes before its fused activation, and that."""

from __future__ import annotations

import torch

from edgekit.graph.ir import Node
from edgekit.graph.ops import OPS

Arguments = list[torch.Tensor | None]


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
