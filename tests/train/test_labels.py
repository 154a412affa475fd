"""Cross-entropy with smoothing and mixup, by hand."""

import math

import pytest
import torch

from edgekit.errors import DataError
from edgekit.train.distillation import distillation_loss, relative_error, soft_loss
from edgekit.train.labels import Labels, cross_entropy, mix


def test_label_smoothing_by_hand():
    # softmax of (ln 3, 0) is (3/4, 1/4); the smoothed label of class 0 is (1 - 0.2 + 0.1, 0.1)
    loss = cross_entropy(torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([0]), 0.2)
    assert loss.item() == pytest.approx(-(0.9 * math.log(0.75) + 0.1 * math.log(0.25)), rel=1e-6)


def test_blended_labels_by_hand():
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]])
    labels = Labels(torch.tensor([0, 1]), torch.tensor([1, 0]), 0.75)
    first = 0.75 * -math.log(0.75) + 0.25 * -math.log(0.25)
    assert cross_entropy(logits, labels).item() == pytest.approx((first + math.log(2.0)) / 2, rel=1e-6)


def test_mixup_blends_images_and_labels_alike():
    torch.manual_seed(0)
    labels = torch.arange(4)
    images, other = torch.eye(4), 10 * torch.eye(4)
    (a, b), mixed = mix((images, other), labels, 0.4)
    assert mixed.partner.tolist() == [3, 0, 1, 2] and 0 < mixed.share < 1
    one_hot = torch.nn.functional.one_hot
    soft = mixed.share * one_hot(mixed.own, 4) + (1 - mixed.share) * one_hot(mixed.partner, 4)
    torch.testing.assert_close(a, soft)
    torch.testing.assert_close(b, 10 * soft)
    assert mix((images,), labels, 0.0)[0][0] is images


def test_an_ensemble_teaches_its_mean_probability():
    # teachers (3/4, 1/4) and (1/4, 3/4) are one of (1/2, 1/2), which the student (0, 0) is
    teachers = [torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([[0.0, math.log(3.0)]])]
    assert soft_loss(torch.zeros(1, 2), teachers, 1.0).item() == pytest.approx(0.0, abs=1e-6)
    one = distillation_loss(torch.zeros(1, 2), teachers[:1], None, 1.0, alpha=0.5)
    assert one.item() == pytest.approx(0.75 * math.log(3.0) - math.log(2.0), rel=1e-5)


def test_soft_loss_is_a_mean_over_pixels():
    rng = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 3, 4, 5, generator=rng) for _ in range(2))
    flat = [t.permute(0, 2, 3, 1).reshape(-1, 3) for t in (student, teacher)]
    whole = soft_loss(student, [teacher], 2.0)
    assert whole.item() == pytest.approx(soft_loss(flat[0], [flat[1]], 2.0).item(), rel=1e-5)


def test_relative_error():
    assert relative_error(torch.zeros(3), torch.ones(3)).item() == 1.0
    assert relative_error(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0])).item() == pytest.approx(0.1)


def test_labels_of_another_shape():
    with pytest.raises(DataError, match=r"labels \(2, 1\) for outputs \(2, 3\)"):
        cross_entropy(torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.int64))
