"""Bias correction and GPTQ in one sequential pass over the quantized graph.

Rounding weights and clipping activations shifts the mean of a channel's sums; the shift is a constant, and
the bias absorbs it for free (Nagel et al. 2019, section 4.2). Node after node, with inputs that carry the
noise of everything before, already corrected: GPTQ rounds the node's weight for exactly those
inputs, then the bias gives every channel back the mean it had in float. The float means come from the
observation pass, so only the quantized graph runs.

The mean over images is trimmed: one image whose activations are clipped must not move the others' bias.
"""

from __future__ import annotations

import torch

from edgekit.graph.ir import Graph, Node, Value
from edgekit.quantize import qparams, rounding, rules
from edgekit.quantize.observers import Observations, channel_mean
from edgekit.quantize.simulate import Simulator
from edgekit.quantize.walk import Arguments

Tensor = torch.Tensor
TRIM = 0.1  # share of images set aside on either side of each channel's shift
PEAK_BYTES = 1 << 29  # largest tensor one pass may hold: bounds how many images it takes


def adjust(graph: Graph, images: Tensor, seen: Observations, *, gptq: bool, bias: bool) -> None:
    """Round weights by GPTQ and correct biases of an annotated graph in place, in one pass.

    Args:
        images: (N, C, H, W), the first N rows of the observations; fewer are used where memory asks for it.
        seen: float statistics of this graph.
    """
    largest = max((value_size(v) for v in graph.values() if not v.is_constant), default=1)
    images = images[: max(1, PEAK_BYTES // (4 * largest))]
    adjuster = _Adjuster(graph, seen, len(images), gptq, bias)
    with torch.inference_mode():
        adjuster.run(images.contiguous(memory_format=torch.channels_last))


def value_size(value: Value) -> int:
    """Elements of one image's tensor."""
    size = 1
    for length in value.shape[1:]:
        size *= length
    return size


class _Adjuster(Simulator):
    def __init__(self, graph: Graph, seen: Observations, count: int, gptq: bool, bias: bool) -> None:
        super().__init__(graph)
        self.seen, self.count, self.gptq, self.bias = seen, count, gptq, bias
        self.uses = graph.use_counts()

    def accumulate(self, node: Node, args: Arguments) -> Tensor:
        weight = rules.weight_of(node)
        assert weight is not None and args[0] is not None
        if self.gptq and self._own(weight) and rounding.applies(node):
            assert weight.data is not None and weight.quant is not None
            moment = rounding.second_moment(node, args[0])
            weight.data = rounding.gptq(weight.data, weight.quant, moment)
            args = [args[0], qparams.codes(weight.data, weight.quant), *args[2:]]
        return super().accumulate(node, args)

    def requantize(self, node: Node, sums: Tensor) -> Tensor:
        if self.bias and self._own(rules.bias_of(node)) and node in self.seen.mean:
            shift_bias(node, sums, self.seen.mean[node][: self.count])
        return super().requantize(node, sums)

    def _own(self, value: Value | None) -> bool:
        """Whether the node alone reads this constant: a shared one cannot suit several."""
        return value is not None and self.uses[value] == 1


def shift_bias(node: Node, sums: Tensor, wanted: Tensor) -> None:
    """Set the bias to the trimmed mean over images of wanted (N, O) less what the accumulators give."""
    x, weight, bias = node.inputs[0], rules.weight_of(node), rules.bias_of(node)
    assert x is not None and x.quant and weight is not None and weight.quant and bias is not None
    unit = torch.tensor(weight.quant.scale, dtype=torch.float32) * x.quant.scale[0]
    bias.data = trimmed_mean(wanted - channel_mean(sums) * unit)


def trimmed_mean(rows: Tensor, trim: float = TRIM) -> Tensor:
    """The mean of each column without its smallest and largest entries."""
    drop = int(len(rows) * trim)
    if drop == 0:
        return rows.mean(0)
    return rows.sort(0).values[drop:-drop].mean(0)
