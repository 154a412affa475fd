"""Which softmax keeps the parameters that kernels dictate, which takes its own, and which stays float.

Kernels dictate steps of 1/256, and over 64, 256 and 1,024 even positions those leave 23, 11 and -1 dB of the
probabilities. So each softmax is judged by what calibration saw of it: the noise of a grid against the mean
square of the probabilities, and the probability that lies in values which the grid rounds to zero (such an
error is of one sign, and a sum over positions collects it).

1. The dictated grid stays where it is FINE.
2. Otherwise the grid is calibrated like any other tensor's: every runtime we lower for computes the function
   in float and rounds afterwards, so a scale of its own costs nothing. Even probabilities fit well into it.
3. Where that is not fine either (a sharp peak above a wide floor), the probabilities stay float up to the
   reduction that follows: a float island, inside the delegate's partition where it computes floats. A matrix
   product as the reduction takes a grid that is BEARABLE, since in float it takes four times as long.
   Probabilities that leave the graph are never float.

Enters: a float graph and observations. Leaves: `Choices` for `qparams.annotate`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import MOVES, OPS
from edgekit.quantize.choices import NO_CHOICES, Choices
from edgekit.quantize.observers import OCTAVES, Observations

Tensor = torch.Tensor


@dataclass(frozen=True)
class Demand:
    """Least SQNR of the probabilities, and the largest share of them that may be rounded to zero."""

    min_db: float
    max_lost: float

    def met(self, probabilities: Tensor, square: float, step: float) -> bool:
        """Whether steps of this size are fine enough.

        Args:
            probabilities: (OCTAVES,), the share in values of 2**-k down to 2**-(k + 1).
            square: their mean square.
        """
        noise = step * step / 12.0
        first = min(max(math.ceil(-math.log2(step / 2.0)), 0), OCTAVES)
        return (
            square >= noise * 10.0 ** (self.min_db / 10.0)
            and float(probabilities[first:].sum()) <= self.max_lost
        )


FINE = Demand(30.0, 0.02)
BEARABLE = Demand(15.0, 0.25)


def choose(graph: Graph, seen: Observations, dtype: str) -> Choices:
    """What calibration says of every softmax."""
    if dtype != "int8":  # 1/32768 is fine for any number of positions an image has
        return NO_CHOICES
    users, outputs = graph.users(), set(graph.outputs)
    calibrated: set[Value] = set()
    dtypes: dict[Value, str] = {}
    for node in graph.nodes:
        value = node.output
        if value not in seen.octaves:
            continue
        shares, square = seen.octaves[value].mean(0), float(seen.square[value].mean())
        if FINE.met(shares, square, 1.0 / 256.0):
            continue
        calibrated.add(value)
        step = max(seen.trimmed(value)[1], 1e-9) / 255.0
        island, readers = _island(value, users)
        product = any(OPS[reader.op].channels == "product" for reader in readers)
        if not (BEARABLE if product else FINE).met(shares, square, step) and not outputs & set(island):
            dtypes.update(dict.fromkeys(island, "float32"))
    return Choices(dtypes, frozenset(calibrated))


def _island(value: Value, users: dict[Value, list[Node]]) -> tuple[list[Value], list[Node]]:
    """What moves or multiplies the value element by element, up to the nodes that reduce it."""
    island, readers = [value], []
    for inner in island:
        for node in users.get(inner, []):
            alone = len(node.operands) == 1
            if (alone and node.op in MOVES) or OPS[node.op].channels in ("pass", "join"):
                island.extend(out for out in node.outputs if out not in island)
            else:
                readers.append(node)
    return island, readers
