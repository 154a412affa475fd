"""The distillation loss against values worked out by hand."""

import math

import pytest
import torch
from torch.nn import functional as F

from edgekit.train.distillation import distillation_loss

LN3 = math.log(3.0)


def test_hand_computed_value():
    # At T = 2 the teacher's logits (2 ln 3, 0) give p = (3/4, 1/4), the student's (0, 0) give q = (1/2, 1/2):
    # KL = 3/4 ln(3/2) + 1/4 ln(1/2) = 3/4 ln 3 - ln 2; CE of the student is ln 2 whatever the label.
    student, teacher = torch.zeros(1, 2), torch.tensor([[2 * LN3, 0.0]])
    loss = distillation_loss(student, teacher, torch.tensor([1]), temperature=2.0, alpha=0.25)
    kl = 0.75 * LN3 - math.log(2.0)
    assert loss.item() == pytest.approx(0.25 * 4.0 * kl + 0.75 * math.log(2.0), rel=1e-6)


def test_mean_over_the_batch():
    rng = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(6, 5, generator=rng), torch.randn(6, 5, generator=rng)
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    whole = distillation_loss(student, teacher, labels)
    rows = [distillation_loss(student[i : i + 1], teacher[i : i + 1], labels[i : i + 1]) for i in range(6)]
    assert whole.item() == pytest.approx(torch.stack(rows).mean().item(), rel=1e-5)


def test_alpha_0_is_cross_entropy_and_alpha_1_vanishes_at_the_teacher():
    logits, labels = torch.tensor([[1.0, -2.0, 0.5]]), torch.tensor([2])
    plain = distillation_loss(logits, logits + 7, labels, alpha=0.0)
    assert plain.item() == pytest.approx(F.cross_entropy(logits, labels).item())
    assert distillation_loss(logits, logits + 7, labels, alpha=1.0).item() == pytest.approx(0.0, abs=1e-5)


def test_gradient_reaches_the_student():
    student = torch.zeros(2, 3, requires_grad=True)
    distillation_loss(student, torch.tensor([[3.0, 0, 0], [0, 3.0, 0]]), torch.tensor([0, 1])).backward()
    assert student.grad[0, 0] < 0 and student.grad[1, 1] < 0
