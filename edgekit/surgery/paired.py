"""Fit a changed graph to its reference, front to back.

Both graphs walk over the same images. At each site, in the order of the changed graph, the walks stop: what
the changed graph computes there and what the reference computes at the place that it is to match go to the
site's `fit`, which may give the constants of nodes that have not run yet, the site's own included, other
numbers. Every later site thereby sees the changed network's own inputs.

Images are taken in chunks, and as many chunks are under way at a site as memory allows from there on: few
where the pictures are large, all of them behind.

Enters: images, one tensor an input, (N, ...). Leaves: nothing; constants of the changed graph have new data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.run import run_node, walk

Tensor = torch.Tensor
Fit = Callable[[list[Tensor], list[Tensor]], None]
BUDGET_BYTES = 1 << 30  # of tensors alive at the same time, both graphs
CHUNK = 16  # images


@dataclass(frozen=True)
class Site:
    """before: the walk of the changed graph stops before this node.

    sees: a value of the changed graph that is computed by then. meant: a value of the reference.
    fit: gets both, one tensor a chunk.
    beside: a value of the changed graph, computed by then, that is added to what is fitted: `meant` is the
        sum, and the fit gets what is missing of it.
    """

    before: Node
    sees: Value
    meant: Value
    fit: Fit
    beside: Value | None = None

    @property
    def seen(self) -> set[Value]:
        """The values of the changed graph that it looks at."""
        return {self.sees} if self.beside is None else {self.sees, self.beside}


class _Walk:
    """One graph on one chunk of images, advanced node by node; keeps the values that sites look at."""

    def __init__(self, graph: Graph, images: Sequence[Tensor], wanted: set[Value]) -> None:
        self.seen: dict[Value, Tensor] = {
            v: x for v, x in zip(graph.inputs, images, strict=True) if v in wanted
        }
        self.wanted = wanted
        self.steps = walk(graph, images, run_node, self._see)
        self.done = 0

    def _see(self, value: Value, tensor: Tensor) -> Tensor:
        if value in self.wanted:
            self.seen[value] = tensor
        return tensor

    def advance(self, position: int) -> None:
        while self.done < position:
            next(self.steps)
            self.done += 1


def chunks(graph: Graph, images: Sequence[Tensor]) -> list[list[Tensor]]:
    """The images as several runs of the graph take them: image by image where it holds batches of one."""
    size = CHUNK if graph.batchable else 1
    return [list(part) for part in zip(*(x.split(size) for x in images), strict=True)]


def live_bytes(graph: Graph) -> list[int]:
    """Bytes of one image's live values before each node, and after the last."""
    last_use = {value: i for i, node in enumerate(graph.nodes) for value in node.operands}
    last_use.update(dict.fromkeys(graph.outputs, len(graph.nodes)))
    live = {value: 4 * math.prod(value.shape) for value in graph.inputs}
    found = [sum(live.values())]
    for i, node in enumerate(graph.nodes):
        live.update({value: 4 * math.prod(value.shape) for value in node.outputs})
        found.append(sum(live.values()))
        live = {value: size for value, size in live.items() if last_use.get(value, -1) > i}
    return found


def fit_front_to_back(
    graph: Graph, reference: Graph, sites: Sequence[Site], images: Sequence[Tensor]
) -> None:
    """Visit every site in the order of `graph`, see the module's docstring.

    Args:
        graph: its constants are edited by the sites.
        sites: each names values of both graphs.
        images: one tensor a graph input, (N, ...).
    """
    places = {node: i for i, node in enumerate(graph.nodes)}
    ordered = sorted(sites, key=lambda site: places[site.before])
    parts = chunks(graph, images)
    if len(reference.inputs) != len(graph.inputs) or not parts:
        return
    made = {v: i + 1 for i, node in enumerate(reference.nodes) for v in node.outputs}
    ours, theirs = live_bytes(graph), live_bytes(reference)
    each = len(parts[0][0])
    active: list[tuple[_Walk, _Walk]] = []
    with torch.inference_mode():
        for i, site in enumerate(ordered):
            wanted = _wanted(ordered[i:])
            stop = (places[site.before], made.get(site.meant, 0))
            most = each * (max(ours[stop[0] :]) + max(theirs[stop[1] :]))
            while len(active) < min(len(parts), max(1, BUDGET_BYTES // most)):
                part = parts[len(active)]
                active.append((_Walk(graph, part, wanted[0]), _Walk(reference, part, wanted[1])))
                _advance(active[-1], stop)
            for pair in active:
                _advance(pair, stop)
            meant = [theirs_now.seen[site.meant] for _, theirs_now in active]
            if site.beside is not None:
                meant = [
                    t - ours_now.seen[site.beside] for t, (ours_now, _) in zip(meant, active, strict=True)
                ]
            site.fit([ours_now.seen[site.sees] for ours_now, _ in active], meant)
            later = _wanted(ordered[i + 1 :])
            for pair in active:
                for one, kept in zip(pair, later, strict=True):
                    one.wanted = kept
                    one.seen = {v: t for v, t in one.seen.items() if v in kept}


def _wanted(sites: Sequence[Site]) -> tuple[set[Value], set[Value]]:
    """What sites look at in the changed graph and in the reference."""
    return {value for site in sites for value in site.seen}, {site.meant for site in sites}


def _advance(pair: tuple[_Walk, _Walk], stop: tuple[int, int]) -> None:
    for one, position in zip(pair, stop, strict=True):
        one.advance(position)


def averages(graph: Graph, values: Sequence[Value], images: Sequence[Tensor]) -> dict[Value, Tensor]:
    """The mean over images of each value, in its recorded shape, float64."""
    wanted, total, count = set(values), dict[Value, Tensor](), 0
    with torch.inference_mode():
        for part in chunks(graph, images):
            one = _Walk(graph, part, wanted)
            one.advance(max((i + 1 for i, n in enumerate(graph.nodes) if wanted & set(n.outputs)), default=0))
            for value in wanted:
                summed = one.seen[value].double()
                summed = summed.reshape(-1, *value.shape[1:]).sum(0, keepdim=True)
                total[value] = total[value] + summed if value in total else summed
            count += len(part[0])
    return {value: (summed / count).reshape(value.shape) for value, summed in total.items()}
