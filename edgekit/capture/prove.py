"""A captured graph against what it was captured from."""

from __future__ import annotations

import torch

from edgekit.capture.quantized import fake_quantize
from edgekit.errors import CaptureError
from edgekit.graph.ir import Graph
from edgekit.graph.run import run

RELATIVE_TOLERANCE = 1e-4
QUANTIZED_TOLERANCE = 0.02  # root mean square: integers that flip in one layer move those after it


def prove(graph: Graph, examples: list[torch.Tensor], reference: list[torch.Tensor]) -> None:
    quantized = is_quantized(graph)
    limit = QUANTIZED_TOLERANCE if quantized else RELATIVE_TOLERANCE
    got = run(graph, examples, fake_quantize if quantized else None)
    for value, a, b in zip(graph.outputs, got, reference, strict=True):
        error = rms_error(a, b) if quantized else relative_error(a, b)
        if not error <= limit:
            raise CaptureError(
                f"[capture] {graph.name}: output {value.name} differs from eager by {error:.1e}: "
                f"at most {limit:.0e} relative; is it random or stateful in eval mode?"
            )
    graph.batchable = find_batchable(graph, examples, got if not quantized else run(graph, examples))


def is_quantized(graph: Graph) -> bool:
    """Did the model bring quantization parameters?"""
    return any(value.quant is not None for value in graph.values())


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


def rms_error(a: torch.Tensor, b: torch.Tensor) -> float:
    """Root mean square of a - b over that of b; infinite when shapes differ."""
    if a.shape != b.shape:
        return float("inf")
    return float((a - b).square().mean().sqrt() / b.square().mean().sqrt().clamp_min(1e-12))
