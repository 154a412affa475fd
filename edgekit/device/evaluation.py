"""A slice of the evaluation set a bundle was judged on, as the tensors its model takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.bundle.names import inside, one_line
from edgekit.data import ImageSet, Preprocessing, open_images
from edgekit.device.drift import Evaluation, scores_of


def slice_evaluation(
    manifest: Mapping[str, Any], count: int, directory: Path | None = None
) -> Evaluation | None:
    """The first `count` evaluation images through the bundle's own preprocessing.

    Args:
        manifest: of the bundle; its recipe names the images.
        count: images.
        directory: of the bundle; its labels.txt says which output each class is.
    Returns: None when the manifest does not say how pictures become the model's input. Labels are
        given when the model is trained and its labels are the set's classes.
    """
    settings = manifest["preprocessing"]["settings"]
    source = ((manifest.get("recipe") or {}).get("data") or {}).get("source")
    if settings is None or source is None or len(manifest["inputs"]) != 1:
        return None
    steps = manifest["preprocessing"]["steps"]
    layout = next((step["layout"] for step in steps if step["step"] == "layout"), "NCHW")
    images = open_images(source, "evaluation", count, Preprocessing(**settings))
    arrays = np.concatenate(list(images.batches(16)))
    if layout == "NHWC":
        arrays = arrays.transpose(0, 2, 3, 1)
    tensor = manifest["inputs"][0]
    if tensor["scale"] is not None:
        limits = np.iinfo(tensor["dtype"])
        steps = np.rint(arrays / np.float32(tensor["scale"])) + tensor["zero_point"]
        arrays = np.clip(steps, limits.min, limits.max)
    # every image is one call of the model, whose batch is 1
    inputs = np.ascontiguousarray(arrays[:, None].astype(tensor["dtype"]))
    untrained = (manifest.get("weights") or {}).get("untrained", True)
    scores = scores_of(manifest)
    labels = None if untrained or scores is None else _labels(images, manifest, directory)
    return Evaluation([inputs], f"{images.name}, first {len(images)}", labels, scores=scores)


def _labels(images: ImageSet, manifest: Mapping[str, Any], directory: Path | None) -> np.ndarray | None:
    """The images' labels as indices of the model's outputs, by name where there are names to go by."""
    about = manifest.get("labels")
    if about is None or images.labels is None:
        return None
    if directory is not None:
        names = inside(directory, about["file"]).read_text(encoding="utf-8").split("\n")[:-1]
        own = [one_line(name) for name in images.class_names]
        if not set(own) <= set(names):
            return None
        return np.array([names.index(name) for name in own], np.int64)[images.labels]
    return images.labels if about["count"] == len(images.class_names) else None
