"""Files of every kind against PIL with torchvision: the pixels a network gets, or one line that says why."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from edgekit.data import Preprocessing, open_images
from edgekit.data.decode import decode
from edgekit.errors import DataError

SMALL = Preprocessing(32, 32, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (40, 52, 3), dtype=np.uint8)
GREY16 = (np.linspace(0, 65535, 40 * 52).reshape(40, 52)).astype(np.uint16)
EIGHT = np.rint(GREY16 / 257.0).astype(np.uint8)


def _see_through(mode):
    image = Image.fromarray(COLOUR)
    image.putalpha(Image.fromarray(COLOUR[..., 0]))
    return image.convert(mode)


def _palette():
    image = Image.fromarray(COLOUR).quantize(16)
    image.info["transparency"] = bytes(range(0, 256, 16))
    return image


KINDS = {
    "rgb.png": lambda: Image.fromarray(COLOUR),
    "rgb.jpg": lambda: Image.fromarray(COLOUR),
    "rgb.jpeg": lambda: Image.fromarray(COLOUR),
    "rgb.bmp": lambda: Image.fromarray(COLOUR),
    "rgb.ppm": lambda: Image.fromarray(COLOUR),
    "rgb.tif": lambda: Image.fromarray(COLOUR),
    "rgb.TIFF": lambda: Image.fromarray(COLOUR),
    "rgb.webp": lambda: Image.fromarray(COLOUR),
    "grey.pgm": lambda: Image.fromarray(COLOUR[..., 0]),
    "grey.png": lambda: Image.fromarray(COLOUR[..., 0]),
    "one_bit.png": lambda: Image.fromarray(COLOUR[..., 0]).convert("1"),
    "one_bit.tif": lambda: Image.fromarray(COLOUR[..., 0]).convert("1"),
    "la.png": lambda: _see_through("LA"),
    "rgba.png": lambda: _see_through("RGBA"),
    "rgba.tif": lambda: _see_through("RGBA"),
    "rgba.webp": lambda: _see_through("RGBA"),
    "palette.png": lambda: Image.fromarray(COLOUR).quantize(16),
    "palette_see_through.png": _palette,
    "cmyk.jpg": lambda: Image.fromarray(COLOUR).convert("CMYK"),
    "cmyk.tif": lambda: Image.fromarray(COLOUR).convert("CMYK"),
    "ycbcr.jpg": lambda: Image.fromarray(COLOUR).convert("YCbCr"),
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.filterwarnings("ignore:Palette images with Transparency")  # torchvision's reader lets it through
def test_pictures_are_read_as_imagefolder_reads_them(tmp_path, name):
    (tmp_path / "train" / "a").mkdir(parents=True)
    KINDS[name]().save(tmp_path / "train" / "a" / name)
    theirs = ImageFolder(tmp_path / "train")
    assert len(theirs) == 1
    assert np.array_equal(np.asarray(decode(tmp_path / "train" / "a" / name)), np.asarray(theirs[0][0]))


def _png16(values):
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def _saved(image, kind, **settings):
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()


SIXTEEN = {
    "png": lambda: _png16(GREY16),
    "tif": lambda: _saved(Image.fromarray(GREY16), "TIFF"),
    "big_endian.tif": lambda: _saved(
        Image.frombytes("I;16B", (52, 40), GREY16.astype(">u2").tobytes()), "TIFF"
    ),
    "pgm": lambda: b"P5 52 40 65535\n" + GREY16.astype(">u2").tobytes(),
}


@pytest.mark.parametrize("kind", SIXTEEN)
def test_grey_of_sixteen_bits_is_scaled_and_not_clipped(tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    path.write_bytes(SIXTEEN[kind]())
    ours = np.asarray(decode(path))
    assert ours.shape == (40, 52, 3)
    assert (ours == ours[..., :1]).all()
    assert np.abs(ours[..., 0].astype(int) - EIGHT).max() <= 1
    assert ours.min() == 0
    assert ours.max() == 255


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_values_of_no_agreed_range_are_refused(tmp_path, dtype):
    Image.fromarray(GREY16.astype(dtype)).save(tmp_path / "x.tif")
    with pytest.raises(DataError, match=r"x\.tif: pixels are .* 8 or 16 bits a channel"):
        decode(tmp_path / "x.tif")


def test_an_enormous_picture_is_said_to_be_one(tmp_path):
    path = tmp_path / "x.png"
    Image.new("1", (14000, 14000)).save(path)
    with pytest.raises(
        DataError, match=r"x\.png: a picture of 196,000,000 pixels.*at most 178,956,970"
    ) as caught:
        decode(path)
    assert "complete" not in str(caught.value)


def test_a_large_picture_is_decoded_without_a_warning(tmp_path, monkeypatch):
    Image.fromarray(COLOUR).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)
    assert decode(tmp_path / "x.png").size == (52, 40)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        Image.fromarray(COLOUR).save(tmp_path / split / "a" / "x.png", exif=exif)
    spec = f"imagefolder:{tmp_path}"
    stored = open_images(spec, "evaluation", 1, SMALL)
    upright = open_images(
        spec, "evaluation", 1, Preprocessing(32, 32, "bilinear", SMALL.mean, SMALL.std, "applied")
    )
    theirs = np.asarray(ImageFolder(tmp_path / "val")[0][0])
    assert np.array_equal(np.asarray(stored.raw(0)), theirs)
    # what the eight values mean, from the standard: rows and columns of the picture that is shown
    shown = {
        1: COLOUR,
        2: COLOUR[:, ::-1],
        3: COLOUR[::-1, ::-1],
        4: COLOUR[::-1],
        5: COLOUR.transpose(1, 0, 2),
        6: COLOUR.transpose(1, 0, 2)[:, ::-1],
        7: COLOUR.transpose(1, 0, 2)[::-1, ::-1],
        8: COLOUR.transpose(1, 0, 2)[::-1],
    }[orientation]
    assert np.array_equal(np.asarray(upright.raw(0)), shown)
    assert stored.turned == upright.turned == (orientation != 1)
    assert stored.sha256 != upright.sha256


def test_all_bad_files_of_a_set_are_named_at_once(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        for i in range(30):
            Image.fromarray(COLOUR).save(tmp_path / split / "a" / f"{i:02}.png")
    bad = [tmp_path / "val" / "a" / f"{i:02}.png" for i in (3, 11, 25)]
    bad[0].write_bytes(b"")
    bad[1].write_bytes(bad[1].read_bytes()[:300])
    bad[2].write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError) as caught:
        list(open_images(f"imagefolder:{tmp_path}", "evaluation", 30, SMALL).batches(8))
    assert "\n" not in str(caught.value)
    assert all(str(path) in str(caught.value) for path in bad)
