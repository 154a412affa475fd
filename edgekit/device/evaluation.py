"""A slice of the evaluation set a bundle was judged on, as the tensors its model takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekit.data import Preprocessing, open_images
from edgekit.device.drift import Evaluation


def slice_evaluation(manifest: Mapping[str, Any], count: int) -> Evaluation | None:
    """The first `count` evaluation images through the bundle's own preprocessing.

    Args:
        manifest: of the bundle; its recipe names the images.
        count: images.
    Returns: None when the manifest does not say how pictures become the model's input. Labels are
        given when the model is trained and its labels are the set's classes.
    """
    settings = manifest["preprocessing"]["settings"]
    source = ((manifest.get("recipe") or {}).get("data") or {}).get("source")
    if settings is None or source is None or len(manifest["inputs"]) != 1:
        return None
    layout = next((s["layout"] for s in manifest["preprocessing"]["steps"] if s["step"] == "layout"), "NCHW")
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
    known = (manifest.get("labels") or {}).get("count") == len(images.class_names)
    labels = images.labels if known and not untrained else None
    return Evaluation([inputs], f"{images.name}, first {len(images)}", labels)
