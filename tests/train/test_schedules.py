"""Rates and stages at their milestones."""

import pytest
import torch

from edgekit.errors import UsageError
from edgekit.train.reference import PLANS
from edgekit.train.schedules import cosine_rate, one_cycle_rate, progressive_stage, step_rate


@pytest.mark.parametrize(
    ("progress", "rate"),
    ((0.0, 0.0), (0.05, 0.5), (0.1, 1.0), (0.55, 0.55), (1.0, 0.1), (1.2, 0.1)),
)
def test_cosine_with_warm_up(progress, rate):
    assert cosine_rate(progress, 1.0, warmup=0.1, floor=0.1) == pytest.approx(rate)


def test_cosine_without_warm_up_starts_at_its_peak():
    assert cosine_rate(0.0, 3.0, warmup=0.0) == 3.0
    assert cosine_rate(1.0, 3.0, warmup=0.0) == pytest.approx(0.0)


@pytest.mark.parametrize(("progress", "rate"), ((0.0, 1.0), (0.49, 1.0), (0.5, 0.1), (0.8, 0.01)))
def test_step_divides_at_milestones(progress, rate):
    assert step_rate(progress, 1.0, (0.5, 0.75)) == pytest.approx(rate)


@pytest.mark.parametrize(("progress", "stage"), ((0.0, 0), (0.5, 1), (0.79, 1), (0.8, 2), (1.0, 2)))
def test_stages_follow_their_shares(progress, stage):
    assert progressive_stage(progress, (0.5, 0.3, 0.2)) == stage


def test_shares_must_add_up():
    with pytest.raises(UsageError, match=r"add up to 0\.9"):
        progressive_stage(0.1, (0.5, 0.4))
    with pytest.raises(UsageError, match="add up to 0"):
        progressive_stage(0.1, ())


def test_the_reference_run_grows_to_the_resolution_of_use():
    stages, grades = zip(*PLANS["embedded"].stages, strict=True)
    shares, resolutions, _ = zip(*stages, strict=True)
    _, hard, zoom = zip(*grades, strict=True)
    assert progressive_stage(1.0, shares) == len(PLANS["embedded"].stages) - 1
    assert list(resolutions) == sorted(resolutions) and resolutions[-1] == 224
    assert list(hard) == sorted(hard) and hard[-1] == 1.0
    assert list(zoom) == sorted(zoom, reverse=True) and zoom[-1] == 1.0


def test_one_cycle_is_torchs():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0, momentum=0.9)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2.0, total_steps=11, pct_start=0.3)
    for step in range(11):
        ours = one_cycle_rate(step / 10, 2.0, (0.3 * 11 - 1) / 10, floor=2.0 / 25 / 1e4)
        assert ours == pytest.approx(theirs.get_last_lr()[0], rel=1e-6)
        optimizer.step()
        if step < 10:
            theirs.step()
