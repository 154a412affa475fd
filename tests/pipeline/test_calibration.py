"""Calibration rows of pictures: those of the batches, whatever is asked for."""

import numpy as np
import torch

from edgekit.data import open_images
from edgekit.data.preprocessing import Preprocessing
from edgekit.pipeline.calibration import calibration_rows


def test_rows_are_those_of_the_batches() -> None:
    images = open_images(
        "embedded", "calibration", 7, Preprocessing(32, 32, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    )
    (rows,) = calibration_rows(images)
    whole = torch.from_numpy(np.concatenate(list(images.batches(3))))
    assert len(rows) == 7 and torch.equal(rows[:], whole)
    for index in (slice(2, 5), torch.tensor([6, 0, 3]), slice(0, 0)):
        assert torch.equal(rows[index], whole[index])
