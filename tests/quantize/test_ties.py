"""Where a concat ties its pieces' parameters and where it rounds them, against eager numbers."""

from __future__ import annotations

import pytest
import torch
from quantize_graphs import Builder, smooth_images

from edgekit.graph.ir import Value
from edgekit.graph.run import run
from edgekit.quantize import quantize, simulate, sqnr_db

IMAGES = smooth_images(40, 0, 8)


def times(b: Builder, x: Value, factor: float) -> Value:
    return b.op("mul", x, b.constant(f"factor_{len(b.nodes)}", torch.tensor([factor])))


def quants_of(graph, *values: Value) -> list:
    annotated = quantize(graph, IMAGES).graph
    return [annotated.value(value.name).quant for value in values]


@pytest.mark.parametrize("join", ["concat", "maximum"])
def test_a_piece_that_others_read_keeps_its_steps(join: str) -> None:
    """Box coordinates joined with the scores they come from: 39 dB became 10."""
    b = Builder((1, 3, 8, 8))
    scores = b.op("sigmoid", b.conv(b.input, 4))
    box = times(b, b.op("mul", scores, scores), 80.0)
    joined = b.op("concat", box, scores, dim=1) if join == "concat" else b.op("maximum", box, scores)
    graph = b.graph(joined, scores)
    annotated = quantize(graph, IMAGES[:32]).graph
    quants = [annotated.value(v.name).quant for v in (scores, box, joined)]
    assert quants[0].scale == (1 / 256,) and quants[1] == quants[2]
    for wanted, found in zip(run(graph, [IMAGES[32:]]), simulate(annotated, IMAGES[32:]), strict=True):
        assert sqnr_db(wanted, found) > 35.0


def test_a_piece_that_a_relu_reads_as_well_keeps_what_is_negative() -> None:
    """The concat takes it on another grid, and what the relu cannot tell apart was cut off for both."""
    b = Builder((1, 3, 8, 8))
    x = b.conv(b.input, 4)
    joined = b.op("concat", x, times(b, b.conv(b.input, 4), 80.0), dim=1)
    graph = b.graph(b.op("relu", x), b.op("mul", joined, joined))
    annotated = quantize(graph, IMAGES[:32]).graph
    quant = annotated.value(x.name).quant
    assert quant != annotated.value(joined.name).quant and -64 < quant.zero_point[0] < 64


def test_a_piece_that_only_the_concat_reads_is_tied() -> None:
    b = Builder((1, 3, 8, 8))
    scores = b.op("sigmoid", b.conv(b.input, 4))
    box = times(b, b.conv(b.input, 4), 80.0)
    joined = b.op(
        "concat", b.op("reshape", scores, shape=(-1, 256)), b.op("reshape", box, shape=(-1, 256)), dim=1
    )
    assert len(set(quants_of(b.graph(joined), scores, box, joined))) == 1


def test_ranges_within_a_bit_are_tied() -> None:
    b = Builder((1, 3, 8, 8))
    x = b.conv(b.input, 4)
    joined = b.op("concat", x, times(b, x, 1.5), dim=1)
    assert len(set(quants_of(b.graph(b.conv(joined, 3)), x, joined))) == 1


def test_one_piece_of_two_concats_suits_the_nearer_one() -> None:
    """Joined with small numbers in one place and with large ones in another."""
    b = Builder((1, 3, 8, 8))
    x = b.conv(b.input, 4)
    small = b.op("concat", x, times(b, b.conv(b.input, 4), 1.0), dim=1)
    large = b.op("concat", x, times(b, b.conv(b.input, 4), 100.0), dim=1)
    graph = b.graph(b.conv(small, 3), b.conv(large, 3))
    first, near, far = quants_of(graph, x, small, large)
    assert first == near != far
    found = simulate(quantize(graph, IMAGES[:32]).graph, IMAGES[32:])
    for wanted, got in zip(run(graph, [IMAGES[32:]]), found, strict=True):
        assert sqnr_db(wanted, got) > 30.0


def test_a_slice_of_what_is_joined_elsewhere() -> None:
    """The scale of a concat went back through a slice into everything that was sliced."""
    b = Builder((1, 3, 8, 8))
    scores = b.op("sigmoid", b.conv(b.input, 4))
    part = b.op("slice", scores, dim=1, start=0, end=2)
    joined = b.op("concat", part, times(b, b.conv(b.input, 2), 50.0), dim=1)
    whole, sliced, union = quants_of(b.graph(joined, b.conv(scores, 2)), scores, part, joined)
    assert whole == sliced and whole.scale == (1 / 256,) and union.scale[0] > 50 * whole.scale[0]


def test_a_concat_of_a_concat_and_a_constant() -> None:
    b = Builder((1, 3, 8, 8))
    x = b.op("sigmoid", b.conv(b.input, 2))
    inner = b.op("concat", x, b.constant("grid", torch.full((1, 1, 8, 8), 30.0)), dim=1)
    outer = b.op("concat", inner, times(b, x, 900.0), dim=1)
    graph = b.graph(outer, b.conv(inner, 2), b.conv(x, 2))
    quants = quants_of(graph, x, inner, outer)
    assert len(set(quants)) == 3
    found = simulate(quantize(graph, IMAGES[:32]).graph, IMAGES[32:])
    for wanted, got in zip(run(graph, [IMAGES[32:]]), found, strict=True):
        assert sqnr_db(wanted, got) > 30.0
