"""Images and labels for training, calibration and evaluation.

`open_images(spec, split, count, preprocessing)` is the one door: spec is "embedded" or "embedded-hard"
(generated, offline, the same bytes everywhere) or "imagefolder:PATH". What it returns is an `ImageSet`: it
preprocesses in batches, gives back single pictures, and names its content by a hash, so that a figure can say
what it stands on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit.data.preprocessing import Preprocessing
from edgekit.data.spool import Spool, spooled
from edgekit.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["ImageSet", "Preprocessing", "open_images"]

_HASH_BATCH = 64
_DRAWN_AT_ONCE = 64


@dataclass(frozen=True)
class ImageSet:
    """Pictures, their labels if they have any, and how to preprocess them.

    Args:
        name: the spec and the split.
        class_names: one name a label; empty for pictures without labels.
        images: uint8 (N, H, W, 3) in memory or in a spool, or the paths of files: what is not in memory is
            read when it is needed.
        labels: int64 (N,), or None.
        preprocessing: what `batches` applies.
        skipped: one line for each kind of thing in the folder that was left out.
    """

    name: str
    class_names: tuple[str, ...]
    images: np.ndarray | Spool | tuple[Path, ...]
    labels: np.ndarray | None
    preprocessing: Preprocessing
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def raw(self, i: int) -> Image.Image:
        """Picture i before preprocessing, RGB."""
        if isinstance(self.images, tuple):
            return self._decoded(i, i + 1)[0]
        from PIL import Image

        return Image.fromarray(self.images[i : i + 1][0])

    def first(self, count: int) -> ImageSet:
        """The first `count` pictures."""
        labels = None if self.labels is None else self.labels[:count]
        images = self.images.first(count) if isinstance(self.images, Spool) else self.images[:count]
        return replace(self, images=images, labels=labels)

    def rest(self, start: int) -> ImageSet:
        """The pictures from `start` on."""
        labels = None if self.labels is None else self.labels[start:]
        return replace(self, images=self.images[start:], labels=labels) if start else self

    def picture(self, i: int) -> Image.Image:
        """Picture i as the network sees it, resized and cropped."""
        from PIL import Image

        return Image.fromarray(self.pixels(i, i + 1)[0])

    def pixels(self, start: int, stop: int) -> np.ndarray:
        """uint8 (n, resolution, resolution, 3): pictures start .. stop, resized and cropped."""
        if isinstance(self.images, tuple):
            return self.preprocessing.pixels(self._decoded(start, stop))
        return self.preprocessing.pixels(self.images[start:stop])

    def _decoded(self, start: int, stop: int) -> list[Image.Image]:
        """Pictures start .. stop of files; the first that is bad has all bad ones of the set named."""
        from edgekit.data.decode import decode, name_the_bad

        assert isinstance(self.images, tuple)
        try:
            return [decode(path, self.preprocessing.orientation) for path in self.images[start:stop]]
        except DataError as error:
            raise name_the_bad(error, self.images) from error

    @cached_property
    def turned(self) -> int:
        """How many files say by EXIF that their picture is to be shown turned."""
        from edgekit.data.decode import is_turned

        return sum(map(is_turned, self.images)) if isinstance(self.images, tuple) else 0

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """float32 (n, 3, resolution, resolution) in order, n = `size` but for a smaller last one."""
        if size < 1:
            raise DataError(f"{self.name}: a batch of {size}: at least 1")
        for start in range(0, len(self), size):
            yield self.preprocessing.apply(self.pixels(start, min(start + size, len(self))))

    def input_batches(self, size: int) -> Iterator[list[np.ndarray]]:
        """The same batches, as a list of the model's one input."""
        for batch in self.batches(size):
            yield [batch]

    def inputs(self, i: int) -> list[np.ndarray]:
        """What the model takes for picture i: float32 (3, resolution, resolution), its one input."""
        return [self.preprocessing.apply(self.pixels(i, i + 1))[0]]

    @cached_property
    def sha256(self) -> str:
        """Hash of the pixels as the network gets them, the labels and the preprocessing."""
        digest = hashlib.sha256(json.dumps(self.preprocessing.to_dict(), sort_keys=True).encode())
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels, dtype="<i8").tobytes())
        for start in range(0, len(self), _HASH_BATCH):
            digest.update(self.pixels(start, min(start + _HASH_BATCH, len(self))).tobytes())
        return digest.hexdigest()


def open_images(spec: str, split: str, count: int, preprocessing: Preprocessing) -> ImageSet:
    """The first `count` pictures of a split.

    Args:
        spec: "embedded", "embedded-hard" or "imagefolder:PATH".
        split: "train", "calibration" or "evaluation"; no picture of one is in another.
        count: how many; an image folder may hold fewer.
        preprocessing: what `ImageSet.batches` applies. Embedded pictures are generated at its resolution.

    Raises:
        DataError: an unknown spec, a folder that cannot be used; a bad file raises when it is decoded.
    """
    if count < 1:
        raise DataError(f"{spec}: {count} pictures asked for: at least 1")
    from edgekit.data.shapes import GENERATED, MAX_RESOLUTION

    if (made := GENERATED.get(spec)) is not None:
        # Above the largest resolution that is generated the largest is enlarged like any other picture.
        side = min(preprocessing.resolution, MAX_RESOLUTION)
        made.require_range(split, count, side)
        images = spooled(
            made.generate(split, min(_DRAWN_AT_ONCE, count - start), side, start)[0]
            for start in range(0, count, _DRAWN_AT_ONCE)
        )
        classes = made.labels(split, count)
        return ImageSet(f"{spec} {split}", made.class_names, images, classes, preprocessing)
    kind, _, path = spec.partition(":")
    if kind != "imagefolder" or not path:
        raise DataError(
            f"data: '{spec}' is not a data set: {', '.join(map(repr, GENERATED))} or 'imagefolder:PATH'"
        )
    from edgekit.data.imagefolder import choose_files

    chosen = choose_files(path, split, count)
    return ImageSet(
        f"imagefolder:{path} {split}",
        chosen.class_names,
        chosen.files,
        None if chosen.labels is None else np.array(chosen.labels, np.int64),
        preprocessing,
        chosen.skipped,
    )
