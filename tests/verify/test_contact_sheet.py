"""The picture of flipped images."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from edgekit.errors import DataError
from edgekit.tasks.record import Flip
from edgekit.verify.contact_sheet import contact_sheet

FLIPS = [Flip(i, 1, 1, 0.5 + i / 20, 0, 0.6) for i in range(8)]


def _open(png):
    return Image.open(io.BytesIO(png))


def test_a_grid_of_captioned_tiles():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 40, 40, 3), dtype=np.uint8)
    sheet = _open(contact_sheet(images, FLIPS, ["circle", "a class with a very long name indeed"], columns=3))
    assert sheet.format == "PNG" and sheet.mode == "RGB"
    assert sheet.width < sheet.height
    assert contact_sheet(images, FLIPS) == contact_sheet(images, FLIPS)


def test_preprocessed_tensors_and_a_mapping_will_do():
    images = {i: np.random.default_rng(i).normal(size=(3, 16, 16)).astype(np.float32) for i in range(8)}
    assert _open(contact_sheet(images, FLIPS, limit=2)).width < _open(contact_sheet(images, FLIPS)).width


def test_no_flips_is_a_picture_too():
    assert _open(contact_sheet([], [])).height < 60


def test_flips_without_labels():
    flips = [Flip(0, None, 3, 0.9, 4, 0.8)]
    assert _open(contact_sheet(np.zeros((1, 8, 8, 3), np.uint8), flips)).width > 100


@pytest.mark.parametrize("shape", [(24, 24), (24, 24, 1), (1, 24, 24), (24, 24, 4), (4, 24, 24), (2, 24, 24)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_any_number_of_channels_is_shown(shape, dtype):
    image = np.full(shape, 90, dtype)
    image[tuple(slice(0, 12) if n == 24 else slice(None) for n in shape)] = 250
    tile = np.asarray(_open(contact_sheet({0: image}, FLIPS[:1])))[6:126, 6:126].astype(int)
    bright, dark = (250, 90) if dtype == np.uint8 else (255, 0)
    assert np.abs(tile[:50, :50] - bright).max() == 0
    assert np.abs(tile[70:, 70:] - dark).max() == 0


def test_something_that_is_no_image_is_refused():
    with pytest.raises(DataError, match="image 0 has shape"):
        contact_sheet(np.zeros((8, 5, 5, 5, 3), np.uint8), FLIPS[:1])
