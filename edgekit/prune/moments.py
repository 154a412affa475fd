"""What layers read, as second moments over images.

Enters: a graph, images, and for every node a view of its input as rows. Leaves: for every node the covariance
of those rows and their mean, in float64; images stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from edgekit.graph.ir import Graph, Node
from edgekit.graph.run import run, run_node
from edgekit.prune import rows

Tensor = torch.Tensor
View = Callable[[Tensor], Tensor]  # a node's input -> rows (R, G, K)

BATCH = 16
MAX_ROWS = 24576  # of all images together
WORKING_BYTES = 1 << 28


@dataclass(frozen=True)
class Moment:
    """covariance (G, K, K) and mean (G, K) of what each group reads, float64."""

    covariance: Tensor
    mean: Tensor


def pixels(node: Node) -> View:
    """The input of a conv2d or linear node, position by position: (R, G, C / G)."""
    groups = rows.groups_of(node)

    def view(x: Tensor) -> Tensor:
        last = x.permute(0, 2, 3, 1) if node.op == "conv2d" else x
        return last.reshape(-1, groups, last.shape[-1] // groups)

    return view


def input_moments(
    graph: Graph, images: Tensor | Sequence[Tensor], views: Mapping[Node, View], seed: int = 0
) -> dict[Node, Moment]:
    """The moments of every node's rows over all images, of a seeded choice where there are many."""
    sums: dict[Node, tuple[Tensor, Tensor, int]] = {}
    rng = torch.Generator().manual_seed(seed)
    given = [images] if isinstance(images, Tensor) else list(images)
    count = len(given[0])

    def apply(node: Node, args: list[Tensor | None]) -> Sequence[Tensor]:
        if node in views and args[0] is not None:
            some = views[node](args[0])
            most = min(MAX_ROWS, max(1024, WORKING_BYTES // (4 * some[0].numel()))) * share
            if len(some) > most:
                some = some[torch.randperm(len(some), generator=rng)[: max(1, int(most))]]
            xx, x, n = sums.get(node, (torch.zeros(1), torch.zeros(1), 0))
            sums[node] = (xx + rows.product(some, some), x + some.double().sum(0), n + len(some))
        return run_node(node, args)

    with torch.no_grad():
        for batch in batches(graph, given):
            share = len(batch[0]) / count
            run(graph, batch, apply=apply)
    found = {}
    for node, (xx, x, n) in sums.items():
        mean = x / n
        found[node] = Moment(xx / n - mean[:, :, None] * mean[:, None, :], mean)
    return found


def batches(graph: Graph, images: Sequence[Tensor], size: int = BATCH) -> Iterator[list[Tensor]]:
    """A tensor a graph input, at most `size` images each; one where the graph bakes in its batch."""
    for pieces in zip(*(x.split(size if graph.batchable else 1) for x in images), strict=True):
        yield [piece.float() for piece in pieces]
