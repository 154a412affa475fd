"""Calibration images on their way through a graph: one source of rows per graph input, and which rows of a
tensor belong to which image.

Enters: tensors, or anything that gives float32 rows when indexed. Leaves: batches small enough for the graph,
and per-image views of what it computes. The leading dimension of a value need not count images: attention
folds windows into it and permutes it away, so the statistics ask here instead of assuming.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch

from edgekit.errors import QuantizationError
from edgekit.graph.batch import bytes_per_image
from edgekit.graph.ir import Graph

Tensor = torch.Tensor
BATCH = 16  # images that run at once
BATCH_BYTES = 1 << 29  # of tensors alive at the same time


class Rows(Protocol):
    """What one graph input takes for all images; a tensor is one."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: Any, /) -> Tensor: ...


Given = Rows | Sequence[Rows]  # one source, or one per graph input


class Images:
    """The same images for every input of a graph.

    Args:
        given: a tensor (N, ...), or one per graph input in the graph's order; anything with a length that
            gives float32 rows for an index tensor will do in a tensor's place.
    Raises: QuantizationError where inputs are missing, or lengths or shapes do not fit.
    """

    def __init__(self, graph: Graph, given: Given, order: Tensor | None = None) -> None:
        self.graph = graph
        self.sources: list[Rows] = list(given) if isinstance(given, list | tuple) else [given]  # type: ignore[list-item]
        if len(self.sources) != len(graph.inputs):
            names = ", ".join(value.name for value in graph.inputs)
            raise QuantizationError(
                f"[quantize] {len(self.sources)} tensors of calibration images: {graph.name} takes one for "
                f"each of {names}"
            )
        lengths = [len(source) for source in self.sources]
        self.order = torch.arange(lengths[0]) if order is None else order
        if len(set(lengths)) > 1:
            raise QuantizationError(
                f"[quantize] calibration holds {' and '.join(map(str, lengths))} images: the same number for "
                "each input"
            )
        for value, source in zip(graph.inputs, self.sources, strict=True):
            shape = (
                tuple(source.shape) if isinstance(source, Tensor) else (len(source), *source[:1].shape[1:])
            )
            if shape[1:] != tuple(value.shape[1:]) or not len(source):
                raise QuantizationError(
                    f"[quantize] calibration images for {value.name} have shape {shape}: expected (N, "
                    f"{', '.join(map(str, value.shape[1:]))}) with N of at least 1"
                )

    def __len__(self) -> int:
        return len(self.order)

    def rows(self, index: slice | Tensor) -> Images:
        """Fewer of the images, or others in order."""
        return Images(self.graph, self.sources, self.order[index])

    def at_once(self, most: int = BATCH) -> int:
        """How many run together: at most that many, fewer where the values of one are large."""
        return max(1, min(most, BATCH_BYTES // bytes_per_image(self.graph)))

    def batches(self, size: int = BATCH) -> Iterator[list[Tensor]]:
        """A tensor an input, at most `size` images each; pictures channels last, where convolutions run
        fastest. One image at a time where the graph bakes in its batch.
        """
        for index in self.order.split(size if self.graph.batchable else 1):
            yield [_laid_out(source[index].float()) for source in self.sources]


def _laid_out(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor.contiguous()


def images_first(tensor: Tensor, dim: int | None, count: int) -> Tensor:
    """A tensor whose rows belong to images in turn: (count * k, ...), k rows an image.

    Args:
        dim: its entry of `batch_dims`; what does not depend on the images belongs to each of them.
    """
    if dim is None:
        return (
            tensor.expand(count, *tensor.shape[1:])
            if tensor.shape[:1] == (1,)
            else tensor.repeat(count, *[1] * (tensor.ndim - 1))
        )
    return tensor if dim == 0 else tensor.movedim(dim, 0)


def per_image(rows: Tensor, count: int) -> Tensor:
    """(count * k, ...) -> (count, k, ...)."""
    return rows.reshape(count, -1, *rows.shape[1:])
