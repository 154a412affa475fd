"""Biases for one target's placement of the quantization: same scales, same integer weights.

Calibration fits biases to a graph in which every activation is rounded. A target that leaves some of them in
float has other errors, and a bias that corrects errors which are not there is an error itself: MobileNetV3-
Large loses 4 dB in OpenVINO to it. Node after node every channel gets back the mean it had in float, as in
`bias_correction`, under the rounding that the target's file really has.

Enters: a graph prepared for a target, images, and the float means that `quantize` found for them. Leaves: the
graph with new biases.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from edgekit.graph.batch import batch_dims
from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import OPS, WEIGHT_AXIS
from edgekit.quantize import qparams
from edgekit.quantize.bias_correction import trimmed_mean
from edgekit.quantize.fused import Arguments, activate_
from edgekit.quantize.images import Given, Images
from edgekit.quantize.lockstep import fitting_images, lockstep
from edgekit.quantize.observers import channel_mean
from edgekit.quantize.simulate import Simulator, to_codes

Tensor = torch.Tensor
_WEIGHTED = frozenset(WEIGHT_AXIS)


def fit_biases(graph: Graph, images: Given, means: dict[str, Tensor]) -> int:
    """Give every channel of convolutions and matrix products its float mean; returns how many biases moved.

    Args:
        images: (N, ...), one tensor per graph input: those the means were taken over.
        means: result's name -> (N, O), its float mean per image and channel before the activation.
    """
    given = Images(graph, images)
    count, at_once = fitting_images(graph, len(given))
    fitter = _Fitter(graph, {name: rows[:count] for name, rows in means.items()})
    with torch.inference_mode():
        lockstep(
            graph,
            given.rows(slice(count)),
            at_once,
            start=fitter.start,
            constant=fitter.constant,
            apply=fitter.apply,
        )
    return fitter.moved


class _Fitter(Simulator):
    def __init__(self, graph: Graph, means: dict[str, Tensor]) -> None:
        super().__init__(graph)
        self.means, self.moved = means, 0
        self.uses = graph.use_counts()
        self.dims = batch_dims(graph)

    def apply(self, node: Node, batches: list[Arguments], sizes: list[int]) -> list[Sequence[Tensor]]:
        """One node in every batch, its bias fitted to all of them."""
        wanted = self.means.get(node.output.name)
        bias = node.inputs[2] if node.op in _WEIGHTED else None
        if wanted is None or bias is None or bias.data is None or self.uses[bias] != 1:
            return [self.step(node, args) for args in batches]
        attrs = {**node.attrs, "activation": None}
        sums = []
        for args in batches:
            reals = self.reals(node, args)[:2]
            sums.append(OPS[node.op].fn(*reals, None, **attrs))
        dim = self.dims.get(node.output)
        made = torch.cat([channel_mean(node, t, dim, n) for t, n in zip(sums, sizes, strict=True)])
        wanted = F.pad(wanted, (0, made.shape[1] - wanted.shape[1]))  # channels a target added stay zero
        bias.data = trimmed_mean(wanted - made).to(bias.data.dtype)
        self.moved += 1
        self.constants.pop(bias, None)
        shift = self.rounded_bias(node, bias).view((-1,) if node.op == "linear" else (-1, 1, 1))
        quant, activation = node.output.quant, node.attrs.get("activation")
        reals_of = (activate_(t.add_(shift), activation) for t in sums)
        return [(to_codes(t, quant) if quant else t,) for t in reals_of]

    def rounded_bias(self, node: Node, bias: Value) -> Tensor:
        """The bias as the file holds it: int32 where input and weight are integers."""
        assert bias.data is not None
        codes = qparams.bias_integers(node)
        x, weight = node.inputs[0], node.inputs[1]
        if codes is None or x is None or weight is None or x.quant is None or weight.quant is None:
            return bias.data
        return (codes * torch.tensor(weight.quant.scale, dtype=torch.float64) * x.quant.scale[0]).float()
