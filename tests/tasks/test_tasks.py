"""Tasks: which one a model gets, and what each says of two sets of answers."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.errors import DataError, UsageError
from edgekit.tasks import Change, Known, Output, choose
from edgekit.tasks.classification import Classification, compare_logits
from edgekit.tasks.segmentation import Segmentation
from edgekit.tasks.statistics import bootstrap
from edgekit.tasks.tensors import Tensors
from edgekit.verify.agreement import agreement

VECTOR, MAP, SCALAR = Output("scores", (4,)), Output("map", (3, 8, 8)), Output("size", ())
RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("asked", "outputs", "known", "name"),
    [
        ("auto", [VECTOR], Known(), "tensors"),  # it may be a regression
        ("auto", [VECTOR], Known(classifier=True), "classification"),
        ("auto", [VECTOR], Known(labels=()), "classification"),
        ("auto", [VECTOR], Known(class_names=("a", "b", "c", "d")), "classification"),
        ("auto", [VECTOR], Known(class_names=("a", "b")), "tensors"),
        ("auto", [VECTOR, MAP], Known(labels=()), "classification"),
        ("auto", [VECTOR, MAP], Known(), "tensors"),
        ("auto", [MAP], Known(), "tensors"),
        ("auto", [MAP], Known(labels=(8, 8)), "segmentation"),
        ("auto", [MAP], Known(class_names=("a", "b", "c")), "segmentation"),
        ("auto", [MAP], Known(classifier=True), "tensors"),
        ("auto", [SCALAR], Known(labels=()), "tensors"),
        ("segmentation", [SCALAR, MAP], Known(), "segmentation"),
        ("classification", [MAP, VECTOR], Known(), "classification"),
        ("tensors", [VECTOR], Known(labels=()), "tensors"),
    ],
)
def test_which_task(asked, outputs, known, name):
    task = choose(asked, outputs, known)
    assert task.name == name and task.reason
    assert len(task.outputs[task.scored].shape) == {"classification": 1, "segmentation": 3}.get(
        name, len(outputs[0].shape)
    )


@pytest.mark.parametrize(
    ("asked", "says"),
    [("classification", r"\(1, K\) with K"), ("segmentation", r"\(1, K, H, W\)"), ("clas", "one of auto")],
)
def test_a_task_that_no_output_fits_is_one_line(asked, says):
    with pytest.raises(UsageError, match=says):
        choose(asked, [SCALAR], Known())


def _noisy(array, db):
    noise = RNG.standard_normal(array.shape)
    return array + noise * np.sqrt((array**2).sum() / (noise**2).sum() / 10 ** (db / 10))


def test_every_output_is_measured_and_the_lowest_is_told():
    a, b = RNG.standard_normal((6, 3, 8, 8)), RNG.standard_normal((6, 4))
    task = Tensors((MAP, VECTOR))
    found = task.drift([a, b], [_noisy(a, 40), _noisy(b, 12)])
    assert [row.sqnr_db for row in found.outputs] == [pytest.approx(40), pytest.approx(12)]
    assert found.sqnr_db == pytest.approx(12) and found.metric == "sqnr" and found.n == 6
    assert (found.reference, found.agreement, found.p_value) == (None, None, None)
    assert found.outputs[0].peak == pytest.approx(np.abs(a).max())
    assert found.flipped and {flip.reference for flip in found.flipped} == {"output scores"}
    assert all(isinstance(flip, Change) for flip in found.flipped)


def test_one_bad_image_is_named_with_its_output():
    a, b = RNG.standard_normal((5, 3, 8, 8)), RNG.standard_normal((5, 4))
    worse = b.copy()
    worse[3] = -b[3]
    (flip,) = Tensors((MAP, VECTOR)).drift([a, b], [a, worse]).flipped
    assert (flip.index, flip.reference) == (3, "output scores") and "-6.0 dB" in flip.artifact
    assert Tensors((MAP, VECTOR)).same([a, b], [a, worse]).tolist() == [True, True, True, False, True]


@pytest.mark.parametrize("dtype", ["int64", "float32"])
def test_whole_numbers_are_compared_by_equality(dtype):
    wanted = RNG.integers(0, 9, (4, 10)).astype(dtype)
    found = wanted.copy()
    found[1, :3] += 1
    drift = Tensors((Output("index", (10,), dtype),)).drift([wanted], [found])
    assert drift.outputs[0].equal_share == pytest.approx(37 / 40)
    assert [flip.index for flip in drift.flipped] == [1]


def test_scalars_and_single_numbers():
    numbers = RNG.standard_normal(7)
    drift = Tensors((SCALAR,)).drift([numbers], [numbers])
    assert drift.sqnr_db == 200.0 and drift.outputs[0].shape == () and not drift.flipped


def test_numbers_that_are_none_and_shapes_that_differ():
    a = RNG.standard_normal((2, 4))
    with pytest.raises(DataError, match="artifact's output 'scores' holds NaN"):
        Tensors((VECTOR,)).drift([a], [np.full((2, 4), np.nan)])
    with pytest.raises(DataError, match="two equal"):
        Tensors((VECTOR,)).drift([a], [a[:, :3]])


def test_a_classification_says_what_it_said_of_logits_alone():
    a, labels = RNG.standard_normal((40, 4)), RNG.integers(0, 4, 40)
    b = _noisy(a, 8)
    alone, found = compare_logits(a, b, labels), Classification((VECTOR,)).drift([a], [b], labels)
    left, right = alone.as_dict(), found.as_dict()
    assert right.pop("outputs")[0]["sqnr_db"] == pytest.approx(alone.sqnr_db)
    assert {k: v for k, v in left.items() if k != "outputs"} == right
    both = Classification((VECTOR, MAP)).drift([a, np.ones((40, 3, 8, 8))], [b, np.full((40, 3, 8, 8), 3.0)])
    assert both.sqnr_db == pytest.approx(10 * np.log10(1 / 4)) and both.agreement == found.agreement


def _scores(classes, k=3):
    return np.eye(k)[classes].transpose(0, 3, 1, 2)


def test_mean_iou_by_hand_with_pixels_that_do_not_count():
    masks = np.zeros((2, 4, 4), np.int64)
    masks[:, :, 2:] = 1
    masks[0, 0, :] = 255
    right, wrong = masks.copy(), masks.copy()
    right[0, 0, :] = 2
    wrong[0, 0, :] = 2
    wrong[1, :, 0] = 1  # four pixels of class 0
    task = Segmentation((MAP,), class_names=("road", "car", "sky"))
    drift = task.drift([_scores(right)], [_scores(wrong)], masks)
    assert (drift.metric, drift.reference) == ("miou", 100.0)
    assert drift.artifact == pytest.approx(100 * (10 / 14 + 14 / 18) / 2)  # 14 pixels of each class count
    assert drift.drop == pytest.approx(drift.reference - drift.artifact)
    assert drift.ci_low <= drift.drop <= drift.ci_high
    assert drift.agreement == pytest.approx(100 * 28 / 32)
    (flip,) = drift.flipped
    assert (flip.index, flip.reference, flip.artifact) == (1, "road", "car, 25.0% of pixels changed")
    assert (drift.lost, drift.gained) == (1, 0)
    assert task.overlay(1, [_scores(right)], [_scores(wrong)])[:, 0].all()
    assert task.same([_scores(right)], [_scores(wrong)]).tolist() == [True, False]


def test_without_masks_the_reference_is_the_truth():
    maps = RNG.standard_normal((6, 3, 8, 8))
    same = Segmentation((MAP,)).drift([maps], [maps])
    assert (same.metric, same.artifact, same.drop, same.flipped) == ("agreement", 100.0, 0.0, ())
    assert same.ci_low < 0 < same.ci_high  # six images prove little
    assert same.answers == "pixels" and same.figures["mean IoU with the float model's map"] == 100.0
    other = Segmentation((MAP,)).drift([maps], [_noisy(maps, 10)])
    assert 0 < other.ci_low < other.drop < other.ci_high
    assert other.artifact == pytest.approx(other.agreement) and other.artifact < 100
    with pytest.raises(DataError, match="a class for every pixel"):
        Segmentation((MAP,)).drift([maps], [maps], np.zeros((6, 4, 4), np.int64))


def test_the_interval_of_a_mean():
    values = RNG.standard_normal(400)
    low, high = bootstrap(400, lambda w: w @ values / 400, 2000)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.3 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.3 * error)


def test_artifacts_agree_as_their_task_sees_it():
    maps = RNG.standard_normal((4, 3, 8, 8))
    shifted = maps.copy()
    shifted[2] = maps[2, ::-1]
    both = {"a": [maps], "b": [shifted]}
    (pair,) = agreement(both, task=Segmentation((MAP,))).pairs
    assert (pair.agreement, pair.differing) == (75.0, (2,))
    (pair,) = agreement(both, task=Tensors((MAP,))).pairs
    assert pair.disagreements == 1 and pair.sqnr_db < 10
