"""Resize, crop and normalise: exact bytes where nothing must be resized, PIL's own answer where it must."""

import json

import numpy as np
import pytest
from PIL import Image

from edgekit.data import Preprocessing
from edgekit.errors import DataError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_pictures_of_the_right_size_keep_their_bytes():
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 20, 3), dtype=np.uint8)
    out = Preprocessing(20, 24, "bilinear", MEAN, STD).apply(images)
    assert out.dtype == np.float32 and out.shape == (3, 3, 20, 20) and out.flags.c_contiguous
    expected = (images / 255.0 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(out, expected.transpose(0, 3, 1, 2), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "how"), (("bilinear", 2), ("bicubic", 3)))
def test_shorter_side_then_centre_crop(name, how):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8))
    pixels = Preprocessing(16, 20, name, (0, 0, 0), (1, 1, 1)).pixels([image])
    expected = np.asarray(image.resize((40, 20), Image.Resampling(how)))[2:18, 12:28]
    assert np.array_equal(pixels[0], expected)


def test_grey_palette_and_transparent_pictures_become_rgb():
    grey = Image.new("L", (16, 16), 100)
    images = [grey, grey.convert("P"), grey.convert("RGBA"), grey.convert("CMYK")]
    pixels = Preprocessing(16, 16, "bilinear", MEAN, STD).pixels(images)
    assert (pixels[:3] == 100).all() and pixels.shape == (4, 16, 16, 3)


def test_an_array_of_another_size_is_resized():
    images = np.full((2, 30, 40, 3), 77, np.uint8)
    assert (Preprocessing(16, 18, "bicubic", MEAN, STD).pixels(images) == 77).all()


def test_dictionary_round_trip_through_json():
    preprocessing = Preprocessing(224, 256, "bicubic", MEAN, STD)
    assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing


@pytest.mark.parametrize(
    ("values", "said"),
    (
        ((224, 200, "bilinear", MEAN, STD), "resize no smaller"),
        ((224, 224, "nearest", MEAN, STD), "no interpolation 'nearest'"),
        ((224, 224, "bilinear", MEAN, (1, 1, 0)), "std above 0"),
        ((224, 224, "bilinear", (0, 0), STD), "three numbers"),
    ),
)
def test_settings_that_cannot_be_right(values, said):
    with pytest.raises(DataError, match=said):
        Preprocessing(*values)


def test_unknown_and_missing_settings_are_named():
    with pytest.raises(DataError, match=r"missing \['std'\].*unknown \['sdt'\]"):
        Preprocessing.from_dict(
            {"resolution": 8, "resize": 8, "interpolation": "bilinear", "mean": MEAN, "sdt": STD}
        )


def test_floating_point_arrays_are_refused():
    with pytest.raises(DataError, match="uint8"):
        Preprocessing(8, 8, "bilinear", MEAN, STD).apply(np.zeros((1, 8, 8, 3), np.float32))
