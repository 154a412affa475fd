"""open_images: embedded and folder sets, their batches, their hashes and what bad input gets."""

import errno
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from edgekit.data import Preprocessing, open_images
from edgekit.data.shapes import generate
from edgekit.data.spool import spooled
from edgekit.errors import DataError

SMALL = Preprocessing(32, 32, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(40):
            pixels = rng.integers(0, 256, (36, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i:03d}.png")
    return tmp_path


def test_embedded_batches_are_the_pictures_in_order():
    images = open_images("embedded", "evaluation", 50, SMALL)
    assert len(images) == 50 and images.labels.shape == (50,) and len(images.class_names) == 24
    batches = list(images.batches(16))
    assert [len(b) for b in batches] == [16, 16, 16, 2]
    everything = np.concatenate(batches)
    assert everything.dtype == np.float32 and everything.shape == (50, 3, 32, 32)
    back = np.rint((everything * 0.5 + 0.5) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    assert np.array_equal(back, generate("evaluation", 50, 32)[0])
    assert np.array_equal(np.asarray(images.raw(49)), back[49])


def test_hash_follows_pixels_labels_and_preprocessing():
    images = open_images("embedded", "calibration", 30, SMALL)
    again = open_images("embedded", "calibration", 30, SMALL)
    assert images.sha256 == again.sha256
    labels = images.labels.copy()
    labels[3] = (labels[3] + 1) % 24
    pixels = images.pixels(0, 30)
    pixels[7, 1, 1, 0] ^= 1
    others = (
        replace(images, labels=labels),
        replace(images, images=pixels),
        replace(images, preprocessing=replace(SMALL, mean=(0.4, 0.5, 0.5))),
        open_images("embedded", "evaluation", 30, SMALL),
    )
    assert len({images.sha256, *(other.sha256 for other in others)}) == 5


def test_embedded_pictures_are_enlarged_above_their_largest_resolution():
    large = open_images("embedded", "evaluation", 2, replace(SMALL, resolution=299, resize=299))
    assert next(large.batches(2)).shape == (2, 3, 299, 299)


def test_folder_splits_are_disjoint_complete_and_stable(folder):
    splits = {
        s: open_images(f"imagefolder:{folder}", s, 1000, SMALL)
        for s in ("train", "calibration", "evaluation")
    }
    files = [path for images in splits.values() for path in images.images]
    assert len(files) == len(set(files)) == 80
    assert all(len(images) for images in splits.values()) and len(splits["train"]) > 50
    assert splits["train"].class_names == ("cat", "dog")
    for images in splits.values():
        assert [path.parent.name for path in images.images] == [images.class_names[i] for i in images.labels]
    evaluated = {path.name for path in splits["evaluation"].images}
    (folder / "cat" / "000.png").unlink()
    after = open_images(f"imagefolder:{folder}", "evaluation", 1000, SMALL)
    assert {path.name for path in after.images} | {"000.png"} == evaluated | {"000.png"}


def test_folder_prefixes_take_classes_in_turn_and_decode(folder):
    images = open_images(f"imagefolder:{folder}", "train", 10, SMALL)
    assert np.bincount(images.labels).tolist() == [5, 5]
    assert next(images.batches(10)).shape == (10, 3, 32, 32)
    assert images.raw(0).size == (48, 36)
    assert images.sha256 == open_images(f"imagefolder:{folder}", "train", 10, SMALL).sha256


def test_split_folders_are_used_when_present(folder):
    root = folder / "set"
    for split, name in (("train", "cat"), ("val", "dog")):
        for c in ("a", "b"):
            (root / split / c).mkdir(parents=True)
            for path in sorted((folder / name).iterdir())[:30]:
                (root / split / c / path.name).write_bytes(path.read_bytes())
    evaluation = open_images(f"imagefolder:{root}", "evaluation", 1000, SMALL)
    train = open_images(f"imagefolder:{root}", "train", 1000, SMALL)
    calibration = open_images(f"imagefolder:{root}", "calibration", 1000, SMALL)
    assert {p.parent.parent.name for p in evaluation.images} == {"val"} and len(evaluation) == 60
    assert len(train) + len(calibration) == 60 and not set(train.images) & set(calibration.images)
    assert len(calibration) > 0


def test_a_class_missing_from_a_split_does_not_shift_the_others(folder):
    root = folder / "set"
    for place in ("train/a", "train/b", "val/b"):
        (root / place).mkdir(parents=True)
        for path in sorted((folder / "cat").iterdir()):
            (root / place / path.name).write_bytes(path.read_bytes())
    evaluation = open_images(f"imagefolder:{root}", "evaluation", 1000, SMALL)
    assert evaluation.class_names == ("a", "b") and set(evaluation.labels.tolist()) == {1}


def test_split_folders_without_the_one_asked_for(folder):
    root = folder / "set"
    (root / "train" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match=r"no folder for the evaluation split.*add evaluation or eval or val"):
        open_images(f"imagefolder:{root}", "evaluation", 1, SMALL)


@pytest.mark.parametrize("damage", ("truncated", "text", "empty"))
def test_bad_files_are_named(folder, damage):
    path = sorted((folder / "cat").iterdir())[0]
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[: len(whole) // 2], "text": b"hello\n" * 99, "empty": b""}[damage])
    for other in sorted((folder / "cat").iterdir())[1:]:
        other.unlink()
    for split in ("train", "calibration", "evaluation"):
        images = open_images(f"imagefolder:{folder}", split, 1000, SMALL)
        if path in images.images:
            with pytest.raises(DataError, match=r"000\.png") as caught:
                list(images.batches(8))
            assert "\n" not in str(caught.value) and str(caught.value).count(": ") >= 2
            return
    pytest.fail("the damaged file is in no split")


def test_truncated_jpeg_is_named(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    path = tmp_path / "train" / "a" / "x.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:900])
    splits = [s for s in ("train", "calibration") if _length(tmp_path, s)]
    with pytest.raises(DataError, match=r"x\.jpg: cannot be decoded"):
        open_images(f"imagefolder:{tmp_path}", splits[0], 1, SMALL).raw(0)


def _length(root, split):
    try:
        return len(open_images(f"imagefolder:{root}", split, 10, SMALL))
    except DataError:
        return 0


def test_folders_that_hold_nothing(tmp_path):
    spec = f"imagefolder:{tmp_path}"
    with pytest.raises(DataError, match="no class folders"):
        open_images(spec, "train", 1, SMALL)
    Image.new("RGB", (8, 8)).save(tmp_path / "loose.png")
    with pytest.raises(DataError, match="pictures but no class folders"):
        open_images(spec, "train", 1, SMALL)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    with pytest.raises(DataError, match="no pictures in its 1 class folders"):
        open_images(spec, "train", 1, SMALL)
    with pytest.raises(DataError, match="does not exist"):
        open_images(f"{spec}/nowhere", "train", 1, SMALL)
    with pytest.raises(DataError, match="is a file"):
        open_images(f"{spec}/loose.png", "train", 1, SMALL)


@pytest.mark.parametrize("spec", ("imagenet", "imagefolder", "imagefolder:", "", "embeded"))
def test_unknown_specs(spec):
    with pytest.raises(DataError, match="'embedded-hard' or 'imagefolder:PATH'"):
        open_images(spec, "train", 1, SMALL)


def test_counts_and_batches_below_one():
    with pytest.raises(DataError, match="at least 1"):
        open_images("embedded", "train", 0, SMALL)
    with pytest.raises(DataError, match="at least 1"):
        next(open_images("embedded", "train", 1, SMALL).batches(0))


def _held(count):
    """Most bytes that were allocated while a set was opened, hashed and gone through."""
    tracemalloc.start()
    images = open_images("embedded", "evaluation", count, SMALL)
    assert images.sha256 and sum(map(len, images.batches(16))) == count
    images.first(count // 2).raw(count // 2 - 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_number_of_generated_pictures():
    _held(64)  # modules, tables of noise
    pictures = 512 * SMALL.resolution**2 * 3
    assert _held(128 + 512) - _held(128) < pictures / 10


def test_more_generated_pictures_than_there_are_are_refused_before_any_is_drawn():
    with pytest.raises(DataError, match="do not exist"):
        open_images("embedded", "evaluation", (1 << 20) + 1, SMALL)


def test_no_room_for_generated_pictures_is_one_line():
    def full(parts):
        raise OSError(errno.ENOSPC, "No space left on device")
        yield

    with pytest.raises(
        DataError, match=r"no room for generated pictures \(No space left on device\): TMPDIR"
    ):
        spooled(full(()))
