"""Layers as products of two."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekit.capture import capture
from edgekit.cost.static import count
from edgekit.errors import PruneError
from edgekit.graph.check import check
from edgekit.graph.ir import Graph
from edgekit.graph.run import run
from edgekit.prune.low_rank import factorise, low_rank

Tensor = torch.Tensor


def _images(n: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def _graph(rank: int = 64) -> Graph:
    """Its 1x1 layer (strided, padded) has rank 64 or less."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 96, 1, stride=2, padding=1), nn.ReLU()
        )
        net.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10)])
        net[2].weight.data = (torch.randn(96, rank) @ torch.randn(rank, 64))[:, :, None, None] / 20  # type: ignore[union-attr, operator]
        return capture(net.eval(), _images(1))


def test_full_rank_is_exact() -> None:
    graph = _graph()
    made = factorise(graph, {"2.weight": 64, "6.weight": 10}, _images())
    check(made)
    assert [node.op for node in made.nodes].count("linear") == 2
    others = _images(8, 5)
    torch.testing.assert_close(run(made, [others])[0], run(graph, [others])[0], rtol=1e-4, atol=1e-5)


def test_a_rank_keeps_what_matters_for_the_output_and_the_mean() -> None:
    graph, others = _graph(), _images(64, 5)
    right = run(graph, [others])[0]
    made = run(factorise(graph, {"2.weight": 40}, _images(256)), [others])[0]
    u, s, v = torch.linalg.svd(graph.value("2.weight").data[:, :, 0, 0], full_matrices=False)  # type: ignore[index]
    plain = graph.copy()
    plain.value("2.weight").data = ((u[:, :40] * s[:40]) @ v[:40])[:, :, None, None]
    by_weights = run(plain, [others])[0]
    assert (made - right).norm() < 0.8 * (by_weights - right).norm()


def test_layers_are_factored_where_it_pays_and_the_others_say_why_not() -> None:
    graph = _graph(rank=12)
    done = low_rank(graph, _images(), lambda g: float(count(g).macs))
    (layer,) = done.layers
    assert layer.name == "2.weight" and layer.rank == 16 and layer.of == 64
    assert layer.price_after == count(done.graph).macs < layer.price_before == count(graph).macs
    assert "no fewer products" in done.left["6.weight"] or "does not pay" in done.left["6.weight"]
    others = _images(8, 5)
    torch.testing.assert_close(run(done.graph, [others])[0], run(graph, [others])[0], rtol=1e-3, atol=1e-4)


def test_what_is_no_product_is_refused() -> None:
    with pytest.raises(PruneError, match="linear and 1x1 layers"):
        factorise(_graph(), {"0.weight": 3}, _images(4))
    with pytest.raises(PruneError, match="1 to 64"):
        factorise(_graph(), {"2.weight": 65}, _images(4))
