"""Which layer costs the accuracy: every quantized value's own error and what it does to the outputs.

Two errors a value. Introduced: the runtime's value against the float operator fed with the runtime's own
inputs; what this layer adds (its weights' rounding, its output's grid and clipping) and nothing it inherited.
Accumulated: against the float graph's value.

A large error in a place nobody listens to costs nothing, so layers are ranked by what their introduced error
does to the outputs: to first order J e, with J the Jacobian from the value to the outputs. Its power is
estimated without forming J: for random output directions r, E[(J^T r . e)^2] = |J e|^2, one backward pass a
direction for all layers at once. `output_share` is a layer's part of the sum; `alone_db` is the outputs' SQNR
if this layer's error were the only one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.run import run, run_node, walk
from edgekit.runtimes.runtime import Inputs, as_inputs
from edgekit.tasks.statistics import SQNR_CEILING_DB, sqnr_db
from edgekit.verify.fidelity import batch_dims
from edgekit.verify.integers import dequantize, quantize_reals

Tensor = torch.Tensor
_SEED = 0
_DIRECTIONS = 6


@dataclass(frozen=True)
class LayerError:
    """One value's errors in dB of SQNR (higher is better) and its share of the outputs' noise, 0..1."""

    op: str
    module: str
    value: str
    introduced_db: float
    accumulated_db: float
    alone_db: float
    output_share: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.op} at {self.module} ({self.output_share:.0%} of the output noise)"


def layer_errors(
    graph: Graph, actual: Mapping[str, Tensor], inputs: Inputs, directions: int = _DIRECTIONS
) -> list[LayerError]:
    """Every quantized value of the runtime against float, the most costly first.

    Args:
        graph: the prepared graph; its weights' real values are the reference.
        actual: the runtime's codes per value name, from `fidelity.read_values` over the same images.
        inputs: float32, one array a graph input, (N, ...); two to eight images are enough to rank. One where
            the graph is not batchable.
        directions: random output directions; the shares' relative error is about sqrt(2 / (N * directions)).
    """
    batch = [torch.from_numpy(array) for array in as_inputs(inputs)]
    codes = {value: actual[value.name] for value in graph.values() if value.name in actual}
    for source, real in zip(graph.inputs, batch, strict=True):
        if source.quant is not None:
            codes.setdefault(source, quantize_reals(real, source.quant))
    introduced = list(_introduced(graph, batch, codes))
    along = batch_dims(graph)
    signal, inherited, felt = _float_run(
        graph, batch, codes, {v: error for _, v, error, _ in introduced}, along, directions
    )
    total = sum(felt.values()) or 1.0
    found = [
        LayerError(
            node.op if node else "quantize",
            (node.source or value.name) if node else "input",
            value.name,
            own_db,
            inherited[value],
            _db(signal, felt[value]),
            felt[value] / total,
        )
        for node, value, _, own_db in introduced
    ]
    return sorted(found, key=lambda row: (-row.output_share, row.value))


def _db(signal: float, noise: float) -> float:
    if noise <= 0.0 or signal <= 0.0:
        return SQNR_CEILING_DB if noise <= 0.0 else 0.0
    return min(SQNR_CEILING_DB, 10.0 * math.log10(signal / noise))


def _dequantized(value: Value, code: Tensor) -> Tensor:
    return code if value.quant is None else dequantize(code, value.quant)


def _float_run(
    graph: Graph,
    batch: list[Tensor],
    codes: Mapping[Value, Tensor],
    errors: Mapping[Value, Tensor],
    along: Mapping[str, int],
    directions: int,
) -> tuple[float, dict[Value, float], dict[Value, float]]:
    """The power of the float graph's outputs, each value's distance from it in dB, and the power its error
    has at the outputs. Of a value nothing is kept but what the backward pass needs.
    """
    inherited: dict[Value, float] = {}
    felt = dict.fromkeys(errors, 0.0)

    def feel(value: Value, gradient: Tensor) -> None:
        products = (gradient * errors[value]).movedim(along[value.name], 0)
        at_outputs = products.reshape(len(batch[0]), -1).sum(1)
        felt[value] += float(at_outputs.square().sum()) / directions

    def watch(value: Value, tensor: Tensor) -> Tensor:
        if value.is_constant:
            return tensor.detach()
        if value in errors:
            real = _dequantized(value, codes[value])
            inherited[value] = float(sqnr_db(tensor.detach().numpy(), real.numpy()))
            if tensor.requires_grad:
                tensor = tensor.view_as(tensor)  # a tensor of its own: an op may give its input back
                tensor.register_hook(partial(feel, value))
        return tensor

    generator = torch.Generator().manual_seed(_SEED)
    with torch.enable_grad():
        sources = [tensor.detach().clone().requires_grad_() for tensor in batch]
        results = run(graph, sources, on_value=watch)
        signal = sum(float(result.detach().double().square().sum()) for result in results)
        for i in range(directions):
            pulls = [torch.randn(r.shape, generator=generator) for r in results]
            total = torch.stack([(r * p).sum() for r, p in zip(results, pulls, strict=True)]).sum()
            if not total.requires_grad:  # places and counts: no error of a value is felt in proportion
                break
            torch.autograd.grad(total, sources, retain_graph=i < directions - 1, allow_unused=True)
    return signal, inherited, felt


def _introduced(
    graph: Graph, batch: list[Tensor], codes: Mapping[Value, Tensor]
) -> Iterator[tuple[Node | None, Value, Tensor, float]]:
    """(node, value, runtime minus float operator on the runtime's own inputs, the same in dB) for every value
    in `codes`.
    """

    def read(value: Value, tensor: Tensor) -> Tensor:
        return _dequantized(value, codes[value]) if value in codes else tensor

    for source, given in zip(graph.inputs, batch, strict=True):
        if source in codes:
            real = _dequantized(source, codes[source])
            yield None, source, real - given, float(sqnr_db(given.numpy(), real.numpy()))
    with torch.no_grad():
        for node, results in walk(graph, batch, run_node, read):
            for value, result in zip(node.outputs, results, strict=True):
                if value in codes:
                    real = _dequantized(value, codes[value])
                    yield node, value, real - result, float(sqnr_db(result.numpy(), real.numpy()))
