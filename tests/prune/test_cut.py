"""What is cut computes what the masked original does; a wrong cut does not, or is refused."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from prune_nets import NETS
from torch import nn

from edgekit.capture import capture
from edgekit.errors import PruneError
from edgekit.graph.check import check
from edgekit.graph.ir import Graph
from edgekit.graph.run import run
from edgekit.passes import optimize
from edgekit.prune import Analysis, analyse, cut, masked

SIZE = 16
EXACT = 1e-11
STAYS = {
    "Statistics": {"gate"},  # one channel
    "State": {"states"},  # read by a product of two varying sides
    "Rows": {"stem", "layer.self_attn", "layer.linear2"},  # added up where each row is one position
}


def captured(net: type[nn.Module], dtype: torch.dtype = torch.float64) -> Graph:
    """With batch norms whose statistics differ from channel to channel."""
    torch.manual_seed(0)
    module = net().eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.5, 0.5)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0.0, 0.3)
    graph = capture(module, torch.rand(1, 3, SIZE, SIZE)).copy()
    for value in graph.constants():
        assert value.data is not None
        value.data = value.data.to(dtype)
    return graph


def images(count: int = 2) -> list[torch.Tensor]:
    return [torch.from_numpy(np.random.default_rng(0).normal(size=(count, 3, SIZE, SIZE)))]


def chosen(analysis: Analysis, ratio: float, seed: int) -> set[int]:
    drawn = random.Random(seed)
    scores = {unit: drawn.random() for unit in analysis.units}
    return analysis.allowed(scores, {group.name: int(len(group.units) * ratio) for group in analysis.groups})


def difference(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> float:
    return max(float((x - y).abs().max() / x.abs().max()) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", NETS)
def test_a_cut_graph_is_the_masked_original(name: str) -> None:
    graph = captured(NETS[name])
    before = str(graph)
    analysis = analyse(graph)
    outputs = {c.name for c in analysis.closed if c.reason == "it is an output of the network"}
    assert outputs
    assert {c.name for c in analysis.closed} - outputs == STAYS.get(name, set())
    plain = run(graph, images())
    for seed in range(3):
        for ratio in (0.25, 0.5, 0.7):
            gone = chosen(analysis, ratio, seed)
            smaller = cut(analysis, gone)
            check(smaller)
            expected = masked(analysis, gone)(images())
            assert difference(expected, run(smaller, images())) < EXACT
            assert difference(expected, plain) > 1e-3  # the test says something
            sizes = [
                sum(v.data.numel() for v in g.constants() if v.data is not None) for g in (smaller, graph)
            ]
            assert sizes[0] < sizes[1] * (1 - 0.5 * ratio)
    assert str(graph) == before


@pytest.mark.parametrize("name", NETS)
def test_the_cut_graph_optimizes_to_the_same_function(name: str) -> None:
    graph = captured(NETS[name], torch.float32)
    smaller = cut(analysis := analyse(graph), chosen(analysis, 0.4, 1))
    batch = [x.float() for x in images()]
    expected = run(smaller, batch)
    optimize(smaller)
    assert difference(expected, run(smaller, batch)) < 1e-4


def test_nothing_removed_is_the_same_graph_on_the_same_tensors() -> None:
    graph = captured(NETS["ShuffleTwo"])
    same = cut(analyse(graph), ())
    assert str(same) == str(graph)
    own = {v.name: v.data.data_ptr() for v in graph.constants() if v.data is not None}
    assert {v.name: v.data.data_ptr() for v in same.constants() if v.data is not None} == own


def test_a_removal_that_leaves_no_rectangle_is_refused_by_name() -> None:
    analysis = analyse(captured(NETS["Grouped"]))
    inside = next(group for group in analysis.groups if group.name.startswith("a"))
    with pytest.raises(PruneError, match=r"conv2d at b\.0"):
        cut(analysis, inside.units[:1])


def test_a_removal_that_leaves_nothing_is_refused() -> None:
    analysis = analyse(captured(NETS["Residual"]))
    with pytest.raises(PruneError, match="nothing would be left"):
        cut(analysis, analysis.groups[0].units)


def test_outputs_stay_with_their_reason() -> None:
    analysis = analyse(captured(NETS["Residual"]))
    assert [(c.name, c.channels, c.reason) for c in analysis.closed] == [
        ("head", 5, "it is an output of the network")
    ]
    assert {group.name: len(group.units) for group in analysis.groups} == {"stem.0": 12, "b.0": 16}


def test_heads_that_must_stay_equally_wide_lose_their_lowest() -> None:
    analysis = analyse(captured(NETS["Attention"]))
    drawn = random.Random(3)
    scores = {unit: drawn.random() for unit in analysis.units}
    node = next(node for node in analysis.coupling.weighings if node.source == "qkv")
    heads = analysis.coupling.labels[analysis.coupling.weighings[node].made].reshape(9, 4).tolist()
    assert analysis.allowed(scores, {"qkv": 6}) == {min(head, key=scores.__getitem__) for head in heads}


def _rolled(graph: Graph) -> None:
    """The weight of a consumer with its columns moved by one."""
    weight = graph.value("c.0.weight")
    assert weight.data is not None
    weight.data = weight.data.roll(1, 1)


def _first_columns(graph: Graph) -> None:
    node = next(node for node in graph.nodes if node.source == "head")
    weight = node.operands[1]
    assert weight.data is not None
    weight.data = captured(NETS["Residual"]).value("head.weight").data[:, : weight.shape[1]]  # type: ignore[index]


@pytest.mark.parametrize("spoil", [_rolled, _first_columns])
def test_the_oracle_bites(spoil) -> None:
    analysis = analyse(captured(NETS["Residual"]))
    gone = chosen(analysis, 0.3, 0)
    smaller = cut(analysis, gone)
    spoil(smaller)
    assert difference(masked(analysis, gone)(images()), run(smaller, images())) > 1e-3
