"""The embedded image set: the same bytes everywhere, disjoint splits, balance, one picture at any size."""

import hashlib

import numpy as np
import pytest

from edgekit.data.figures import FIGURES
from edgekit.data.shapes import CLASS_NAMES, generate, labels
from edgekit.errors import DataError

# sha256 of pixels and labels of pictures 7..30, first half; a change here orphans every shipped checkpoint.
GOLDEN = (
    ("train", 32, "e623b5cf105fafdd6054f4f8be415081"),
    ("train", 64, "f6f85861cb1c83493df0c88e97acfc1c"),
    ("train", 96, "7a32eea9642d65fc43880032e291a40d"),
    ("train", 160, "0e32690377c2951a3fc67e366bcf35a3"),
    ("train", 224, "6f5e258ae351d495b233f3e2819756b8"),
    ("calibration", 32, "ca9a669c17e3fe3e81137f1acea6d44b"),
    ("calibration", 64, "00b05934bfd3ecd520d5cd2fdb2a12e3"),
    ("calibration", 96, "2f4621a341f8a8ae1be64fed9b3f4cb3"),
    ("calibration", 160, "2df590c8d8955de2eeb9c1cab5f9a385"),
    ("calibration", 224, "f35a24656ce5274c474c00b13ee96d58"),
    ("evaluation", 32, "1f5f81ff27306fccdcc505dc9069eded"),
    ("evaluation", 64, "ef3ddfd52f4152201898ff9f9918b5f4"),
    ("evaluation", 96, "503ce761ac2c4169048bda6e98d02ef1"),
    ("evaluation", 160, "00508bdb6dc4ba03bb28bc9373b1d5ca"),
    ("evaluation", 224, "6a455583db7157fe649538660a3f9f0c"),
)


@pytest.mark.parametrize(("split", "resolution", "digest"), GOLDEN)
def test_bytes_are_the_same_everywhere(split, resolution, digest):
    images, classes = generate(split, 24, resolution, start=7)
    assert images.dtype == np.uint8 and images.shape == (24, resolution, resolution, 3)
    assert classes.dtype == np.int64
    found = hashlib.sha256(images.tobytes() + classes.astype("<i8").tobytes()).hexdigest()
    assert found[:32] == digest


def test_any_range_can_be_generated_on_its_own():
    images, classes = generate("train", 300, 32)
    part, part_classes = generate("train", 50, 32, start=240)
    assert np.array_equal(images[240:290], part)
    assert np.array_equal(classes[240:290], part_classes)


def test_splits_share_no_picture():
    digests = [
        {hashlib.sha256(image.tobytes()).digest() for image in generate(split, 400, 32)[0]}
        for split in ("train", "calibration", "evaluation")
    ]
    assert [len(d) for d in digests] == [400, 400, 400]
    assert not digests[0] & digests[1] and not digests[0] & digests[2] and not digests[1] & digests[2]


@pytest.mark.parametrize("count", (1, 23, 24, 500, 2000))
def test_every_prefix_is_balanced(count):
    counts = np.bincount(labels("evaluation", count), minlength=len(CLASS_NAMES))
    assert counts.max() - counts.min() <= 1


def test_class_order_differs_between_blocks_and_splits():
    order = labels("train", 48)
    assert not np.array_equal(order[:24], order[24:])
    assert not np.array_equal(order, labels("evaluation", 48))


def test_the_same_index_is_the_same_picture_at_another_resolution():
    large = generate("evaluation", 24, 192)[0].astype(np.float64)
    small = generate("evaluation", 24, 64)[0].astype(np.float64)
    reduced = large.reshape(24, 64, 3, 64, 3, 3).mean((2, 4))
    other = np.roll(reduced, 1, axis=0)
    # Noise has standard deviation up to 10 in the small picture; the content must agree far better than that.
    assert abs(reduced - small).mean() < 9
    assert abs((reduced - small).mean((1, 2, 3))).max() < 2
    assert abs(other - small).mean() > 40


def test_easier_pictures_are_the_same_figures():
    hard, classes = generate("train", 24, 48)
    easy, easy_classes = generate("train", 24, 48, hard=0.0)
    assert np.array_equal(classes, easy_classes)
    assert not np.array_equal(hard, easy)
    flat = np.diff(easy.astype(np.int64), axis=2)
    assert np.median(abs(flat)) <= 1  # no noise is left


def test_colour_says_nothing_about_the_class():
    images, classes = generate("train", 1200, 16)
    means = images.reshape(1200, -1, 3).mean(1)
    by_class = np.stack([means[classes == c].mean(0) for c in range(len(CLASS_NAMES))])
    # 50 pictures of spread about 50 a class: class means spread by about 7
    assert by_class.std(0).max() < 14


def test_names_are_the_figures():
    assert len(CLASS_NAMES) == len(set(CLASS_NAMES)) == len(FIGURES) == 24


@pytest.mark.parametrize("figure", FIGURES, ids=lambda f: f.__name__)
def test_figures_fill_their_frame_and_stay_in_it(figure):
    grid = np.linspace(-1.6, 1.6, 161, dtype=np.float32)
    u, v = np.meshgrid(grid, grid)
    for p in (0.0, 1.0):
        for q in (0.0, 1.0):
            distance = figure(u, v, p, q)
            assert distance.dtype == np.float32
            inside = distance < 0
            assert 0.1 < inside.sum() * 0.02**2 < 3.2
            reach = np.sqrt(u[inside] ** 2 + v[inside] ** 2).max()
            assert 0.75 < reach < 1.35


@pytest.mark.parametrize(
    ("arguments", "said"),
    (
        (("test", 1, 32), "no split 'test'"),
        (("train", 1, 256), "resolution 256"),
        (("train", 1, 8), "resolution 8"),
        (("train", 0, 32), "at least one"),
        (("train", 1, 32, -1), "do not exist"),
    ),
)
def test_impossible_requests(arguments, said):
    with pytest.raises(DataError, match=said):
        generate(*arguments)
