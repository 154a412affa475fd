"""The embedded image set: the same bytes everywhere, disjoint splits, balance, one picture at any size."""

import hashlib

import numpy as np
import pytest

from edgekit.data import open_images
from edgekit.data.close_figures import CLOSE_FIGURES
from edgekit.data.figures import FIGURES
from edgekit.data.preprocessing import Preprocessing
from edgekit.data.shapes import CLASS_NAMES, EMBEDDED, HARD, generate, labels
from edgekit.errors import DataError

# sha256 of pixels and labels of pictures 7..30, first half; a change here orphans every shipped checkpoint.
GOLDEN = (
    ("train", 32, "91fb6d4fad330a3845f69c019e1d0616"),
    ("train", 64, "9f6f75f76304c9d9298a1b32c07cdd42"),
    ("train", 96, "415370ae7dd91d4359f6e23285edf386"),
    ("train", 160, "9c0b63877bd1d0eae1f4937e4d2816b8"),
    ("train", 224, "f4e92525bcdf206e94e4f708cf4d8cb2"),
    ("calibration", 32, "53bdced2ed24a29d90ffe6684f9b75fb"),
    ("calibration", 64, "3fdb157ecd9ca19406e21723a997c13a"),
    ("calibration", 96, "41d4e5de6e5ef898fd3782395b52d11e"),
    ("calibration", 160, "55de8f92b4da00b54b452adc36d1dc04"),
    ("calibration", 224, "1d259d9818783440ce1cdbc2aa953841"),
    ("evaluation", 32, "8d7aa7255efa060a52cb9a027989b425"),
    ("evaluation", 64, "72cb9b58e2efd5de523b222f52f33713"),
    ("evaluation", 96, "27c0d963fa4318be39e3c227a58bc1dc"),
    ("evaluation", 160, "d63048a734235f57e72bff430a47e4e3"),
    ("evaluation", 224, "03953cecad4d02db88f2cfa20fb9aa06"),
)


@pytest.mark.parametrize(("split", "resolution", "digest"), GOLDEN)
def test_bytes_are_the_same_everywhere(split, resolution, digest):
    images, classes = generate(split, 24, resolution, start=7)
    assert images.dtype == np.uint8 and images.shape == (24, resolution, resolution, 3)
    assert classes.dtype == np.int64
    found = hashlib.sha256(images.tobytes() + classes.astype("<i8").tobytes()).hexdigest()
    assert found[:32] == digest


HARD_GOLDEN = (
    ("train", 64, "8c893dfb2176c500f62676797240aa53"),
    ("train", 96, "370af35b954823e18d01cb6501dba4b0"),
    ("train", 160, "b2355d70e4b4860129d9210a602e76d4"),
    ("train", 224, "1bfd69c4f9e5c899e656e401da057040"),
    ("calibration", 64, "7e5f08d295637570896416ea5a27a27e"),
    ("calibration", 96, "95fae1046ef444bec608192ebed1da62"),
    ("calibration", 160, "5f61eed4c8b03447d9b3fb487c32ad5b"),
    ("calibration", 224, "697c52bc3056f5d2fde0165fd9511838"),
    ("evaluation", 64, "597fca4fc354f7fe19e18703768d228b"),
    ("evaluation", 96, "c26e96da5456a3ac42c7227cba1f4854"),
    ("evaluation", 160, "deaea69a563f583de3a77c0834fbc3c0"),
    ("evaluation", 224, "0f86a3571301430fb7ebd7379811f9c9"),
)


@pytest.mark.parametrize(("split", "resolution", "digest"), HARD_GOLDEN)
def test_the_hard_set_is_the_same_everywhere(split, resolution, digest):
    images, classes = HARD.generate(split, 24, resolution, start=7)
    found = hashlib.sha256(images.tobytes() + classes.astype("<i8").tobytes()).hexdigest()
    assert found[:32] == digest


def test_no_picture_of_one_set_is_in_the_other():
    easy, hard = (
        {hashlib.sha256(image.tobytes()).digest() for image in one.generate("train", 200, 32)[0]}
        for one in (EMBEDDED, HARD)
    )
    assert not easy & hard
    assert not np.array_equal(HARD.labels("train", 24), EMBEDDED.labels("train", 24))


def test_the_hard_set_opens_by_its_name():
    images = open_images(
        "embedded-hard", "evaluation", 80, Preprocessing(32, 32, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    )
    counts = np.bincount(images.labels, minlength=40)
    assert images.class_names == HARD.class_names and counts.min() == counts.max() == 2
    assert np.array_equal(images.pixels(3, 5), HARD.generate("evaluation", 2, 32, start=3)[0])


def test_figures_of_the_hard_set_are_smaller_and_fainter():
    def seen(one):
        """Share of pixels that differ between the figure alone and without any: hard = 0, no noise."""
        plain = one.generate("evaluation", 120, 64, hard=0.0)[0].astype(np.float64)
        return abs(np.diff(plain, axis=2)).mean()

    assert seen(HARD) < 0.8 * seen(EMBEDDED)


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


def test_zoom_enlarges_the_figure_alone():
    near, near_classes = generate("train", 24, 64, hard=0.0, zoom=1.7)
    far, far_classes = generate("train", 24, 64, hard=0.0)
    assert np.array_equal(near_classes, far_classes)
    changed = (near != far).any(3).mean()
    assert 0.05 < changed < 0.7


def test_colour_says_nothing_about_the_class():
    images, classes = generate("train", 1200, 16)
    means = images.reshape(1200, -1, 3).mean(1)
    by_class = np.stack([means[classes == c].mean(0) for c in range(len(CLASS_NAMES))])
    # 50 pictures of spread about 50 a class: class means spread by about 7
    assert by_class.std(0).max() < 14


def test_names_are_the_figures():
    assert len(CLASS_NAMES) == len(set(CLASS_NAMES)) == len(FIGURES) == 24
    assert HARD.class_names[:24] == CLASS_NAMES
    assert len(HARD.class_names) == len(set(HARD.class_names)) == 40


@pytest.mark.parametrize("figure", CLOSE_FIGURES, ids=lambda f: f.__name__)
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
