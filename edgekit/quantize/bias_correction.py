"""Bias correction and GPTQ in one sequential pass over the quantized graph.

Rounding weights and clipping activations shifts the mean of a channel's sums; the shift is a constant, and
the bias absorbs it for free (Nagel et al. 2019, section 4.2). Node after node, with inputs that carry the
noise of everything before, already corrected: GPTQ rounds the node's weight for exactly those
inputs, then the bias gives every channel back the mean it had in float. The float means come from the
observation pass, so only the quantized graph runs.

The mean over images is trimmed: one image whose activations are clipped must not move the others' bias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from edgekit.graph.batch import batch_dims
from edgekit.graph.ir import Graph, Node, Value
from edgekit.quantize import qparams, rounding, rules
from edgekit.quantize.fused import Arguments
from edgekit.quantize.images import Given, Images
from edgekit.quantize.lockstep import fitting_images, lockstep
from edgekit.quantize.observers import Observations, channel_mean
from edgekit.quantize.simulate import Simulator, in_integers

Tensor = torch.Tensor
TRIM = 0.1  # share of images set aside on either side of each channel's shift


def adjust(
    graph: Graph,
    images: Given | Images,
    seen: Observations,
    *,
    gptq: bool,
    bias: bool,
    dims: Mapping[Value, int | None] | None = None,
) -> None:
    """Round weights by GPTQ and correct biases of an annotated graph in place, in one pass.

    Args:
        images: the first rows of the observations; fewer are used where memory asks for it.
        seen: float statistics of this graph.
        dims: its `batch_dims`, where the caller has them.
    """
    images = images if isinstance(images, Images) else Images(graph, images)
    count, at_once = fitting_images(graph, len(images))
    adjuster = _Adjuster(graph, seen, count, gptq, bias, batch_dims(graph) if dims is None else dims)
    with torch.inference_mode():
        lockstep(
            graph,
            images.rows(slice(count)),
            at_once,
            start=adjuster.start,
            constant=adjuster.constant,
            apply=adjuster.apply,
        )


class _Adjuster(Simulator):
    def __init__(
        self,
        graph: Graph,
        seen: Observations,
        count: int,
        gptq: bool,
        bias: bool,
        dims: Mapping[Value, int | None],
    ) -> None:
        super().__init__(graph)
        self.seen, self.count, self.gptq, self.bias = seen, count, gptq, bias
        self.uses = graph.use_counts()
        self.dims = dims

    def apply(self, node: Node, batches: list[Arguments], sizes: list[int]) -> list[Sequence[Tensor]]:
        """One node in every batch, adjusted to all of them."""
        if not in_integers(node):
            return [self.step(node, args) for args in batches]
        weight = rules.weight_of(node)
        assert weight is not None
        if self.gptq and self._own(weight) and rounding.applies(node):
            assert weight.data is not None and weight.quant is not None
            inputs = [args[0] for args in batches if args[0] is not None]
            weight.data = rounding.gptq(weight.data, weight.quant, _moment(node, inputs, sizes))
            codes = qparams.codes(weight.data, weight.quant)
            batches = [[args[0], codes, *args[2:]] for args in batches]
        sums = [self.accumulate(node, args) for args in batches]
        if self.bias and self._own(rules.bias_of(node)) and node in self.seen.mean:
            dim = self.dims.get(node.output)
            made = [channel_mean(node, t, dim, n) for t, n in zip(sums, sizes, strict=True)]
            shift_bias(node, torch.cat(made), self.seen.mean[node][: self.count])
        return [(self.requantize(node, t),) for t in sums]

    def _own(self, value: Value | None) -> bool:
        """Whether the node alone reads this constant: a shared one cannot suit several."""
        return value is not None and self.uses[value] == 1


def _moment(node: Node, inputs: list[Tensor], sizes: list[int]) -> Tensor:
    """The second moment over all batches."""
    if len(inputs) == 1:
        return rounding.second_moment(node, inputs[0])
    rows, total = rounding.MAX_ROWS // len(inputs), sum(sizes)
    parts = [rounding.second_moment(node, x, rows) * (n / total) for x, n in zip(inputs, sizes, strict=True)]
    return torch.stack(parts).sum(0)


def shift_bias(node: Node, made: Tensor, wanted: Tensor) -> None:
    """Set the bias to the trimmed mean over images of wanted (N, O) less what the accumulators give."""
    x, weight, bias = node.inputs[0], rules.weight_of(node), rules.bias_of(node)
    assert x is not None and x.quant and weight is not None and weight.quant and bias is not None
    unit = torch.tensor(weight.quant.scale, dtype=torch.float32) * x.quant.scale[0]
    bias.data = trimmed_mean(wanted - made * unit)


def trimmed_mean(rows: Tensor, trim: float = TRIM) -> Tensor:
    """The mean of each column without its smallest and largest entries."""
    drop = int(len(rows) * trim)
    if drop == 0:
        return rows.mean(0)
    return rows.sort(0).values[drop:-drop].mean(0)
