"""Folders as they come: splits under many names, annotations beside pictures, classes in subfolders, junk."""

import os

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from edgekit.data import Preprocessing, open_images
from edgekit.errors import DataError

SMALL = Preprocessing(8, 8, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
JUNK = (".DS_Store", "Thumbs.db", "desktop.ini", "._00.png")


def _fill(folder, count=4, suffix="png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / f"{i:02}.{suffix}")


def _opened(root, split, count=1000):
    return open_images(f"imagefolder:{root}", split, count, SMALL)


def _pairs(images):
    return sorted((str(path), int(label)) for path, label in zip(images.images, images.labels, strict=True))


@pytest.mark.parametrize(
    ("train", "evaluation"),
    [
        ("train", "valid"),
        ("Train", "Val"),
        ("TRAIN", "TEST"),
        ("training", "validation"),
        ("Training", "Testing"),
        ("train", "eval"),
        ("train", "test"),
        ("training_set", "test_set"),
        ("train2017", "val2017"),
        ("Train Data", "Test-Images"),
    ],
)
def test_split_folders_under_the_names_in_use(tmp_path, train, evaluation):
    for split in (train, evaluation):
        for name in ("ant", "bee"):
            _fill(tmp_path / split / name)
    (tmp_path / "README.dataset.txt").write_text("exported")
    assert _pairs(_opened(tmp_path, "evaluation")) == sorted(ImageFolder(tmp_path / evaluation).samples)
    assert {p.parts[-3] for p in _opened(tmp_path, "train").images} == {train}
    assert {p.parts[-3] for p in _opened(tmp_path, "calibration").images} == {train}


@pytest.mark.parametrize("beside", ["__MACOSX", "README.txt"])
def test_an_archive_unpacked_into_a_folder_of_its_own(tmp_path, beside):
    for split in ("train", "valid"):
        _fill(tmp_path / "flowers-3" / split / "rose")
        _fill(tmp_path / "flowers-3" / split / "tulip")
    if beside == "README.txt":
        (tmp_path / beside).write_text("exported")
    else:
        (tmp_path / beside).mkdir()
    found = _opened(tmp_path, "evaluation")
    assert _pairs(found) == sorted(ImageFolder(tmp_path / "flowers-3" / "valid").samples)


def test_one_class_of_subfolders_is_one_class(tmp_path):
    for part in ("2023", "2024"):
        _fill(tmp_path / "rose" / part, 40)
    assert _opened(tmp_path, "train").class_names == ("rose",)


def test_validation_pictures_come_before_test_pictures(tmp_path):
    for split in ("train", "test", "valid"):
        _fill(tmp_path / split / "a")
    assert {p.parts[-3] for p in _opened(tmp_path, "evaluation").images} == {"valid"}


@pytest.mark.parametrize("beside", ["labels", "Annotations", "masks"])
def test_splits_beside_annotations(tmp_path, beside):
    for split in ("train", "valid"):
        _fill(tmp_path / split / "a")
        _fill(tmp_path / split / "b")
    (tmp_path / beside).mkdir()
    (tmp_path / beside / "00.txt").write_text("0 0.5 0.5 1 1")
    found = _opened(tmp_path, "evaluation")
    assert found.class_names == ("a", "b")
    assert len(found) == 8
    assert found.skipped == (f"1 folder beside the splits: {beside}",)


def test_classes_below_images_beside_labels(tmp_path):
    for name in ("a", "b"):
        _fill(tmp_path / "images" / name, 30)
        (tmp_path / "labels" / name).mkdir(parents=True)
        (tmp_path / "labels" / name / "00.txt").write_text("0 0 0 1 1")
    assert _opened(tmp_path, "train").class_names == ("a", "b")


@pytest.mark.parametrize("layout", ["images/{}", "{}/images"])
def test_pictures_of_a_detection_set_serve_for_calibration(tmp_path, layout):
    for split in ("train", "val"):
        _fill(tmp_path / layout.format(split), 40)
        labels = tmp_path / layout.replace("images", "labels").format(split)
        labels.mkdir(parents=True)
        (labels / "00.txt").write_text("0 0 0 1 1")
    for split in ("calibration", "evaluation"):
        found = _opened(tmp_path, split)
        assert found.labels is None
        assert found.class_names == ()
        assert len(found) > 0
    with pytest.raises(DataError, match="pictures but no class folders"):
        _opened(tmp_path, "train")


def test_a_flat_folder_serves_for_calibration_and_agreement(tmp_path):
    _fill(tmp_path, 60)
    calibration, evaluation = _opened(tmp_path, "calibration"), _opened(tmp_path, "evaluation")
    assert calibration.labels is None
    assert not set(calibration.images) & set(evaluation.images)
    assert calibration.sha256 != evaluation.sha256
    assert len(calibration.first(2)) == 2
    assert next(calibration.batches(2)).shape == (2, 3, 8, 8)


def test_calibration_without_labels_beside_splits_that_have_them(tmp_path):
    _fill(tmp_path / "calibration", 5)
    for name in ("a", "b", "c"):
        _fill(tmp_path / "val" / name)
    assert len(_opened(tmp_path, "calibration")) == 5
    assert _opened(tmp_path, "calibration").labels is None
    assert _pairs(_opened(tmp_path, "evaluation")) == sorted(ImageFolder(tmp_path / "val").samples)


@pytest.mark.parametrize("names", [("b",), ("misc",), ("a", "misc")])
def test_the_folders_of_calibration_do_not_renumber_the_classes(tmp_path, names):
    for name in names:
        _fill(tmp_path / "calibration" / name)
    for name in ("a", "b", "z"):
        _fill(tmp_path / "train" / name)
        _fill(tmp_path / "val" / name)
    assert len(_opened(tmp_path, "calibration")) == 4 * len(names)
    assert _opened(tmp_path, "evaluation").class_names == ("a", "b", "z")
    assert _pairs(_opened(tmp_path, "evaluation")) == sorted(ImageFolder(tmp_path / "val").samples)


def test_what_archives_carry_along_is_no_picture(tmp_path):
    for split in ("train", "val"):
        for name in ("a", "b"):
            _fill(tmp_path / split / name)
            for junk in JUNK:
                (tmp_path / split / name / junk).write_bytes(b"\0\5\x16\7")
        (tmp_path / split / ".DS_Store").write_bytes(b"\0")
        (tmp_path / split / ".ipynb_checkpoints").mkdir()
    (tmp_path / "__MACOSX" / "train" / "a").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "train" / "a" / "._00.png").write_bytes(b"\0\5\x16\7")
    found = _opened(tmp_path, "evaluation")
    assert found.class_names == ("a", "b")
    assert len(found) == 8
    assert found.skipped == ()
    assert len(list(found.batches(8))) == 1


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "png", "ppm", "bmp", "pgm", "tif", "tiff", "TIF", "webp"])
def test_every_kind_of_file_that_imagefolder_reads(tmp_path, suffix):
    for split in ("train", "val"):
        _fill(tmp_path / split / "a", suffix=suffix)
        _fill(tmp_path / split / "b")
    assert _pairs(_opened(tmp_path, "evaluation")) == sorted(ImageFolder(tmp_path / "val").samples)


def test_classes_in_subfolders(tmp_path):
    for split in ("train", "val"):
        _fill(tmp_path / split / "a" / "2024" / "may", 20)
        _fill(tmp_path / split / "a" / "2025")
        _fill(tmp_path / split / "a")
        _fill(tmp_path / split / "b" / "only")
    (tmp_path / "val" / "b" / "round").symlink_to(tmp_path / "val" / "b")
    theirs = list(ImageFolder(tmp_path / "train").samples)
    ours = _pairs(_opened(tmp_path, "train")) + _pairs(_opened(tmp_path, "calibration"))
    assert sorted(ours) == sorted(theirs)
    assert len(_opened(tmp_path, "evaluation")) == 32


def test_a_linked_class_folder_is_followed(tmp_path):
    _fill(tmp_path / "elsewhere" / "pictures")
    for split in ("train", "val"):
        (tmp_path / "set" / split).mkdir(parents=True)
        (tmp_path / "set" / split / "a").symlink_to(tmp_path / "elsewhere" / "pictures")
    assert _pairs(_opened(tmp_path / "set", "evaluation")) == ImageFolder(tmp_path / "set" / "val").samples


def test_what_is_left_out_is_said(tmp_path):
    for split in ("train", "val"):
        for name in ("a", "c"):
            _fill(tmp_path / split / name)
        (tmp_path / split / "b").mkdir()
        _fill(tmp_path / split, 1)
    for i in range(5):
        (tmp_path / "val" / "c" / f"{i}.heic").write_bytes(b"")
    found = _opened(tmp_path, "evaluation")
    assert found.class_names == ("a", "b", "c")
    assert set(found.labels.tolist()) == {0, 2}
    empty, foreign, loose = found.skipped
    assert empty == "1 class folder without pictures: val/b"
    assert foreign.startswith("5 files not .jpg|")
    assert foreign.endswith("val/c/0.heic, val/c/1.heic, val/c/2.heic and 2 more")
    assert loose == "1 picture outside the class folders: val/00.png"


def test_class_names_that_are_not_utf8_are_plain_text(tmp_path):
    for split in ("train", "val"):
        for name in (b"caf\xe9", b"caf\xe8"):
            _fill(tmp_path / split / os.fsdecode(name), 3)
    found = _opened(tmp_path, "evaluation")
    assert len(set(found.class_names)) == 2
    assert all(name.encode().decode() == name and name.startswith("caf") for name in found.class_names)
    assert len(next(found.batches(6))) == 6


def test_a_link_to_oneself_ends(tmp_path):
    for name in ("a", "b"):
        _fill(tmp_path / name, 40)
        (tmp_path / name / "again").symlink_to(tmp_path / name)
    assert len(_opened(tmp_path, "train")) + len(_opened(tmp_path, "calibration")) < 80


def test_pictures_are_the_ones_of_torchvisions_transforms(tmp_path):
    from torchvision.transforms import v2

    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        for i, size in enumerate(((61, 90), (90, 61), (64, 64), (61, 91), (301, 57), (54, 99))):
            pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / "a" / f"{i}.png")
    how = Preprocessing(47, 54, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    images = open_images(f"imagefolder:{tmp_path}", "evaluation", 9, how)
    theirs = v2.Compose([v2.Resize(54), v2.CenterCrop(47), v2.PILToTensor()])
    for i, path in enumerate(images.images):
        expected = theirs(Image.open(path)).numpy().transpose(1, 2, 0)
        assert np.array_equal(images.pixels(i, i + 1)[0], expected)
