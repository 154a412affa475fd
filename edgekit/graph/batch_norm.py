"""A batch norm by its running statistics, as the line that it is."""

from __future__ import annotations

import torch

from edgekit.graph.ir import Node


def affine(norm: Node) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch_norm node as y = gain * x + shift, float64 (C,) each."""
    weight, bias, mean, var = (None if v is None else v.data.double() for v in norm.inputs[1:])  # type: ignore[union-attr]
    assert mean is not None and var is not None
    gain = torch.rsqrt(var + norm.attrs["eps"])
    if weight is not None:
        gain = gain * weight
    shift = -mean * gain
    return gain, shift if bias is None else shift + bias
