"""A build's calibration images as `quantize` reads them: pictures are decoded when their rows are asked
for, so that a thousand of them never lie in memory as floats.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from edgekit.data import ImageSet
from edgekit.data.arrays import ArrayImages


class PictureRows:
    """The rows of the one input of a model that takes pictures."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> torch.Tensor:
        """float32 (n, 3, resolution, resolution) for a slice or a tensor of indices."""
        chosen = torch.arange(len(self.images))[index].tolist()
        if not chosen:
            return torch.from_numpy(self.images.preprocessing.apply(self.images.pixels(0, 1)))[:0]
        if chosen == list(range(chosen[0], chosen[-1] + 1)):
            pixels = self.images.pixels(chosen[0], chosen[-1] + 1)
        else:
            pixels = np.concatenate([self.images.pixels(i, i + 1) for i in chosen])
        return torch.from_numpy(self.images.preprocessing.apply(pixels))


def calibration_rows(images: ImageSet | ArrayImages) -> list[Any]:
    """A source of rows for each input: tensors where the caller gave arrays."""
    if isinstance(images, ImageSet):
        return [PictureRows(images)]
    return [torch.from_numpy(array) for array in images.arrays]
