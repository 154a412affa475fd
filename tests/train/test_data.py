"""Batches follow from (step, batch, size, seed) alone, whatever they are drawn from."""

import numpy as np
import pytest
import torch
from PIL import Image

from edgekit.data import Preprocessing
from edgekit.data.shapes import GENERATED
from edgekit.errors import DataError
from edgekit.train import open_data, tensor_data
from edgekit.train.data import EmbeddedData, Grade, drawn, resized

HALF = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one[0], other[0], strict=True)) and torch.equal(
        one[1], other[1]
    )


def test_every_image_comes_once_before_any_comes_again():
    taken = np.concatenate([drawn(step, 4, 10, 3) for step in range(5)])
    assert sorted(taken[:10]) == sorted(taken[10:]) == list(range(10))
    assert list(taken[:10]) != list(taken[10:])
    assert list(drawn(2, 4, 10, 3)) == list(taken[8:12])


def test_tensors_with_several_inputs_keep_together():
    first = np.arange(12, dtype=np.float32).reshape(12, 1)
    data = tensor_data((first, first * 10), np.arange(12))
    (a, b), labels = data.batches(1, 5, None, 0)
    torch.testing.assert_close(a * 10, b)
    torch.testing.assert_close(a[:, 0], labels.float())
    assert data.identity != tensor_data((first, first * 11), np.arange(12)).identity


def test_mirrored_tensors_take_their_maps_along():
    maps = np.arange(8 * 2 * 6).reshape(8, 2, 6) % 6
    images = maps[:, None].astype(np.float32)
    data = tensor_data(images, maps, mirror=True)
    seen = set()
    for step in range(4):
        (x,), labels = data.batches(step, 8, None, 0)
        torch.testing.assert_close(x[:, 0], labels.float())
        seen |= {int(row[0, 0]) for row in labels}
    assert seen == {0, 5}
    torch.testing.assert_close(data.arrays[0], torch.from_numpy(images))  # the caller's stay as they are


def test_resizing_is_of_pictures_only():
    assert resized(torch.zeros(2, 3, 8, 8), 4).shape == (2, 3, 4, 4)
    assert resized(torch.zeros(2, 5), 4).shape == (2, 5)


@pytest.mark.parametrize("spec", sorted(GENERATED))
def test_generated_pictures_are_kept_on_disk(tmp_path, spec):
    made = GENERATED[spec]
    grades = {32: Grade(30, 0.3, 1.5)}
    data = EmbeddedData(spec, 48, *HALF, grades, pool=20, first=40, cache=tmp_path)
    (images,), labels = data.batches(0, 8, 32, 5)
    assert images.shape == (8, 3, 32, 32) and images.dtype == torch.float32 and labels.dtype == torch.int64
    again = EmbeddedData(spec, 48, *HALF, grades, pool=20, first=40, cache=tmp_path)
    assert same(again.batches(0, 8, 32, 5), ((images,), labels))
    assert not same(again.batches(0, 8, 32, 6), ((images,), labels))
    assert data.count is None and data.batches(3, 4, None, 0)[0][0].shape == (4, 3, 48, 48)
    assert len(list(tmp_path.glob("*.npy"))) == 4 and not list(tmp_path.glob("*.partial"))
    # turning, mirroring and another order of the channels keep every picture's grey levels
    whole, classes = made.generate("train", 30, 32, 40, 0.3, 1.5)
    levels = {int(picture.sum()): label for picture, label in zip(whole.astype(int), classes, strict=True)}
    pixels = torch.round((images * 0.25 + 0.5) * 255).long()
    assert [levels[int(picture.sum())] for picture in pixels] == labels.tolist()


def test_a_folder_is_cropped_mirrored_and_normalised(tmp_path):
    for kind, grey in (("dark", 40), ("light", 200)):
        (tmp_path / "train" / kind).mkdir(parents=True)
        for i in range(6):
            picture = np.full((20 + i, 30, 3), grey, np.uint8)
            Image.fromarray(picture).save(tmp_path / "train" / kind / f"{i}.png")
    data = open_data(f"imagefolder:{tmp_path}", Preprocessing(16, 16, "bilinear", *HALF))
    first = data.batches(0, 6, None, 0)
    assert first[0][0].shape == (6, 3, 16, 16) and same(first, data.batches(0, 6, None, 0))
    means = first[0][0].mean((1, 2, 3))
    expected = torch.tensor([(v / 255 - 0.5) / 0.25 for v in (40, 200)])[first[1]]
    torch.testing.assert_close(means, expected, rtol=1e-4, atol=1e-4)
    assert data.batches(1, 4, 24, 0)[0][0].shape == (4, 3, 24, 24)


def test_a_set_that_is_none():
    with pytest.raises(DataError, match="is not a data set"):
        open_data("imagenet", Preprocessing(16, 16, "bilinear", *HALF))
