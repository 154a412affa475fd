"""The embedded image set: the same bytes everywhere, disjoint splits, balance, one picture at any size."""

import hashlib

import numpy as np
import pytest

from edgekit.data.figures import FIGURES
from edgekit.data.shapes import CLASS_NAMES, generate, labels
from edgekit.errors import DataError

# sha256 of pixels and labels of pictures 7..30, first half; a change here orphans every shipped checkpoint.
GOLDEN = (
    ("train", 32, "1922295327fd871d54d2f9913eab72ad"),
    ("train", 64, "3351e2beea51bf348b769aae1f8d6c66"),
    ("train", 96, "5992815f0c6ceb6d382d8551b31ffc9a"),
    ("train", 160, "a855d9e38a61bf75581355ca77949d80"),
    ("train", 224, "d580677ff11431bc8de5b16ac87ae02a"),
    ("calibration", 32, "edd27a0c2183a71dacd975503dc1b9cd"),
    ("calibration", 64, "5ba54803792d7e7c571641dad19a848a"),
    ("calibration", 96, "d893913b592d13e18e8fa98e60ed3e50"),
    ("calibration", 160, "544ef60847af5aaf02327f89680b2c60"),
    ("calibration", 224, "4b5ff3fa0a215ddcd9749ac66264a75e"),
    ("evaluation", 32, "85480a7a61a04d9ad4af300b1b950b79"),
    ("evaluation", 64, "d9996bdd14553a58d9063537ea15e73e"),
    ("evaluation", 96, "34a1a7df919ee2300a956ba55424a49a"),
    ("evaluation", 160, "d46b3088047b8d464795e10d1bc50bf4"),
    ("evaluation", 224, "8db428ed221221cc9d0cfd04369b4211"),
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
    # Noise has standard deviation up to 13 in the small picture; the content must agree far better than that.
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
