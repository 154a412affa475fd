"""Preprocessing: pictures -> the float tensor a network takes. One description, used by every stage.

Training, calibration, verification and the shipped bundle all read the same frozen `Preprocessing`, so a
picture cannot be resized one way when ranges are calibrated and another way when accuracy is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

INTERPOLATIONS = ("bilinear", "bicubic")
ORIENTATIONS = ("ignored", "applied")


@dataclass(frozen=True)
class Preprocessing:
    """Shorter side to `resize`, centre crop to `resolution`, /255, minus `mean`, over `std`.

    Args:
        resolution: side of the square input, pixels.
        resize: what the shorter side is resized to before the crop, pixels; at least `resolution`.
        interpolation: "bilinear" or "bicubic", antialiased.
        mean: per channel R, G, B, of values in 0..1.
        std: per channel, same scale.
        orientation: whether a photo is turned as its EXIF orientation says. "ignored" is what torchvision
            does, and what models trained with it have seen; photos of phones lie on their side then.

    Raises:
        DataError: a value that cannot be right.
    """

    resolution: int
    resize: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    orientation: str = "ignored"

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(float(m) for m in self.mean))
        object.__setattr__(self, "std", tuple(float(s) for s in self.std))
        if self.interpolation not in INTERPOLATIONS:
            raise DataError(
                f"preprocessing: there is no interpolation '{self.interpolation}': "
                f"use {' or '.join(INTERPOLATIONS)}"
            )
        if self.orientation not in ORIENTATIONS:
            raise DataError(
                f"preprocessing: orientation '{self.orientation}': {' or '.join(ORIENTATIONS)}, for EXIF"
            )
        if self.resolution < 1 or self.resize < self.resolution:
            raise DataError(
                f"preprocessing: resize {self.resize} with resolution {self.resolution}: "
                "both at least 1, and resize no smaller than resolution"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise DataError(
                f"preprocessing: mean {self.mean} and std {self.std}: three numbers each, std above 0"
            )

    def pixels(self, images: Sequence[Image.Image] | np.ndarray) -> np.ndarray:
        """uint8 (N, resolution, resolution, 3): resized and cropped.

        An array whose pictures have side `resolution` skips the resize, so that its bytes stay exact.
        """
        if isinstance(images, np.ndarray):
            if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
                raise DataError(
                    f"preprocessing: an array of {images.dtype} {images.shape}: uint8 (N, H, W, 3)"
                )
            if images.shape[1:3] == (self.resolution, self.resolution):
                return images
            from PIL import Image

            images = [Image.fromarray(image) for image in images]
        out = np.empty((len(images), self.resolution, self.resolution, 3), np.uint8)
        for row, image in zip(out, images, strict=True):
            row[...] = self._fit(image)
        return out

    def apply(self, images: Sequence[Image.Image] | np.ndarray) -> np.ndarray:
        """float32 (N, 3, resolution, resolution) from PIL images or a uint8 (N, H, W, 3) array."""
        pixels = self.pixels(images).astype(np.float32)
        pixels /= np.float32(255)
        pixels -= np.array(self.mean, np.float32)
        pixels /= np.array(self.std, np.float32)
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))

    def _fit(self, image: Image.Image) -> np.ndarray:
        from PIL import Image

        image = image.convert("RGB")
        width, height = image.size
        short = min(width, height)
        if short != self.resize:
            # The longer side is cut to whole pixels and the crop's corner rounded, as torchvision does.
            size = (int(width * self.resize / short), int(height * self.resize / short))
            how = Image.Resampling.BILINEAR if self.interpolation == "bilinear" else Image.Resampling.BICUBIC
            image = image.resize(size, how)
        left = round((image.width - self.resolution) / 2)
        top = round((image.height - self.resolution) / 2)
        return np.asarray(image.crop((left, top, left + self.resolution, top + self.resolution)))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "resolution": self.resolution,
            "resize": self.resize,
            "interpolation": self.interpolation,
            "mean": list(self.mean),
            "std": list(self.std),
            "orientation": self.orientation,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`."""
        names = ("resolution", "resize", "interpolation", "mean", "std")
        missing = [name for name in names if name not in values]
        unknown = [name for name in values if name not in (*names, "orientation")]
        if missing or unknown:
            raise DataError(
                f"preprocessing: settings missing {missing}, unknown {unknown}: exactly {', '.join(names)}, "
                "and orientation"
            )
        return cls(
            int(values["resolution"]),
            int(values["resize"]),
            values["interpolation"],
            tuple(values["mean"]),
            tuple(values["std"]),
            values.get("orientation", "ignored"),
        )
