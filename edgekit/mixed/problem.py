"""A choice of precisions as numbers: what it costs, and what noise it leaves.

Noise is taken to add up, milliseconds too. A result is rounded unless its node computes in float and so does
every reader of it: an island is worth something only where both of its ends are lowered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from edgekit.graph.ir import Graph
from edgekit.mixed.noise import Noise
from edgekit.mixed.prices import Prices
from edgekit.quantize.precision import DYNAMIC, FLOAT, INT8, choices

Kinds = dict[str, str]


@dataclass(frozen=True)
class Place:
    """One node, by its first result.

    prices: precision -> milliseconds. result, weights, input: noise of rounding them; a result that leaves
    the graph is rounded in any case. readers: those of its readers that are int8 or were.
    """

    name: str
    prices: Mapping[str, float]
    result: float
    weights: float
    input: float
    rounding: float
    floating: float
    readers: tuple[str, ...]
    leaves: bool

    def own_noise(self, kind: str) -> float:
        """What weights and a dynamic kernel's rounding bring in."""
        return {INT8: self.weights, DYNAMIC: self.weights + self.input, FLOAT: 0.0}[kind]


@dataclass(frozen=True)
class Problem:
    """Places in the graph's order; signal: the square of the outputs."""

    places: Mapping[str, Place]
    signal: float

    def ms(self, kinds: Mapping[str, str]) -> float:
        """What a choice costs, conversions included; nodes not named are int8."""
        total = 0.0
        for place in self.places.values():
            kind = kinds.get(place.name, INT8)
            total += place.prices[kind]
            integers = [kinds.get(reader, INT8) == INT8 for reader in place.readers]
            if kind == INT8:
                total += place.floating * sum(not integer for integer in integers)
            elif any(integers) or place.leaves:
                total += place.rounding
        return total

    def noise(self, kinds: Mapping[str, str]) -> float:
        """The squared error a choice leaves in the outputs."""
        total = 0.0
        for place in self.places.values():
            total += place.own_noise(kinds.get(place.name, INT8))
            if self.rounded(place, kinds):
                total += place.result
        return total

    def rounded(self, place: Place, kinds: Mapping[str, str]) -> bool:
        """Whether what a node gives is rounded for anybody."""
        if place.leaves or kinds.get(place.name, INT8) == INT8:
            return True
        return any(kinds.get(reader, INT8) == INT8 for reader in place.readers)

    def db(self, kinds: Mapping[str, str]) -> float:
        """The SQNR of the outputs if noise adds up: it tells the order, not the height."""
        noise = self.noise(kinds)
        return 10.0 * math.log10(self.signal / noise) if noise > 0.0 and self.signal > 0.0 else math.inf


def problem(graph: Graph, noise: Noise, prices: Prices) -> Problem:
    """The places of an annotated graph."""
    outputs, users = set(graph.outputs), graph.users()
    able = choices(graph)
    places = {}
    for node in graph.nodes:
        name = node.output.name
        readers = {
            reader.output.name: None
            for out in node.outputs
            for reader in users.get(out, [])
            if reader.output.quant is not None
        }
        places[name] = Place(
            name,
            {kind: prices.nodes[name][kind] for kind in able[name]},
            noise.results[name],
            noise.weights[name],
            noise.inputs[name],
            prices.rounding[name],
            prices.floating[name],
            tuple(readers),
            any(out in outputs for out in node.outputs),
        )
    return Problem(places, noise.signal)
