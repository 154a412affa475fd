"""A softmax over few and many positions: its grid, and whether it stays float, against eager numbers."""

from __future__ import annotations

import pytest
import torch
from quantize_graphs import Builder

from edgekit.graph.ir import Graph
from edgekit.graph.run import run
from edgekit.quantize import QuantizeSettings, quantize, simulate, sqnr_db

DICTATED = (1 / 256,)


def noise(side: int) -> torch.Tensor:
    return torch.randn(40, 3, side, side, generator=torch.Generator().manual_seed(0))


def soft_argmax(side: int, sharpness: float = 1.0) -> Graph:
    """The mean position under a softmax over all of them."""
    b = Builder((1, 3, side, side))
    x = b.op("reshape", b.conv(b.input, 5, 3), shape=(-1, 5, side * side))
    x = b.op("mul", x, b.constant("sharpness", torch.tensor([sharpness])))
    x = b.op("softmax", x, dim=2)
    x = b.op("mul", x, b.constant("grid", torch.linspace(0, 1, side * side)))
    return b.graph(b.op("sum", x, dims=(2,), keepdim=False))


def quant_of(graph: Graph, op: str):
    return next(node.output.quant for node in graph.nodes if node.op == op)


def assert_close(graph: Graph, annotated: Graph, images: torch.Tensor, least: float) -> None:
    for wanted, found in zip(run(graph, [images]), simulate(annotated, images), strict=True):
        assert sqnr_db(wanted, found) > least


@pytest.mark.parametrize("side", [8, 16, 32])
def test_many_even_positions_take_a_grid_of_their_own(side: int) -> None:
    """64, 256, 1,024 positions in steps of 1/256: 38, 30 and 3 dB."""
    graph = soft_argmax(side, 0.3)
    images = noise(side)
    annotated = quantize(graph, images[:32]).graph
    quant = quant_of(annotated, "softmax")
    assert quant is not None and quant.scale[0] < DICTATED[0] / 4
    assert_close(graph, annotated, images[32:], 45.0)


def test_a_peak_above_a_wide_floor_stays_float_up_to_the_sum() -> None:
    """One image in two is almost one-hot, so no grid holds the other's even probabilities."""
    graph = soft_argmax(32)
    images = noise(32)
    images[::2] *= 8.0
    annotated = quantize(graph, images[:32]).graph
    assert [node.op for node in annotated.nodes if node.output.quant is None] == ["softmax", "mul"]
    assert quant_of(annotated, "sum") is not None
    assert_close(graph, annotated, images[32:], 30.0)


def test_few_positions_take_what_kernels_dictate() -> None:
    b = Builder((1, 3, 8, 8))
    x = b.op("mean", b.conv(b.input, 5, 3), dims=(2, 3), keepdim=False)
    graph = b.graph(b.linear(b.op("softmax", x, dim=1), 4))
    images = noise(8)
    annotated = quantize(graph, images[:32]).graph
    quant = quant_of(annotated, "softmax")
    assert quant is not None and quant.scale == DICTATED
    assert_close(graph, annotated, images[32:], 30.0)


def attention(sharpness: float) -> Graph:
    b = Builder((1, 3, 16, 16))
    tokens = b.op("permute", b.op("reshape", b.conv(b.input, 8, 3), shape=(-1, 8, 256)), dims=(0, 2, 1))
    q = b.op("mul", b.linear(tokens, 8), b.constant("scale", torch.tensor([sharpness])))
    scores = b.op("matmul", q, b.op("permute", b.linear(tokens, 8), dims=(0, 2, 1)))
    mixed = b.op("matmul", b.op("softmax", scores, dim=-1), b.linear(tokens, 8))
    return b.graph(b.linear(b.op("mean", mixed, dims=(1,), keepdim=False), 4))


@pytest.mark.parametrize("sharpness", [0.02, 0.1, 1.0])
def test_attention_multiplies_integers(sharpness: float) -> None:
    graph = attention(sharpness)
    images = noise(16)
    annotated = quantize(graph, images[:32]).graph
    assert all(node.output.quant is not None for node in annotated.nodes)
    assert_close(graph, annotated, images[32:], 24.0)


def test_probabilities_that_leave_the_graph_are_integers() -> None:
    graph = soft_argmax(32)
    graph.outputs = [graph.nodes[3].output]
    graph.remove_dead()
    images = noise(32)
    images[::2] *= 8.0
    annotated = quantize(graph, images[:32]).graph
    assert annotated.outputs[0].quant is not None


def test_sixteen_bits_need_no_choice() -> None:
    graph = soft_argmax(32)
    annotated = quantize(graph, noise(32)[:32], QuantizeSettings(activations="int16")).graph
    quant = quant_of(annotated, "softmax")
    assert quant is not None and quant.scale == (1 / 32768,)
