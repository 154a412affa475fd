"""Zeros in weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekit.capture import capture
from edgekit.errors import PruneError
from edgekit.graph.ir import Graph
from edgekit.prune.sparsity import magnitude, two_of_four


def _graph() -> Graph:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 12, 1), nn.Flatten()
        )
        return capture(nn.Sequential(net, nn.Linear(12 * 16, 5)).eval(), torch.randn(1, 3, 8, 8))


def _weight(graph: Graph, name: str) -> torch.Tensor:
    data = graph.value(name).data
    assert data is not None
    return data


def test_the_smallest_weights_go_and_exactly_as_many_as_asked() -> None:
    graph = _graph()
    before = {v.name: v.data.clone() for v in graph.constants() if v.data is not None}
    for per_layer in (True, False):
        sparse = magnitude(graph, 0.6, per_layer=per_layer)
        total = sum(mask.numel() for mask in sparse.masks.values())
        assert abs(sparse.zeros - 0.6) < 2 / min(mask.numel() for mask in sparse.masks.values())
        assert sum(int((_weight(sparse.graph, n) == 0).sum()) for n in sparse.masks) == round(
            total * sparse.zeros
        )
        for name, mask in sparse.masks.items():
            kept, gone = before[name][mask].abs(), before[name][~mask].abs()
            assert kept.numel() == 0 or gone.numel() == 0 or kept.min() >= gone.max()
            assert torch.equal(_weight(sparse.graph, name)[mask], before[name][mask])
    assert all(torch.equal(_weight(graph, name), data) for name, data in before.items())


def test_two_of_every_four_input_channels_stay_the_larger_ones() -> None:
    graph = _graph()
    sparse = two_of_four(graph)
    assert set(sparse.masks) == {"0.3.weight", "1.weight"}
    assert set(sparse.left) == {"0.0.weight", "0.2.weight"}
    for name in sparse.masks:
        now, was = _weight(sparse.graph, name), _weight(graph, name)
        quads = now.movedim(1, -1).reshape(-1, 4)
        assert bool(((quads != 0).sum(1) == 2).all())
        largest = was.movedim(1, -1).reshape(-1, 4).abs().topk(2).values.sum(1)
        torch.testing.assert_close(quads.abs().sum(1), largest)


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(PruneError, match="at least 0 and less than 1"):
        magnitude(_graph(), 1.0)
