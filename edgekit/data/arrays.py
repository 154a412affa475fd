"""Inputs that arrive as preprocessed arrays, one a model input, with the interface of an ImageSet."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

LABELS = "labels"


@dataclass(frozen=True)
class ArrayImages:
    """arrays: float32 (N, ...), one a model input, already preprocessed.

    labels: (N,) classes, (N, H, W) a class for every pixel, or None. There are no pictures behind it: a
    bundle's golden vectors start at the input tensors.
    """

    name: str
    arrays: tuple[np.ndarray, ...]
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.arrays[0])

    def first(self, count: int) -> ArrayImages:
        """The first `count` images."""
        labels = None if self.labels is None else self.labels[:count]
        return replace(self, arrays=tuple(array[:count] for array in self.arrays), labels=labels)

    def picture(self, i: int) -> Image.Image:
        """Image i of the first input stretched to its own range, RGB: what it was before is not known."""
        from PIL import Image

        values = self.arrays[0][i]
        while values.ndim > 3:
            values = values[0]
        if values.ndim == 3:
            values = np.moveaxis(values[:3] if len(values) >= 3 else values[:1], 0, -1)
        else:
            values = np.atleast_2d(values)[..., None]
        low, high = float(values.min()), float(values.max())
        scaled = np.rint(255.0 * (values - low) / max(high - low, 1e-12)).astype(np.uint8)
        return Image.fromarray(np.repeat(scaled, 3, axis=2) if scaled.shape[2] == 1 else scaled)

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """The first input, float32 (n, ...), in order."""
        for arrays in self.input_batches(size):
            yield arrays[0]

    def input_batches(self, size: int) -> Iterator[list[np.ndarray]]:
        """One float32 array (n, ...) an input, in order."""
        for start in range(0, len(self), size):
            yield [array[start : start + size] for array in self.arrays]

    def inputs(self, i: int) -> list[np.ndarray]:
        """What the model takes for image i, one array an input without the batch."""
        return [array[i] for array in self.arrays]

    @cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for array in self.arrays:
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels, dtype="<i8").tobytes())
        return digest.hexdigest()


def array_images(
    name: str,
    images: Any,
    labels: Any = None,
    class_names: Sequence[str] | None = None,
    parameters: Sequence[str] = (),
) -> ArrayImages:
    """Check and wrap what a caller of `edgekit.build` hands over: tensors or arrays.

    Args:
        images: one array, a tuple or list of one an input, or a dict by the forward's parameter names.
        parameters: those names, in order.
    Raises: DataError for unknown or missing names, no images, numbers of images that differ, values that are
        not finite, or labels of another length.
    """
    given = _by_name(name, images, parameters)
    arrays = tuple(_array(where, array) for where, array in given.items())
    counts = {where: len(array) for where, array in zip(given, arrays, strict=True)}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{where} {count}" for where, count in counts.items())
        raise DataError(f"{name}: numbers of images differ ({told}): the same number for every input")
    if labels is not None:
        labels = _numpy(labels)
        labels = labels.reshape(-1) if labels.ndim < 3 else labels
        if len(labels) != len(arrays[0]) or not np.issubdtype(labels.dtype, np.integer):
            raise DataError(
                f"{name}: {len(labels)} labels of {labels.dtype}, {len(arrays[0])} images: one integer each"
            )
        labels = labels.astype(np.int64)
    return ArrayImages(name, arrays, labels, tuple(class_names) if class_names else None)


def evaluation_images(
    evaluation: Any, inputs: int, class_names: Sequence[str] | None, parameters: Sequence[str]
) -> ArrayImages:
    """What `edgekit.build` takes as evaluation: inputs alone, (inputs, labels), or a dict with "labels".

    A tuple or list of two is (images, labels) for a model of one input. For a model of several it is
    (inputs, labels) when its first part is itself a tuple, list or dict, and one array an input otherwise.

    Args:
        inputs: how many the model takes, known from the calibration. parameters: the forward's names.
    """
    labels = None
    if isinstance(evaluation, Mapping):
        if LABELS in evaluation and LABELS not in parameters[:inputs]:
            labels = evaluation[LABELS]
            evaluation = {k: v for k, v in evaluation.items() if k != LABELS}
    elif isinstance(evaluation, tuple | list) and evaluation:
        nested = isinstance(evaluation[0], tuple | list | Mapping)
        if len(evaluation) == 2 and (nested or inputs == 1):
            evaluation, labels = evaluation
    found = array_images("evaluation", evaluation, labels, class_names, parameters)
    if len(found.arrays) != inputs:
        raise DataError(
            f"evaluation: {len(found.arrays)} inputs: {inputs} as in the calibration; with labels "
            "((a, b), labels) or a dict with 'labels'"
        )
    return found


def _by_name(name: str, images: Any, parameters: Sequence[str]) -> dict[str, Any]:
    """Arrays by what to call them in messages, in the model's order."""
    if isinstance(images, Mapping):
        known = list(parameters[: len(images)])
        if set(images) != set(known) or not images:
            raise DataError(
                f"{name}: inputs {', '.join(map(str, images)) or 'none'}: the forward's parameters in order, "
                f"{', '.join(parameters) or 'none known'}"
            )
        return {f"{name} {key}": images[key] for key in known}
    if isinstance(images, tuple | list):
        if not images:
            raise DataError(f"{name}: no inputs: one array (N, ...) an input")
        return {f"{name} {i}" if len(images) > 1 else name: array for i, array in enumerate(images)}
    return {name: images}


def _array(name: str, images: Any) -> np.ndarray:
    try:
        array = _numpy(images).astype(np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: {type(images).__name__}: a float32 array (N, ...)") from error
    if array.ndim < 1 or not array.size:
        raise DataError(f"{name}: an array of shape {array.shape}: float32 (N, C, H, W) with N at least 1")
    bad = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(1))
    if len(bad):
        raise DataError(f"{name}: image {bad[0]} holds NaN or infinity: finite, preprocessed values")
    return array


def _numpy(values: Any) -> np.ndarray:
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
