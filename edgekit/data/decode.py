"""A file -> a picture, 8-bit RGB, as PIL with torchvision reads it.

One thing is done better: grey pictures of 16 bits are scaled to 8, where `convert("RGB")` clips them to
white. Every way a file can be bad becomes one line that names it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

KINDS = "a JPEG, PNG, BMP, PPM, TIFF or WebP file"
_NAMED = 10
_WHITE_IS_ZERO, _PHOTOMETRIC, _BITS = 0, 262, 258  # tags of TIFF


def decode(path: Path, orientation: str = "ignored") -> Image.Image:
    """The first picture of a file, RGB; "applied" turns it as its EXIF orientation says.

    Raises: DataError when it is no picture, is cut short, is enormous, or has no agreed range of values.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a palette's transparency, and of sizes that are decoded
            with Image.open(path) as image:
                turned = ImageOps.exif_transpose(image) if orientation == "applied" else image
                return _rgb(turned, image, path)
    except UnidentifiedImageError:
        raise DataError(f"{path}: not an image: {KINDS}") from None
    except Image.DecompressionBombError as error:
        pixels, limit = (int(n) for n in re.findall(r"(\d+) pixels", str(error)))
        raise DataError(
            f"{path}: a picture of {pixels:,} pixels, which would take {3 * pixels / 1e6:,.0f} MB: "
            f"at most {limit:,} pixels, scaled down beforehand"
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: cannot be decoded ({reason}): complete, {KINDS}") from error


def _rgb(image: Image.Image, opened: Image.Image, path: Path) -> Image.Image:
    from PIL import Image

    deep = image.mode.startswith("I;16") or (image.mode == "I" and opened.format in ("PNG", "PPM"))
    if not deep:
        if image.mode in ("I", "F"):
            what = "32-bit whole numbers" if image.mode == "I" else "floating-point numbers"
            raise DataError(f"{path}: pixels are {what} of no agreed range: 8 or 16 bits a channel")
        return image.convert("RGB")
    bits, inverted = 16, False
    if opened.format == "TIFF":
        tags = opened.tag_v2  # type: ignore[attr-defined]
        bits = tags.get(_BITS, (16,))[0]
        inverted = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    largest = 2**bits - 1
    values = np.asarray(image).astype(np.uint32)
    scaled = ((values.clip(0, largest) * 255 + largest // 2) // largest).astype(np.uint8)
    return Image.fromarray(255 - scaled if inverted else scaled).convert("RGB")


def name_the_bad(first: DataError, paths: Iterable[Path]) -> DataError:
    """`first` with the other files of a set that cannot be decoded, so that they are mended in one go."""
    others = []
    for path in paths:
        if not str(first).startswith(f"{path}: "):
            try:
                decode(path)
            except DataError:
                others.append(path)
    if not others:
        return first
    more = f" and {len(others) - _NAMED:,} more" if len(others) > _NAMED else ""
    return DataError(f"{first}; nor can {', '.join(map(str, others[:_NAMED]))}{more}")


def is_turned(path: Path) -> bool:
    """Whether a file's EXIF orientation is another than upright; read from its header."""
    from PIL import ExifTags, Image

    try:
        with Image.open(path) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
            return turned and image.format != "TIFF"  # PIL itself turns those
    except Exception:  # whatever is wrong with it is said when it is decoded
        return False
