"""Labels of images as indices of a model's outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgekit.errors import DataError

if TYPE_CHECKING:
    from edgekit.data import ImageSet
    from edgekit.data.arrays import ArrayImages


def labels_for(
    images: ImageSet | ArrayImages, model: str, known: tuple[str, ...] | None, outputs: int
) -> np.ndarray | None:
    """The images' labels as indices of the model's outputs; None when they cannot be compared.

    Folder names are matched with the model's class names by name. The embedded set's classes mean nothing
    to a model trained on other ones: agreement is measured instead.

    Args:
        model: its name, for messages. known: its class names, if it has any. outputs: number of classes.
    Raises: DataError when folders and outputs do not match.
    """
    if images.labels is None:
        return None
    names = images.class_names
    if names is None:
        if int(images.labels.max()) >= outputs or int(images.labels.min()) < 0:
            raise DataError(
                f"{images.name}: label {images.labels.max()}: the model has {outputs} outputs, from 0"
            )
        return images.labels
    if known is not None and set(names) <= set(known):
        return np.array([known.index(name) for name in names], np.int64)[images.labels]
    if images.name.startswith("embedded"):
        return images.labels if len(names) == outputs and known is None else None
    if known is not None:
        strange = [name for name in names if name not in known]
        raise DataError(
            f"{images.name}: folder {strange[0]!r} is no class of {model}: folders named after its "
            f"{len(known)} classes, like {known[0]!r}, or --class-names FILE"
        )
    if len(names) != outputs:
        raise DataError(
            f"{images.name}: {len(names)} class folders, but {model} has {outputs} outputs: as many "
            "folders as outputs, in the order of the outputs, or --class-names FILE to find them by name"
        )
    return images.labels
