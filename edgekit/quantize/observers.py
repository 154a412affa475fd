"""Streaming statistics of every activation, kept per image so that one bad image can be told from the rest.

Enters: a float graph and images. Leaves: for each activation the minimum and maximum of every channel in
every image; for each convolution and matrix product the mean of every channel before its activation (what
bias correction restores); a small fixed sample of values; the float outputs. One pass, batches of 16.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from edgekit.errors import QuantizationError
from edgekit.ir import Graph, Node, Value
from edgekit.ops import OPS
from edgekit.quantize import rules
from edgekit.quantize.walk import Arguments, activate_, batches, check_images, walk, without_activation

Tensor = torch.Tensor


@dataclass
class Observations:
    """Statistics of one pass. Rows are images."""

    low: dict[Value, Tensor] = field(default_factory=dict)  # (N, C), C = 1 where channels do not apply
    high: dict[Value, Tensor] = field(default_factory=dict)
    mean: dict[Node, Tensor] = field(default_factory=dict)  # (N, O) before the activation
    sample: dict[Value, Tensor] = field(default_factory=dict)  # (N, S)
    outputs: list[Tensor] = field(default_factory=list)

    def rows(self, index: slice) -> Observations:
        """The same statistics of fewer images."""
        return Observations(
            {v: t[index] for v, t in self.low.items()},
            {v: t[index] for v, t in self.high.items()},
            {n: t[index] for n, t in self.mean.items()},
            {v: t[index] for v, t in self.sample.items()},
            [t[index] for t in self.outputs],
        )

    def minmax(self, value: Value) -> rules.Range:
        return float(self.low[value].min()), float(self.high[value].max())

    def trimmed(self, value: Value) -> rules.Range:
        """Extremes without those of the images furthest out, two of 128 on either side.

        Counting images, not values: a tensor of a hundred values a image has no meaningful 99.9th percentile,
        while one poisoned image is exactly one row here.
        """
        drop = trim_count(len(self.low[value]))
        lows = self.low[value].amin(1).sort().values
        highs = self.high[value].amax(1).sort().values
        return float(lows[drop]), float(highs[-1 - drop])


def trim_count(images: int) -> int:
    """How many images may be outvoted on either side: none below 16, one in 64 above."""
    return 0 if images < 16 else math.ceil(images / 64)


def observe(graph: Graph, images: Tensor, samples: int = 0, batch: int = 16) -> Observations:
    """Run the float graph over the images and collect statistics.

    Args:
        images: (N, C, H, W) float32.
        samples: values to keep per image and activation (0: none), at positions fixed by a seed.
    Raises: QuantizationError naming image, tensor and module for NaN or infinity.
    """
    check_images(graph, images)
    kept = _Collector(graph, samples)
    outputs: list[list[Tensor]] = []
    with torch.inference_mode():
        for piece in batches(images, batch):
            for value in graph.inputs:
                kept.value(value, piece, "input")
            outputs.append(walk(graph, [piece], kept.node))
    result = kept.finish()
    result.outputs = [torch.cat(pieces) for pieces in zip(*outputs, strict=True)]
    return result


class _Collector:
    def __init__(self, graph: Graph, samples: int) -> None:
        self.wanted = set(rules.activations(graph))
        self.samples = samples
        self.low: dict[Value, list[Tensor]] = {}
        self.high: dict[Value, list[Tensor]] = {}
        self.mean: dict[Node, list[Tensor]] = {}
        self.sample: dict[Value, list[Tensor]] = {}
        self.positions: dict[int, Tensor] = {}
        self.producer: dict[Value, str] = {v: n.source for n in graph.nodes for v in n.outputs}

    def node(self, node: Node, args: Arguments) -> tuple[Tensor, ...]:
        if rules.weight_of(node) is not None:
            y = without_activation(node, args)
            self.mean.setdefault(node, []).append(channel_mean(y, rules.WEIGHT_AXIS[node.op] is not None))
            results: tuple[Tensor, ...] = (activate_(y, node.attrs.get("activation")),)
        else:
            found = OPS[node.op].fn(*args, **node.attrs)
            results = tuple(found) if isinstance(found, tuple | list) else (found,)
        for value, tensor in zip(node.outputs, results, strict=True):
            if value in self.wanted and node.op not in rules.MOVES:
                self.value(value, tensor, node.op)
        return results

    def value(self, value: Value, tensor: Tensor, op: str) -> None:
        low, high = channel_extremes(tensor)
        self.low.setdefault(value, []).append(low)
        self.high.setdefault(value, []).append(high)
        if not math.isfinite(float(low.sum() + high.sum())):
            image = sum(len(t) for t in self.low[value][:-1])
            image += int((~torch.isfinite(low.sum(1) + high.sum(1))).nonzero()[0])
            source = self.producer.get(value) or "top level"
            raise QuantizationError(
                f"[quantize] {value.name} at {source} ({op}) is NaN or infinite on calibration image "
                f"{image}: finite activations are needed; check the weights of this module"
            )
        if self.samples:
            flat = tensor.flatten(1) if tensor.is_contiguous() else _any_order(tensor)
            self.sample.setdefault(value, []).append(flat[:, self._positions(flat.shape[1])])

    def _positions(self, size: int) -> Tensor:
        if size not in self.positions:
            count = min(size, self.samples)
            order = np.random.default_rng(size).choice(size, count, replace=False)
            self.positions[size] = torch.from_numpy(np.sort(order))
        return self.positions[size]

    def finish(self) -> Observations:
        return Observations(
            {v: torch.cat(t) for v, t in self.low.items()},
            {v: torch.cat(t) for v, t in self.high.items()},
            {n: torch.cat(t) for n, t in self.mean.items()},
            {v: torch.cat(t) for v, t in self.sample.items()},
        )


def _any_order(tensor: Tensor) -> Tensor:
    """(N, everything) without copying a channels-last tensor."""
    if tensor.ndim == 4:
        return tensor.permute(0, 2, 3, 1).flatten(1)
    return tensor.flatten(1)


def channel_extremes(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Minimum and maximum of each channel in each image: (N, C) twice; (N, 1) where channels do not apply."""
    if tensor.ndim == 4:
        pixels = tensor.permute(0, 2, 3, 1).flatten(1, 2)  # (N, H*W, C), no copy when channels-last
        return pixels.amin(1), pixels.amax(1)
    if tensor.ndim == 2:
        return tensor.clone(), tensor.clone()
    flat = tensor.reshape(len(tensor), -1)
    return flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)


def channel_mean(tensor: Tensor, channels_first: bool = True) -> Tensor:
    """The mean of each output channel in each image: (N, O)."""
    if tensor.ndim == 4:
        return tensor.mean((2, 3))
    return tensor.clone() if tensor.ndim == 2 else tensor.flatten(1, -2).mean(1)
