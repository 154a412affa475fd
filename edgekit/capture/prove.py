"""A captured graph against what it was captured from."""

from __future__ import annotations

import torch

from edgekit.errors import CaptureError
from edgekit.graph.ir import Graph
from edgekit.graph.run import run

RELATIVE_TOLERANCE = 1e-4


def prove(graph: Graph, examples: list[torch.Tensor], reference: list[torch.Tensor]) -> None:
    got = run(graph, examples)
    for value, a, b in zip(graph.outputs, got, reference, strict=True):
        error = relative_error(a, b)
        if not error <= RELATIVE_TOLERANCE:
            raise CaptureError(
                f"[capture] {graph.name}: output {value.name} differs from eager by {error:.1e}: "
                f"at most {RELATIVE_TOLERANCE:.0e} relative; is it random or stateful in eval mode?"
            )
    graph.batchable = find_batchable(graph, examples, got)


def find_batchable(graph: Graph, examples: list[torch.Tensor], got: list[torch.Tensor]) -> bool:
    """Does a batch of two answer for its second image what `got` says of it alone?"""
    batches = doubled(examples)
    graph.batchable = True  # or `run` would split the batch
    try:
        return all(
            tuple(p.shape) == (2, *a.shape[1:]) and relative_error(p[1:], a) <= RELATIVE_TOLERANCE
            for p, a in zip(run(graph, batches), got, strict=True)
        ) and all(bool(a.any()) for a in got)  # zeros (an untrained head) would prove nothing
    except RuntimeError:
        return False


def doubled(examples: list[torch.Tensor]) -> list[torch.Tensor]:
    """Batches of two whose second image is the example."""
    # The companion differs from the example, or mixing two images of a batch would go unseen.
    return [torch.cat([x + torch.linspace(-1, 1, x.numel()).reshape(x.shape), x]) for x in examples]


def follows(graph: Graph, batches: list[torch.Tensor], reference: list[torch.Tensor]) -> bool:
    """Does the graph make of a batch what the module makes of it?"""
    graph.batchable = True
    try:
        got = run(graph, batches)
    except RuntimeError:
        return False
    pairs = zip(got, reference, strict=True)
    return all(bool(b.any()) and relative_error(a, b) <= RELATIVE_TOLERANCE for a, b in pairs)


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    """max |a - b| / max |b|; infinite when shapes differ."""
    if a.shape != b.shape:
        return float("inf")
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-12)) if b.numel() else 0.0
