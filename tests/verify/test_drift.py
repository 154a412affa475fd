"""Statistics against figures worked out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from edgekit.errors import DataError
from edgekit.tasks.classification import compare_logits as drift
from edgekit.tasks.statistics import drop_interval, mcnemar_p, softmax, sqnr_db


def _logits(classes, k=4):
    return np.eye(k)[np.asarray(classes)] * 5.0


@pytest.mark.parametrize(
    ("lost", "gained", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),  # 2 * 1/2
        (5, 0, 2 / 32),
        (6, 1, 2 * (1 + 7) / 128),
        (8, 2, 2 * (1 + 10 + 45) / 1024),
        (3, 3, 1.0),
    ],
)
def test_mcnemar_by_hand(lost, gained, p):
    assert mcnemar_p(lost, gained) == pytest.approx(p)
    assert mcnemar_p(gained, lost) == mcnemar_p(lost, gained)


def test_sqnr_by_hand():
    assert sqnr_db(np.array([3.0, 4.0]), np.array([3.0, 4.5])) == pytest.approx(10 * math.log10(25 / 0.25))
    assert sqnr_db(np.ones(4), np.ones(4)) == 200.0
    rows = sqnr_db(np.array([[10.0, 0.0], [1.0, 0.0]]), np.array([[9.0, 0.0], [1.0, 1.0]]), axis=1)
    assert rows == pytest.approx([20.0, 0.0])
    assert sqnr_db(np.zeros(3), np.ones(3)) == 0.0


def test_a_small_case_by_hand():
    labels = [0, 1, 2, 3, 0]
    reference = _logits([0, 1, 2, 0, 1])  # right on three
    artifact = _logits([0, 1, 3, 3, 2])  # loses image 2, gains image 3, changes 4
    found = drift(reference, artifact, labels)
    assert (found.metric, found.n) == ("top1", 5)
    assert found.reference == pytest.approx(60.0) and found.artifact == pytest.approx(60.0)
    assert (found.lost, found.gained, found.drop, found.p_value) == (1, 1, 0.0, 1.0)
    assert found.agreement == pytest.approx(40.0)
    assert [flip.index for flip in found.flipped] == [2, 3, 4]
    first = found.flipped[0]
    assert (first.label, first.reference, first.artifact) == (2, 2, 3)
    assert first.reference_probability == pytest.approx(math.exp(5) / (math.exp(5) + 3))
    assert found.cosine == pytest.approx(0.4)
    json.dumps(found.as_dict())


def test_without_labels_agreement_is_the_metric():
    found = drift(_logits([0, 1, 2, 3]), _logits([0, 1, 2, 0]))
    assert (found.metric, found.reference, found.artifact, found.drop) == ("agreement", 100.0, 75.0, 25.0)
    assert found.p_value is None and found.flipped[0].label is None


def test_identical_answers_still_leave_what_n_images_could_have_missed():
    logits = _logits([0, 1, 2, 3] * 25)
    found = drift(logits, logits, [0, 1, 2, 3] * 25)
    assert (found.drop, found.sqnr_db, found.flipped) == (0.0, 200.0, ())
    assert (found.ci_low, found.ci_high) == (-3.0, 3.0)


def test_intervals_cover_the_true_drop_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    p_lost, p_gained, n = 0.03, 0.01, 800
    covered = 0
    for _ in range(300):
        lost, gained, _ = rng.multinomial(n, [p_lost, p_gained, 1 - p_lost - p_gained])
        low, high = drop_interval(n, lost, gained, 2000)
        covered += low <= 2.0 <= high
    assert 0.90 <= covered / 300 <= 0.99


def test_the_interval_is_repeatable_and_narrows_with_images():
    assert drop_interval(500, 12, 5) == drop_interval(500, 12, 5)
    narrow, wide = drop_interval(8000, 192, 80), drop_interval(500, 12, 5)
    assert narrow[1] - narrow[0] < (wide[1] - wide[0]) / 3


def test_softmax_survives_large_logits():
    assert softmax(np.array([[1e4, 0.0]])) == pytest.approx(np.array([[1.0, 0.0]]))


@pytest.mark.parametrize(
    ("reference", "artifact", "labels", "says"),
    [
        (np.zeros((3, 4)), np.zeros((3, 5)), None, "shapes"),
        (np.zeros((0, 4)), np.zeros((0, 4)), None, "shapes"),
        (np.zeros((3, 4)), np.zeros((3, 4)), [0], "1 labels for 3 images"),
        (np.zeros((3, 4)), np.full((3, 4), np.nan), None, "artifact's logits"),
    ],
)
def test_what_does_not_belong_together_is_refused(reference, artifact, labels, says):
    with pytest.raises(DataError, match=says):
        drift(reference, artifact, labels)
