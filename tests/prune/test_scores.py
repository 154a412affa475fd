"""Scores against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from edgekit.capture import capture
from edgekit.errors import PruneError
from edgekit.prune import Analysis, analyse
from edgekit.prune.scores import KINDS, WITH_IMAGES, score
from edgekit.prune.search import ladder, search

MADE = torch.tensor([[1.0, -1.0], [2.0, 0.0], [0.0, 5.0]])
READ = torch.tensor([[3.0, -1.0, 0.5], [1.0, 1.0, 0.0]])


def _linear() -> Analysis:
    """Two numbers, three units, two outputs, nothing between."""
    net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 2, bias=False)).eval()
    net[0].weight.data, net[1].weight.data = MADE.clone(), READ.clone()
    return analyse(capture(net, torch.zeros(1, 2)))


def _scores(analysis: Analysis, kind: str, **given: object) -> torch.Tensor:
    """Of the one group, in the order of the rows that make its units."""
    (group,) = analysis.groups
    found = score(analysis, kind, **given)  # type: ignore[arg-type]
    return torch.tensor([found[unit] for unit in group.produces[0].ids.tolist()], dtype=torch.float64)


def test_magnitude_is_of_rows_and_columns_over_their_means() -> None:
    rows, columns = torch.tensor([1.0, 1.0, 2.5]) / 1.5, torch.tensor([2.0, 1.0, 0.25]) / (3.25 / 3)
    expected = (rows + columns) / (rows + columns).mean()
    torch.testing.assert_close(_scores(_linear(), "l1"), expected.double())


def test_l2_counts_the_batch_norm_in() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1, bias=False))
    net.eval()[0].weight.data.fill_(1.0)
    net[1].weight.data, net[1].running_var = torch.tensor([2.0, 3.0]), torch.tensor([4.0, 9.0])
    net[2].weight.data = torch.tensor([1.0, 3.0]).reshape(1, 2, 1, 1)
    found = _scores(analyse(capture(net, torch.zeros(1, 1, 2, 2))), "l2")
    torch.testing.assert_close(
        found, torch.tensor([0.75, 1.25]).double(), rtol=1e-4, atol=0
    )  # both gains are 1


def test_a_batch_norms_scale_judges_what_has_one() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), nn.Conv2d(2, 1, 1)).eval()
    net[1].weight.data = torch.tensor([-3.0, 1.0])
    analysis = analyse(capture(net, torch.zeros(1, 1, 2, 2)))
    found = score(analysis, "batch-norm")
    with_norm, without = analysis.groups
    assert [found[unit] for unit in with_norm.produces[0].ids] == pytest.approx([1.5, 0.5])
    assert all(found[unit] == math.inf for unit in without.units)


def test_taylor_is_the_squared_change_of_a_given_loss() -> None:
    images = torch.tensor([[1.0, 2.0], [-1.0, 0.5], [0.0, 1.0]])
    hidden = images @ MADE.T
    share = hidden * READ.sum(0)  # of the sum of the outputs
    found = _scores(_linear(), "taylor", images=images, loss=lambda outputs, first: outputs[0].sum())
    torch.testing.assert_close(found, share.square().mean(0).double())


def test_taylor_by_itself_is_the_change_relative_to_the_outputs_variance() -> None:
    images = torch.randn(4096, 2, generator=torch.Generator().manual_seed(1))
    hidden = images @ MADE.T
    outputs = hidden @ READ.T
    spread = (outputs - outputs.mean(0)).square().sum(1).mean()
    expected = hidden.square().mean(0) * READ.square().sum(0) / spread
    found = _scores(_linear(), "taylor", images=images)
    torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0)  # random directions, many images


def test_the_surgeon_prices_what_is_left_when_the_others_make_up() -> None:
    """Units 0 and 1 say the same: one is free, the second costs all that both bring; 2 stands alone."""
    net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 1, bias=False)).eval()
    net[0].weight.data = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    net[1].weight.data = torch.tensor([[1.0, 2.0, 1.0]])
    images = torch.randn(8192, 2, generator=torch.Generator().manual_seed(2))
    analysis = analyse(capture(net, torch.zeros(1, 2)))
    first, second, third = _scores(analysis, "obs", images=images).tolist()
    assert min(first, second) < 0.01
    assert max(first, second) == pytest.approx(9 / 10, rel=0.1)  # (1 + 2)^2 of 9 + 1
    assert third == pytest.approx(1 / 10, rel=0.1)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "batch-norm"])
def test_every_kind_judges_every_unit(kind: str) -> None:
    analysis = _linear()
    found = score(analysis, kind, torch.randn(8, 2))
    assert set(found) == set(analysis.units)
    assert all(math.isfinite(value) and value >= 0 for value in found.values())


def test_what_cannot_be_judged_is_said() -> None:
    with pytest.raises(PruneError, match="did you mean taylor"):
        score(_linear(), "tailor")
    for kind in WITH_IMAGES:
        with pytest.raises(PruneError, match="calibration images"):
            score(_linear(), kind)


def test_the_search_narrows_what_costs_little_for_what_it_saves() -> None:
    cheap, dear = ladder([0.1] * 8, 2, 2), ladder([1.0] * 8, 2, 2)
    assert cheap.widths == (8, 6, 4, 2)
    widths, price = search({"a": cheap, "b": dear}, lambda kept: 10 * kept["a"] + 10 * kept["b"], 15.0)
    assert (widths, price) == ({"a": 4, "b": 8}, 15.0)
    widths, price = search({"a": cheap, "b": dear}, lambda kept: 10 * kept["a"] + 10 * kept["b"], 1.0)
    assert widths == {"a": 2, "b": 2}  # the narrowest there is


def test_what_is_not_judged_stays() -> None:
    assert ladder([math.inf, 1.0, math.inf, 2.0], 1, 1).widths == (4, 3, 2)
