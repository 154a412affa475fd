"""What noise is said to be is what it is; a choice keeps its budget and is never worse than greedy steps."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch
from networks import Clock, base

from edgekit.errors import QuantizationError
from edgekit.graph.run import run
from edgekit.mixed import Demand, mix
from edgekit.mixed import noise as noises
from edgekit.mixed.choose import fastest, greedy, solve, uniform
from edgekit.mixed.problem import Place, Problem
from edgekit.mixed.search import price
from edgekit.quantize.images import Images
from edgekit.quantize.precision import FLOAT, INT8
from edgekit.quantize.simulate import fake_quantize, simulate, sqnr_db
from edgekit.targets import get_target

TARGET = get_target("tflite-int8")


@pytest.fixture(scope="module")
def known():
    return price(base(), TARGET, Clock())


def test_noise_of_one_result_is_what_rounding_it_alone_does() -> None:
    made = base()
    images = made.fitted[0][:16]
    found = noises.measure(made.graph, Images(made.graph, images), probes=16)
    wanted = run(made.graph, [images])[0].detach()
    together = sum(found.results.values()) + sum(found.weights.values())
    for node in made.graph.nodes:
        if found.results[node.output.name] == 0.0:
            continue

        def only(value, tensor, chosen=node.output):  # a hundredth of it: no bend is in the way
            if value is not chosen:
                return tensor
            return tensor + 0.01 * (fake_quantize(tensor, value.quant) - tensor)

        with torch.no_grad():
            alone = 1e4 * float((run(made.graph, [images], only)[0] - wanted).square().sum())
        assert alone == pytest.approx(found.results[node.output.name], rel=0.5, abs=0.01 * together), node
    predicted = 10 * math.log10(found.signal / together)
    assert abs(predicted - sqnr_db(wanted, simulate(made.graph, images)[0])) < 3.0


def problem_of(rng: random.Random, count: int) -> Problem:
    """A chain with a few short cuts, its numbers drawn."""
    places = {}
    for i in range(count):
        later = [j for j in range(i + 1, count) if j == i + 1 or rng.random() < 0.2]
        prices = {INT8: rng.uniform(1, 3)}
        if rng.random() < 0.9:
            prices[FLOAT] = prices[INT8] * rng.uniform(0.8, 4)
            if rng.random() < 0.5:
                prices["dynamic"] = prices[INT8] * rng.uniform(1, 2)
        readers = tuple(f"n{j}" for j in later)
        figures = [rng.expovariate(1.0) for _ in range(2)]
        places[f"n{i}"] = Place(
            f"n{i}", prices, *figures, 0.1 * figures[1], rng.uniform(0, 0.5), rng.uniform(0, 0.5), readers,
            i == count - 1,
        )  # fmt: skip
    return Problem(places, 100.0)


@pytest.mark.parametrize("seed", range(8))
def test_the_solver_finds_the_best_there_is_and_greedy_none_better(seed: int) -> None:
    found = problem_of(random.Random(seed), 6)
    every = [
        {name: kind for name, kind in zip(found.places, kinds, strict=True) if kind != INT8}
        for kinds in itertools.product(*(place.prices for place in found.places.values()))
    ]
    quickest = min(map(found.ms, every))
    assert found.ms(fastest(found)) == pytest.approx(quickest)
    for share in (1.0, 1.05, 1.2, 1.6, 3.0):
        budget = quickest * share
        allowed = [found.noise(kinds) for kinds in every if found.ms(kinds) <= budget * (1 + 1e-9)]
        solved, stepped = solve(found, budget * (1 + 1e-9)), greedy(found, budget)
        assert solved is not None and found.ms(solved) <= budget * (1 + 1e-6)
        assert found.noise(solved) == pytest.approx(min(allowed), rel=5e-3)
        if found.ms(stepped) <= budget:
            assert found.noise(solved) <= found.noise(stepped) * (1 + 5e-3)


def test_an_island_is_worth_nothing_unless_both_ends_are_lowered() -> None:
    prices = {INT8: 1.0, FLOAT: 2.0}
    one = Place("a", prices, 5.0, 0.0, 0.0, 0.1, 0.1, ("b",), False)
    other = Place("b", prices, 0.0, 0.0, 0.0, 0.1, 0.1, (), True)
    found = Problem({"a": one, "b": other}, 10.0)
    assert found.noise({"a": FLOAT}) == found.noise({"b": FLOAT}) == found.noise({}) == 5.0
    assert found.noise({"a": FLOAT, "b": FLOAT}) == 0.0
    assert found.ms({"a": FLOAT}) == pytest.approx(3.1) and found.ms({"b": FLOAT}) == pytest.approx(3.2)
    assert solve(found, 3.5) == {} and solve(found, 4.2) == {"a": FLOAT, "b": FLOAT}


def test_prices_are_those_of_the_files(known) -> None:
    """What a choice is said to cost is what the units of its file add up to."""
    rng = random.Random(0)
    for _ in range(4):
        kinds = {place.name: rng.choice(list(place.prices)) for place in known.problem.places.values()}
        kinds = {name: kind for name, kind in kinds.items() if kind != INT8}
        assert known.problem.ms(kinds) == pytest.approx(known.predicted_ms(kinds), rel=0.25)
    for kinds in ({}, uniform(known.problem, FLOAT)):
        assert known.problem.ms(kinds) == pytest.approx(known.predicted_ms(kinds), rel=0.05)


@pytest.mark.parametrize("slip", [0.9, 1.0, 1.15])
def test_a_time_is_kept_by_the_measured_file(slip: float) -> None:
    clock = Clock(slip, float_price=2.5)
    found = mix(base(), Demand(ratio=1.8), TARGET, clock)
    int8, mixed, real = (point["ms"] for point in found.record["points"])
    assert mixed <= 1.8 * int8 * 1.011 and mixed <= real and clock.timed == 1 + len(found.record["tries"])
    db = [point["sqnr_db"] for point in found.record["points"]]
    assert db[1] > db[0] + 0.5 and found.kinds and not found.record["why"]
    kept = {node.output.name: node.output.quant for node in found.graph.nodes}
    assert all(kept[name] is None for name in found.kinds if name in kept and not name.startswith("linear"))


def test_answers_as_good_as_asked_for_in_the_least_time() -> None:
    made = price(base(), TARGET, Clock())
    plain, most = made.sqnr_db({}), made.sqnr_db(uniform(made.problem, FLOAT))
    asked = 0.5 * (plain + most)
    found = mix(base(), Demand(sqnr_db=asked), TARGET, Clock())
    points = {point["name"]: point for point in found.record["points"]}
    assert points["mixed"]["sqnr_db"] >= asked and points["mixed"]["ms"] < points["float"]["ms"]
    nothing = mix(base(), Demand(sqnr_db=plain - 1.0), TARGET, Clock())
    assert nothing.kinds == {}
    out_of_reach = mix(base(), Demand(sqnr_db=150.0), TARGET, Clock())
    assert "is missing" in out_of_reach.record["why"]


def test_accuracy_lost_is_asked_of_whoever_knows_it() -> None:
    lost = mix(base(), Demand(drop=0.01), TARGET, Clock(), drop=lambda graph: 0.02 - 0.001 * floats(graph))
    assert floats(lost.graph) >= 10
    with pytest.raises(QuantizationError, match="images with answers"):
        mix(base(), Demand(drop=0.01), TARGET, Clock())


def floats(graph) -> int:
    return sum(node.output.quant is None for node in graph.nodes)


def test_where_float_is_faster_nothing_slower_is_chosen() -> None:
    found = mix(base(), Demand(ratio=2.0), TARGET, Clock(float_price=0.5))
    points = {point["name"]: point["ms"] for point in found.record["points"]}
    assert points["float"] < points["int8"]
    slower = points["mixed"] > points["float"] * 1.011
    assert ("the float file takes" if slower else "no more is spent") in found.record["why"]


def test_one_demand_is_needed() -> None:
    with pytest.raises(QuantizationError, match="one of latency_ms, ratio"):
        Demand(ratio=1.1, sqnr_db=30.0)
