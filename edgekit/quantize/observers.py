"""Streaming statistics of every activation, kept per image so that one bad image can be told from the rest.

Enters: a float graph and images. Leaves: for each activation the minimum and maximum of every channel in
every image; for each convolution and matrix product the mean of every channel before its activation (what
bias correction restores); a small fixed sample of values; what the outputs are compared by. One pass in
batches. Rows are images even where a tensor's leading dimension counts windows or tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from edgekit.errors import QuantizationError
from edgekit.graph.batch import batch_dims
from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import MOVES, OPS
from edgekit.graph.run import finish, walk
from edgekit.quantize import rules
from edgekit.quantize.fused import Arguments, activate_, without_activation
from edgekit.quantize.images import BATCH, Given, Images, images_first, per_image

Tensor = torch.Tensor


OCTAVES = 32  # of probabilities that are told apart
_PROBABILITIES = 1 << 14  # of an image and a softmax that are looked at
OUTPUT_VALUES = 1 << 15  # of an image and an output that are compared
OUTLIER_GAP = 0.5  # share of the tight span by which an image's extreme must stand apart to be set aside


@dataclass
class Observations:
    """Statistics of one pass. Rows are images."""

    low: dict[Value, Tensor] = field(default_factory=dict)  # (N, C), C = 1 where channels do not apply
    high: dict[Value, Tensor] = field(default_factory=dict)
    mean: dict[Node, Tensor] = field(default_factory=dict)  # (N, O) before the activation
    sample: dict[Value, Tensor] = field(default_factory=dict)  # (N, S)
    # of each softmax: the share of probability in values of 2**-k down to 2**-(k + 1), and their mean square
    octaves: dict[Value, Tensor] = field(default_factory=dict)  # (N, OCTAVES)
    square: dict[Value, Tensor] = field(default_factory=dict)  # (N,)
    outputs: list[Tensor] = field(default_factory=list)  # (N, values) of each graph output
    samples: int = 0  # values sampled per image

    def rows(self, index: Tensor, means: Tensor) -> Observations:
        """Those of some images, in this order.

        Args:
            index: which images. means: of which of them the means, whose rows are the first images'.
        """
        return Observations(
            {value: rows[index] for value, rows in self.low.items()},
            {value: rows[index] for value, rows in self.high.items()},
            {node: rows[means] for node, rows in self.mean.items()},
            {value: rows[index] for value, rows in self.sample.items()},
            {value: rows[index] for value, rows in self.octaves.items()},
            {value: rows[index] for value, rows in self.square.items()},
            samples=self.samples,
        )

    def copy(self) -> Observations:
        """A copy to go back to: the tensors are shared, for nothing writes into them."""
        return Observations(
            dict(self.low),
            dict(self.high),
            dict(self.mean),
            dict(self.sample),
            self.octaves,
            self.square,
            samples=self.samples,
        )

    def minmax(self, value: Value) -> rules.Range:
        return float(self.low[value].min()), float(self.high[value].max())

    def tight(self, value: Value) -> rules.Range:
        """Extremes without those of the images furthest out, two of 128 on either side.

        Counting images, not values: a tensor of a hundred values an image has no useful 99.9th percentile,
        while one poisoned image is exactly one row here.
        """
        drop = trim_count(len(self.low[value]))
        lows, highs = self._sorted(value)
        return float(lows[drop]), float(highs[drop])

    def trimmed(self, value: Value) -> rules.Range:
        """Extremes without those of images that stand apart by more than half the tight span."""
        drop = trim_count(len(self.low[value]))
        lows, highs = self._sorted(value)
        gap = OUTLIER_GAP * max(max(float(highs[drop]), 0.0) - min(float(lows[drop]), 0.0), 1e-12)
        first = [0, 0]
        for side, ends in enumerate((lows, -highs)):
            for i in range(drop):
                if float(ends[i + 1] - ends[i]) > gap:
                    first[side] = i + 1
        return float(lows[first[0]]), float(highs[first[1]])

    def _sorted(self, value: Value) -> tuple[Tensor, Tensor]:
        """Each image's minimum, ascending, and maximum, descending."""
        lows = self.low[value].amin(1).sort().values
        return lows, self.high[value].amax(1).sort(descending=True).values

    def strangeness(self, index: Tensor) -> Tensor:
        """How far each of some images exceeds their tight range of any tensor: (N,), up to 1 within it."""
        worst, drop = torch.zeros(len(index)), trim_count(len(index))
        for value in self.low:
            lows, highs = self.low[value][index].amin(1), self.high[value][index].amax(1)
            low, high = float(lows.sort().values[drop]), float(highs.sort(descending=True).values[drop])
            span = max(high, 0.0) - min(low, 0.0)
            if span > 0.0:
                worst = torch.maximum(worst, 1.0 + torch.maximum(highs - high, low - lows) / span)
        return worst


def sample_positions(size: int, samples: int) -> Tensor:
    """Which of `size` values of an image are sampled: fixed, spread evenly, channels last."""
    order = np.random.default_rng(size).permutation(size)[:samples]
    return torch.from_numpy(np.sort(order))


def trim_count(images: int) -> int:
    """How many images may be outvoted on either side: none below 16, one in 64 above."""
    return 0 if images < 16 else math.ceil(images / 64)


def observe(
    graph: Graph,
    images: Given | Images,
    samples: int = 0,
    batch: int = BATCH,
    channels: Mapping[Value, int] | None = None,
    means: int | None = None,
) -> Observations:
    """Run the float graph over the images and collect statistics.

    Args:
        images: (N, ...) float32, one tensor per graph input.
        samples: values to keep per image and activation (0: none), at positions fixed by a seed.
        batch: images that run at once, fewer where their values are large.
        channels: values whose channels are told apart, and the dimension that counts them; None: all that
            have channels, along dimension 1.
        means: of how many images, the first ones, to keep the means; None: all.
    Raises: QuantizationError naming image, tensor and module for NaN or infinity.
    """
    images = images if isinstance(images, Images) else Images(graph, images)
    kept = _Collector(graph, len(images), samples, channels, means)
    with torch.inference_mode():
        for pieces in images.batches(images.at_once(batch)):
            kept.begin(graph, pieces)
            kept.end(graph, finish(walk(graph, pieces, kept.node)))
    return kept.found


class _Collector:
    def __init__(
        self,
        graph: Graph,
        total: int,
        samples: int,
        channels: Mapping[Value, int] | None,
        means: int | None,
    ) -> None:
        self.wanted = set(rules.activations(graph))
        self.total, self.samples, self.channels = total, samples, channels
        self.means = total if means is None else min(means, total)
        self.count, self.seen = 0, 0  # images in this batch, and before it
        self.found = Observations(samples=samples)
        self.outputs: dict[int, Tensor] = {}
        self.positions: dict[int, Tensor] = {}
        self.producer: dict[Value, str] = {v: n.source for n in graph.nodes for v in n.outputs}
        self.dims = batch_dims(graph)

    def put(self, table: dict[Any, Tensor], key: Any, rows: Tensor, total: int) -> None:
        """The rows of this batch into a table of `total` rows, as far as they fit."""
        if key not in table:
            with torch.inference_mode(False):
                table[key] = torch.empty(total, *rows.shape[1:])
        place = table[key][self.seen : self.seen + self.count]
        place.copy_(rows[: len(place)])

    def begin(self, graph: Graph, pieces: list[Tensor]) -> None:
        """A new batch, one tensor an input."""
        self.seen += self.count
        self.count = len(pieces[0])
        for value, piece in zip(graph.inputs, pieces, strict=True):
            finite = torch.isfinite(piece).flatten(1).all(1)
            if not bool(finite.all()):
                bad = self.seen + int((~finite).nonzero()[0])
                raise QuantizationError(
                    f"[quantize] calibration image {bad} contains NaN or infinity: finite float32 pixels are "
                    "needed"
                )
            if value in self.wanted:
                self.value(value, piece, "input")

    def end(self, graph: Graph, outputs: list[Tensor]) -> None:
        """The outputs of the batch."""
        for i, (value, tensor) in enumerate(zip(graph.outputs, outputs, strict=True)):
            self.put(self.outputs, i, looked_at(tensor, self.dims.get(value), self.count), self.total)
        self.found.outputs = list(self.outputs.values())

    def node(self, node: Node, args: Arguments) -> tuple[Tensor, ...]:
        if rules.weight_of(node) is not None:
            y = without_activation(node, args)
            means = channel_mean(node, y, self.dims.get(node.output), self.count)
            self.put(self.found.mean, node, means, self.means)
            results: tuple[Tensor, ...] = (activate_(y, node.attrs.get("activation")),)
        else:
            found = OPS[node.op].fn(*args, **node.attrs)
            results = tuple(found) if isinstance(found, tuple | list) else (found,)
        if node.op == "softmax":
            self.probabilities(node.output, results[0])
        for value, tensor in zip(node.outputs, results, strict=True):
            if value in self.wanted and node.op not in MOVES:
                self.value(value, tensor, node.op, node.attrs.get("activation") is not None)
        return results

    def value(self, value: Value, tensor: Tensor, op: str, rectified: bool = False) -> None:
        tensor = images_first(tensor, self.dims.get(value), self.count)
        axis = 1 if self.channels is None else self.channels.get(value, 1)
        low, high = (per_image(rows, self.count) for rows in channel_extremes(tensor, rectified, axis))
        low, high = low.amin(1), high.amax(1)
        if self.channels is not None and value not in self.channels:
            low, high = low.amin(1, keepdim=True), high.amax(1, keepdim=True)
        self.put(self.found.low, value, low, self.total)
        self.put(self.found.high, value, high, self.total)
        if not math.isfinite(float(low.sum() + high.sum())):
            image = self.seen + int((~torch.isfinite(low.sum(1) + high.sum(1))).nonzero()[0])
            source = self.producer.get(value) or "top level"
            raise QuantizationError(
                f"[quantize] {value.name} at {source} ({op}) is NaN or infinite on calibration image "
                f"{image}: finite activations are needed; check the weights of this module"
            )
        if self.samples:
            last = tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 and axis == 1 else tensor
            flat = last.reshape(self.count, -1)
            self.put(self.found.sample, value, flat[:, self._positions(flat.shape[1])], self.total)

    def probabilities(self, value: Value, tensor: Tensor) -> None:
        """How a softmax spreads over its positions."""
        flat = images_first(tensor, self.dims.get(value), self.count).reshape(self.count, -1)
        flat = flat[:, :: max(1, flat.shape[1] // _PROBABILITIES)]
        octave = flat.clamp_min(2.0**-OCTAVES).log2_().neg_().floor_().clamp_(0, OCTAVES - 1).long()
        shares = torch.zeros(self.count, OCTAVES).scatter_add_(1, octave, flat)
        shares /= shares.sum(1, keepdim=True).clamp_min(1e-12)
        self.put(self.found.octaves, value, shares, self.total)
        self.put(self.found.square, value, flat.square().mean(1), self.total)

    def _positions(self, size: int) -> Tensor:
        if size not in self.positions:
            self.positions[size] = sample_positions(size, self.samples)
        return self.positions[size]


def looked_at(tensor: Tensor, dim: int | None, count: int) -> Tensor:
    """What of an output is compared: (count, values), of many a fixed sample.

    Args:
        dim: the dimension that counts images, an entry of `batch_dims`.
    """
    rows = images_first(tensor.reshape(1) if tensor.ndim == 0 else tensor, dim, count).reshape(count, -1)
    size = rows.shape[1]
    return rows[:, sample_positions(size, OUTPUT_VALUES)] if size > OUTPUT_VALUES else rows


def channel_extremes(tensor: Tensor, rectified: bool = False, axis: int = 1) -> tuple[Tensor, Tensor]:
    """Minimum and maximum of each channel in each row: (N, C) twice; (N, 1) where channels do not apply.

    Along dimension 1 they apply to two dimensions and four, along the last wherever that is asked for.

    Behind a ReLU the minimum is taken to be zero, which saves a pass over the tensor.
    """
    if tensor.ndim == 2:
        return tensor.clone(), tensor.clone()
    if axis != 1:
        flat = tensor.movedim(axis, -1).reshape(len(tensor), -1, tensor.shape[axis])
    elif tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        flat = tensor.permute(0, 2, 3, 1).flatten(1, 2)  # (N, H*W, C) without a copy
    elif tensor.ndim == 4:
        flat = tensor.flatten(2).transpose(1, 2)
    else:
        flat = tensor.reshape(len(tensor) if tensor.ndim else 1, -1, 1)
    high = flat.amax(1)
    return (torch.zeros_like(high) if rectified else flat.amin(1)), high


def channel_mean(node: Node, tensor: Tensor, dim: int | None, count: int) -> Tensor:
    """The mean of each output channel of a convolution or matrix product in each image: (count, O).

    Args:
        dim: the dimension of `tensor` that counts images, an entry of `batch_dims`.
    """
    if node.op == "linear":
        rows = images_first(tensor, dim, count)
        return rows.reshape(count, -1, rows.shape[-1]).mean(1)
    means = images_first(tensor, dim, count).mean((2, 3))
    return per_image(means, count).mean(1)
