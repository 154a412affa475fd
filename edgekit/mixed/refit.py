"""A graph with its precisions chosen: weights rounded and biases fitted for the noise that is left.

Biases that were fitted where everything was rounded correct errors that are not there any more: an all-float
graph with them is far from the float model. So every channel gets its float mean back under the rounding
that is left, and each part stays only where it gains on images that nothing was fitted to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from edgekit.graph.ir import Graph
from edgekit.graph.run import run
from edgekit.quantize.bias_correction import adjust
from edgekit.quantize.images import Images, Rows
from edgekit.quantize.observers import Observations
from edgekit.quantize.placement import fit_biases
from edgekit.quantize.precision import assign
from edgekit.quantize.simulate import simulate, sqnr_db

Tensor = torch.Tensor
_FEWEST, _MOST = 8, 64  # held-out images that say anything, and that are looked at


@dataclass(frozen=True, eq=False)
class Base:
    """What every choice is made from.

    graph: annotated, its weights not rounded yet. plain: the float graph. means: of results by name, over the
    first rows of `order`. images: calibration images, an input's rows each. gptq: whether weights are rounded
    by it.
    """

    graph: Graph
    plain: Graph
    means: Mapping[str, Tensor]
    order: Tensor
    images: tuple[Rows, ...]
    gptq: bool = True

    @property
    def fitted(self) -> list[Tensor]:
        """The rows that biases are fitted to, as `means` has them."""
        return [rows[self.order] for rows in self.images]

    @property
    def held(self) -> list[Tensor]:
        """The rows that nothing is fitted to; all where those are too few."""
        used = set(self.order.tolist())
        left = [i for i in range(len(self.images[0])) if i not in used]
        chosen = torch.tensor(left if len(left) >= _FEWEST else range(len(self.images[0])))[:_MOST]
        return [rows[chosen] for rows in self.images]

    def answers(self) -> Tensor:
        """The float graph's outputs for the held rows, (images, values)."""
        return answers_of(self.plain, self.held)


def answers_of(graph: Graph, images: list[Tensor]) -> Tensor:
    """Float outputs side by side, (images, values)."""
    given, count = Images(graph, images), len(images[0])
    with torch.inference_mode():
        pieces = [run(graph, inputs) for inputs in given.batches(given.at_once())]
    return _by_image([[part.reshape(-1) for part in piece] for piece in pieces], count)


def _by_image(pieces: list[list[Tensor]], count: int) -> Tensor:
    """(images, values), outputs side by side; images lead every output's elements."""
    joined = [torch.cat(parts) for parts in zip(*pieces, strict=True)]
    return torch.cat([tensor.reshape(count, -1) for tensor in joined], 1)


def simulated(graph: Graph, images: list[Tensor]) -> Tensor:
    """Outputs in mixed precision side by side, (images, values)."""
    outputs = simulate(graph, images)
    return torch.cat([tensor.reshape(len(images[0]), -1) for tensor in outputs], 1)


def quick(base: Base, kinds: Mapping[str, str]) -> Graph:
    """A choice with its biases fitted: good enough to compare choices."""
    graph = base.graph.copy()
    assign(graph, kinds)
    fit_biases(graph, base.fitted, dict(base.means))
    return graph


def finished(base: Base, kinds: Mapping[str, str]) -> tuple[Graph, str]:
    """A choice at its best on held images, and what it was made by."""
    wanted, held = base.answers(), base.held
    plain = base.graph.copy()
    assign(plain, kinds)
    candidates = {"as calibrated": plain, "biases": quick(base, kinds)}
    if base.gptq:
        rounded = base.graph.copy()
        assign(rounded, kinds)
        names = {node.output.name: node for node in rounded.nodes}
        seen = Observations(mean={names[name]: rows for name, rows in base.means.items() if name in names})
        adjust(rounded, base.fitted, seen, gptq=True, bias=True)
        fit_biases(rounded, base.fitted, dict(base.means))
        candidates["gptq + biases"] = rounded
    scores = {name: score(wanted, simulated(graph, held)) for name, graph in candidates.items()}
    chosen = max(scores, key=lambda name: scores[name])
    return candidates[chosen], chosen


def score(wanted: Tensor, given: Tensor) -> float:
    """SQNR in dB, the mean of that of all images together and of the median image."""
    each = sorted(sqnr_db(a, b) for a, b in zip(wanted, given, strict=True))
    return 0.5 * (min(sqnr_db(wanted, given), 200.0) + min(each[len(each) // 2], 200.0))
