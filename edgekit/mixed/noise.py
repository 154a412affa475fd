"""What each rounding by itself brings into the outputs: squared error summed over images.

For a node with the result y: the error d of rounding y, of rounding its weights, and of the rounding that a
dynamic kernel does to its input. How a small error of y shows in the outputs is the network's derivative
there, J: the square of J d is the mean over random signs u of (u J d)^2, and one pass backward gives u J for
every node at once. So a few passes an image do instead of one for every node. Means over images of what
weights bring into a channel are left out: biases take them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from edgekit.graph.boundaries import may_be_dynamic, rounded_by_row
from edgekit.graph.ir import Graph, Node, QuantParams, Value
from edgekit.graph.ops import MOVES, OPS
from edgekit.graph.run import run_node, walk
from edgekit.quantize import rules
from edgekit.quantize.images import Images
from edgekit.quantize.simulate import fake_quantize, rounded_dynamically

Tensor = torch.Tensor
PROBES = 4


@dataclass(frozen=True)
class Noise:
    """By the name of a node's first result, each a squared error of all outputs over all images.

    results: of rounding what it gives. weights: its weights. inputs: what a dynamic kernel rounds.
    signal: the square of the outputs.
    """

    results: dict[str, float]
    weights: dict[str, float]
    inputs: dict[str, float]
    signal: float


def measure(graph: Graph, images: Images, seed: int = 0, probes: int = PROBES) -> Noise:
    """The noise of every rounding of an annotated graph.

    Args:
        images: a few dozen.
        probes: passes backward an image.
    """
    shifts = _shifts(graph, images)
    rng = torch.Generator().manual_seed(seed)
    found = Noise({}, {}, {}, 0.0)
    for node in graph.nodes:
        for table in (found.results, found.weights, found.inputs):
            table[node.output.name] = 0.0
    signal = 0.0
    for inputs in images.batches(1):
        signal += _one(graph, inputs, shifts, found, rng, probes)
    return Noise(found.results, found.weights, found.inputs, signal)


def _one(
    graph: Graph,
    inputs: Sequence[Tensor],
    shifts: dict[Node, Tensor],
    found: Noise,
    rng: torch.Generator,
    probes: int,
) -> float:
    """Adds one image's to `found`; returns the square of its outputs."""
    errors: list[tuple[dict[str, float], str, int, Tensor]] = []
    results: list[Tensor] = []

    def apply(node: Node, args: list[Tensor | None]) -> Sequence[Tensor]:
        given = run_node(node, args)
        with torch.no_grad():
            plain = [None if arg is None else arg.detach() for arg in args]
            at = len(results)
            results.extend(given)
            for table, index, error in _errors(node, plain, [t.detach() for t in given], shifts, found):
                errors.append((table, node.output.name, at + index, error))
        return given

    start = [t.clone().requires_grad_(t.is_floating_point()) for t in inputs]
    with torch.enable_grad():
        steps = walk(graph, start, apply, lambda value, t: t.detach() if value.is_constant else t)
        try:
            while True:
                next(steps)
        except StopIteration as stop:
            outputs = stop.value
        wanted = [t for t in results if t.requires_grad]
        place = {id(t): i for i, t in enumerate(wanted)}
        for probe in range(probes):
            signs = [torch.randint(0, 2, t.shape, generator=rng).to(t.dtype) * 2 - 1 for t in outputs]
            total = torch.stack([(t * sign).sum() for t, sign in zip(outputs, signs, strict=True)]).sum()
            slopes = torch.autograd.grad(total, wanted, retain_graph=probe + 1 < probes, allow_unused=True)
            for table, name, index, error in errors:
                at = place.get(id(results[index]))
                slope = None if at is None else slopes[at]
                if slope is not None:
                    table[name] += float((slope * error).sum().double().square()) / probes
    return sum(float(t.detach().double().square().sum()) for t in outputs)


def _errors(
    node: Node, args: list[Tensor | None], given: Sequence[Tensor], shifts: dict[Node, Tensor], found: Noise
) -> list[tuple[dict[str, float], int, Tensor]]:
    """(table, which result, error of that result)."""
    rows: list[tuple[dict[str, float], int, Tensor]] = []
    for index, (value, tensor) in enumerate(zip(node.outputs, given, strict=True)):
        if value.quant is not None and _rounds(node, value):
            rows.append((found.results, index, fake_quantize(tensor, value.quant) - tensor))
    weight = rules.weight_of(node)
    if weight is None or weight.quant is None or args[0] is None:
        return rows
    shifted = _with_rounded_weights(node, args, weight.quant)
    if (mean := shifts.get(node)) is not None:
        shifted = shifted - mean
    rows.append((found.weights, 0, shifted))
    if may_be_dynamic(node):
        x = rounded_dynamically(args[0], by_row=rounded_by_row(node), last=node.op == "linear")
        rows.append((found.inputs, 0, run_node(node, [x, *args[1:]])[0] - given[0]))
    return rows


def _rounds(node: Node, value: Value) -> bool:
    """Whether anything is rounded: what is moved on its own grid was rounded before."""
    moves = node.op in MOVES
    return not (moves and all(v.quant == value.quant for v in node.operands if not v.is_constant))


def _with_rounded_weights(node: Node, args: list[Tensor | None], quant: QuantParams) -> Tensor:
    """The error that rounded weights leave in a result: where an activation follows, behind it."""
    assert args[1] is not None
    rounded = fake_quantize(args[1], quant)
    return run_node(node, [args[0], rounded, *args[2:]])[0] - run_node(node, args)[0]


def _shifts(graph: Graph, images: Images) -> dict[Node, Tensor]:
    """The mean over images of what rounded weights bring into each channel."""
    sums: dict[Node, Tensor] = {}

    def apply(node: Node, args: list[Tensor | None]) -> Sequence[Tensor]:
        weight = rules.weight_of(node)
        if weight is not None and weight.quant is not None:
            error = _with_rounded_weights(node, args, weight.quant)
            dims = tuple(range(error.ndim - 1)) if node.op == "linear" else (0, 2, 3)
            mean = error.mean(dims, keepdim=True)
            sums[node] = sums.get(node, torch.zeros_like(mean)) + mean / len(images)
        return OPS[node.op].fn(*args, **node.attrs) if len(node.outputs) > 1 else run_node(node, args)

    with torch.inference_mode(False), torch.no_grad():
        for inputs in images.batches(1):
            for _ in walk(graph, inputs, apply):
                pass
    return sums
