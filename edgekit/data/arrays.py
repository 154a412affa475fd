"""Images that arrive as one preprocessed array, with the interface of an ImageSet."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.errors import DataError

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class ArrayImages:
    """float32 (N, C, H, W), already preprocessed, with labels (N,) or without.

    There are no pictures behind it: a bundle's golden vectors start at the input tensor.
    """

    name: str
    array: np.ndarray
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.array)

    def first(self, count: int) -> ArrayImages:
        """The first `count` images."""
        labels = None if self.labels is None else self.labels[:count]
        return replace(self, array=self.array[:count], labels=labels)

    def picture(self, i: int) -> Image.Image:
        """Image i stretched to its own range, to look at: what it was before preprocessing is not known."""
        from PIL import Image

        pixels = np.moveaxis(self.array[i][:3], 0, -1)
        low, high = float(pixels.min()), float(pixels.max())
        scaled = np.rint(255.0 * (pixels - low) / max(high - low, 1e-12)).astype(np.uint8)
        return Image.fromarray(scaled if scaled.shape[2] == 3 else scaled[..., 0])

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """float32 (n, C, H, W) in order."""
        for start in range(0, len(self), size):
            yield self.array[start : start + size]

    def tensor(self, i: int) -> np.ndarray:
        """float32 (C, H, W): image i."""
        return self.array[i]

    @cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256(repr(self.array.shape).encode())
        digest.update(np.ascontiguousarray(self.array).tobytes())
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels, dtype="<i8").tobytes())
        return digest.hexdigest()


def array_images(
    name: str, images: Any, labels: Any = None, class_names: Sequence[str] | None = None
) -> ArrayImages:
    """Check and wrap what a caller of `edgekit.build` hands over: tensors or arrays.

    Raises: DataError for a wrong rank, no images, values that are not finite, or labels of another length.
    """
    array = np.asarray(images.detach().cpu() if hasattr(images, "detach") else images, dtype=np.float32)
    if array.ndim != 4 or not len(array):
        raise DataError(f"{name}: an array of shape {array.shape}: float32 (N, C, H, W) with N at least 1")
    bad = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(1))
    if len(bad):
        raise DataError(f"{name}: image {bad[0]} holds NaN or infinity: finite, preprocessed values")
    if labels is not None:
        labels = np.asarray(labels.detach().cpu() if hasattr(labels, "detach") else labels).reshape(-1)
        if len(labels) != len(array) or not np.issubdtype(labels.dtype, np.integer):
            raise DataError(
                f"{name}: {len(labels)} labels of {labels.dtype}, {len(array)} images: one integer each"
            )
        labels = labels.astype(np.int64)
    return ArrayImages(name, array, labels, tuple(class_names) if class_names else None)
