"""The hard set's checkpoints for benchmarks: pictures of a split, and what a graph answers to them."""

from __future__ import annotations

import torch

from edgekit.data import open_images
from edgekit.data.preprocessing import Preprocessing
from edgekit.graph.ir import Graph
from edgekit.graph.run import run

Tensor = torch.Tensor
BATCH = 25


def pictures(row: dict, split: str, count: int) -> tuple[Tensor, Tensor]:
    """Inputs (N, 3, H, W) and labels (N,), for a checkpoint with this row of index.json."""
    side = row["resolution"]
    like = Preprocessing(side, side, row["interpolation"], tuple(row["mean"]), tuple(row["std"]))
    images = open_images(row["data"], split, count, like)
    inputs = torch.cat([torch.as_tensor(batch) for batch in images.batches(BATCH)])
    assert images.labels is not None
    return inputs, torch.as_tensor(images.labels)


def answers(graph: Graph, inputs: Tensor) -> Tensor:
    """The first output, (N, classes)."""
    with torch.inference_mode():
        return torch.cat([run(graph, [part])[0] for part in inputs.split(BATCH)])


def accuracy(answered: Tensor, labels: Tensor) -> float:
    return float((answered.argmax(1) == labels).double().mean())
