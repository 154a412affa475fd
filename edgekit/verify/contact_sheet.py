"""The images on which float and int8 disagree, as one picture: images and flips -> PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgekit.errors import DataError
from edgekit.tasks import Change, Flip

_TILE = 120
_LINE = 14
_MARGIN = 6
_INK, _PAPER = (32, 33, 36), (255, 255, 255)
_TONES = {"plain": _INK, "wrong": (190, 40, 40), "right": (30, 120, 60)}
_CHANGED = (230, 30, 90)


def contact_sheet(
    images: Sequence[np.ndarray] | np.ndarray | Mapping[int, np.ndarray],
    flips: Sequence[Flip | Change],
    class_names: Sequence[str] | None = None,
    *,
    columns: int = 6,
    limit: int = 24,
) -> bytes:
    """A grid of flipped images, each captioned with its label and what both models said.

    Args:
        images: looked up by `flip.index`; uint8 (H, W) or (H, W, C), or float (C, H, W), stretched to its
            own range.
        limit: images shown; those the reference was surest about come first.
    Returns: a PNG; one line of text when nothing flipped.
    """
    from PIL import Image, ImageDraw, ImageFont

    font: Any = ImageFont.load_default(11)
    shown = sorted(flips, key=lambda flip: (-flip.rank, flip.index))[:limit]
    if not shown:
        sheet = Image.new("RGB", (320, 2 * _LINE), _PAPER)
        ImageDraw.Draw(sheet).text((_MARGIN, _MARGIN), "No image changed its answer.", _INK, font)
        return _png(sheet)
    columns = max(1, min(columns, len(shown)))
    rows = -(-len(shown) // columns)
    cell = (_TILE + _MARGIN, _TILE + 3 * _LINE + 2 * _MARGIN)
    sheet = Image.new("RGB", (columns * cell[0] + _MARGIN, rows * cell[1] + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, flip in enumerate(shown):
        left, top = _MARGIN + (i % columns) * cell[0], _MARGIN + (i // columns) * cell[1]
        tile = Image.fromarray(_pixels(images[flip.index], flip.index)).resize((_TILE, _TILE))
        sheet.paste(tile, (left, top))
        for row, (text, tone) in enumerate(flip.captions(class_names)):
            fitted = _fit(draw, text, font)
            draw.text((left, top + _TILE + 2 + row * _LINE), fitted, _TONES[tone], font)
    return _png(sheet)


def marked(picture: Any, changed: np.ndarray) -> Any:
    """A picture with the places that changed drawn over it.

    Args:
        picture: a PIL image. changed: bool (H, W), of whatever size.
    """
    from PIL import Image

    mask = Image.fromarray((changed * 160).astype(np.uint8)).resize(picture.size, Image.Resampling.NEAREST)
    return Image.composite(Image.new("RGB", picture.size, _CHANGED), picture.convert("RGB"), mask)


def _fit(draw: Any, text: str, font: Any) -> str:
    """Shorten the middle of a caption until it fits under its tile; the probability at the end stays."""
    if draw.textlength(text, font) <= _TILE:
        return text
    head, _, tail = text.rpartition(" ")
    while len(head) > 1 and draw.textlength(f"{head}.. {tail}", font) > _TILE:
        head = head[:-1]
    return f"{head}.. {tail}"


def _pixels(image: np.ndarray, index: int) -> np.ndarray:
    """uint8 (H, W, 3): one channel becomes grey, of more than three the first three are shown."""
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or 0 in image.shape:
        raise DataError(f"contact sheet: image {index} has shape {image.shape}: (H, W, C) or (C, H, W)")
    # Pictures end with their channels, tensors begin with them, unless the sizes say the contrary.
    first, last = image.shape[0] in (1, 3), image.shape[2] in (1, 3)
    if (first and not last) or (first == last and image.dtype != np.uint8):
        image = image.transpose(1, 2, 0)
    image = image[..., :3] if image.shape[2] > 2 else image[..., :1]
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        image = ((image - low) * (255.0 / max(high - low, 1e-9))).round().astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


def _png(sheet: Any) -> bytes:
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    return stream.getvalue()
