"""What several passes need to edit a graph safely."""

from __future__ import annotations

from collections import Counter

import torch

from edgekit.ir import Graph, Value


def sole_reader(counts: Counter[Value], value: Value) -> bool:
    """True when exactly one operand in the whole graph reads `value` and it is not a graph output."""
    return counts[value] == 1


def new_constant(graph: Graph, name: str, data: torch.Tensor, replaces: Value | None = None) -> Value:
    """A constant named `name`, or a fresh name when another value holds it.

    replaces: the constant whose place it takes in one node; its name is free again only when that was the
        last reader.
    """
    if replaces is not None and replaces.name == name and graph.use_counts()[replaces] == 1:
        return Value(name, tuple(data.shape), data=data)
    return Value(graph.fresh_name(name), tuple(data.shape), data=data)


def per_channel(value: Value | None, channels: int) -> torch.Tensor | None:
    """A constant that scales or shifts (N, C, H, W) per channel, as (C,) float64; None for anything else."""
    if value is None or value.data is None or not value.data.is_floating_point():
        return None
    data = value.data.double()
    if data.numel() == 1:
        return data.reshape(1).expand(channels)
    shape = tuple(data.shape)
    trimmed = shape[1:] if len(shape) == 4 and shape[0] == 1 else shape
    return data.reshape(-1) if trimmed == (channels, 1, 1) else None
