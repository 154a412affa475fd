"""What a training draws its batches from.

A batch is a pure function of (step, batch, size, seed): nothing is remembered between two of them, which is
what lets a training that was killed go on exactly. `open_data` makes one from the name of a set;
`TensorData` takes arrays, such as the calibration images of a build.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from edgekit.data import ImageSet, Preprocessing, open_images
from edgekit.data.arrays import array_images
from edgekit.data.shapes import GENERATED
from edgekit.errors import DataError
from edgekit.files import default_root, storage_errors

Inputs = tuple[torch.Tensor, ...]
_COLOURS = tuple(permutations(range(3)))
_GENERATED_AT_ONCE = 1000


class Data(Protocol):
    """Where batches come from."""

    @property
    def count(self) -> int | None:
        """Images before they come again, None where they never end."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the batches depend on besides the arguments below, as JSON."""

    def batches(
        self, step: int, batch: int, size: int | None, seed: int
    ) -> tuple[Inputs, torch.Tensor | None]:
        """Batch number `step` of a training.

        Args:
            batch: how many images. size: side in pixels, None for the data's own. seed: of order and
                augmentation.
        Returns: the module's inputs, each float32 (batch, ...), and labels int64 (batch, ...) or None.
        """


def random_of(seed: int, step: int) -> np.random.Generator:
    """The random numbers of one step."""
    return np.random.default_rng((seed, step))


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, 1, epoch)).permutation(count)


def drawn(step: int, batch: int, count: int, seed: int) -> np.ndarray:
    """int64 (batch,): which of `count` images step `step` takes: all once, then again in another order."""
    places = np.arange(step * batch, (step + 1) * batch)
    return np.array([_order(seed, int(place) // count, count)[place % count] for place in places])


@dataclass(frozen=True)
class TensorData:
    """Arrays in memory, already preprocessed.

    Args:
        arrays: float32 (N, ...), one an input of the module.
        labels: int64 (N,) or (N, H, W), or None: then only a teacher can be learned from.
        mirror: whether images are mirrored left to right at random.
    """

    arrays: Inputs
    labels: torch.Tensor | None = None
    mirror: bool = False

    @property
    def count(self) -> int:
        return len(self.arrays[0])

    @cached_property
    def identity(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for array in (*self.arrays, *([] if self.labels is None else [self.labels])):
            digest.update(repr(tuple(array.shape)).encode() + array.contiguous().numpy().tobytes())
        return {"tensors": digest.hexdigest(), "mirror": self.mirror}

    def batches(
        self, step: int, batch: int, size: int | None, seed: int
    ) -> tuple[Inputs, torch.Tensor | None]:
        chosen = torch.from_numpy(drawn(step, batch, self.count, seed))
        inputs = [array[chosen] for array in self.arrays]
        labels = None if self.labels is None else self.labels[chosen]
        if self.mirror:
            turned = torch.from_numpy(random_of(seed, step).random(batch) < 0.5)
            for array in inputs:
                array[turned] = array[turned].flip(-1)
            if labels is not None and labels.ndim > 1:
                labels[turned] = labels[turned].flip(-1)
        return tuple(resized(array, size) for array in inputs), labels


def tensor_data(inputs: Any, labels: Any = None, mirror: bool = False) -> TensorData:
    """Check and wrap arrays or tensors: one, or one an input.

    Raises: DataError, as `edgekit.data.arrays.array_images`.
    """
    found = array_images("training", inputs, labels)
    arrays = tuple(torch.from_numpy(array) for array in found.arrays)
    return TensorData(arrays, None if found.labels is None else torch.from_numpy(found.labels), mirror)


def resized(images: torch.Tensor, size: int | None) -> torch.Tensor:
    """Pictures (N, C, H, W) with `size` pixels on a side, antialiased; anything else as it is."""
    if size is None or images.ndim != 4 or images.shape[2:] == (size, size):
        return images
    from torch.nn import functional as F

    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)


@dataclass(frozen=True)
class PictureData:
    """Pictures on disk or in memory: randomly cropped, mirrored, resized, normalised.

    Args:
        images: the training split; its preprocessing says resolution, mean and std.
        smallest: the least share of a picture's area that a crop has.
    """

    images: ImageSet
    smallest: float = 0.35

    @property
    def count(self) -> int:
        return len(self.images)

    @cached_property
    def identity(self) -> dict[str, Any]:
        return {"pictures": self.images.sha256, "name": self.images.name, "smallest": self.smallest}

    def batches(
        self, step: int, batch: int, size: int | None, seed: int
    ) -> tuple[Inputs, torch.Tensor | None]:
        side = size or self.images.preprocessing.resolution
        chosen, random = drawn(step, batch, self.count, seed), random_of(seed, step)
        pixels = np.stack([self._cropped(int(i), side, random) for i in chosen])
        labels = None if self.images.labels is None else torch.from_numpy(self.images.labels[chosen])
        preprocessing = self.images.preprocessing
        return (normalised(torch.from_numpy(pixels), preprocessing.mean, preprocessing.std),), labels

    def _cropped(self, i: int, side: int, random: np.random.Generator) -> np.ndarray:
        from PIL import Image

        picture = self.images.raw(i)
        width, height = picture.size
        area = width * height * random.uniform(self.smallest, 1.0)
        ratio = float(np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3))))
        w, h = min(width, round((area * ratio) ** 0.5)), min(height, round((area / ratio) ** 0.5))
        left, top = random.uniform(0, width - w), random.uniform(0, height - h)
        bicubic = self.images.preprocessing.interpolation == "bicubic"
        how = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
        made = picture.resize((side, side), how, box=(left, top, left + w, top + h))
        pixels = np.asarray(made)
        return pixels[:, ::-1] if random.random() < 0.5 else pixels


class Grade(NamedTuple):
    """How the pictures of one size are generated: how many, how hard, and zoomed how far."""

    pool: int
    hard: float = 1.0
    zoom: float = 1.0


@dataclass(frozen=True)
class EmbeddedData:
    """The generator's training pictures, which never end; each turned, mirrored, with its colours permuted.

    None of these changes a class. A pool is generated once for each size and kept on disk.

    Args:
        spec: the name of the set.
        resolution: side in pixels where a batch asks for none. mean, std: of the network.
        grades: how pictures of a size are generated; sizes that are not listed take `pool` pictures as they
            are evaluated.
        first: index of the first picture: another number, other pictures.
        cache: where pools are kept. workers: processes that generate them; more than one needs a program
            that may be imported again (`if __name__ == "__main__"`).
    """

    spec: str
    resolution: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    grades: Mapping[int, Grade] = field(default_factory=dict)
    pool: int = 6000
    first: int = 0
    cache: Path | None = None
    workers: int = 1

    @property
    def count(self) -> None:
        return None

    @cached_property
    def identity(self) -> dict[str, Any]:
        return {
            "spec": self.spec,
            "version": _version(self.spec),
            "resolution": self.resolution,
            "mean": list(self.mean),
            "std": list(self.std),
            "grades": {str(size): list(grade) for size, grade in sorted(self.grades.items())},
            "pool": [self.first, self.pool],
        }

    def batches(
        self, step: int, batch: int, size: int | None, seed: int
    ) -> tuple[Inputs, torch.Tensor | None]:
        images, labels = self._pool(size or self.resolution)
        chosen, random = drawn(step, batch, len(images), seed), random_of(seed, step)
        pixels = torch.from_numpy(images[chosen])
        quarters = []
        for part in pixels.chunk(4):  # a quarter of a batch is changed as one
            part = torch.rot90(part, int(random.integers(4)), (1, 2))
            if random.integers(2):
                part = part.flip(2)
            quarters.append(part[..., list(_COLOURS[random.integers(len(_COLOURS))])])
        inputs = normalised(torch.cat(quarters), self.mean, self.std)
        return (inputs,), torch.from_numpy(labels[chosen])

    def _pool(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (N, size, size, 3), mapped from disk, and int64 (N,)."""
        grade = self.grades.get(size, Grade(self.pool))
        cache = self.cache or default_root() / "pictures"
        return _pooled(self.spec, size, self.first, grade, cache, self.workers)


def normalised(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W), channels last in memory."""
    scale = torch.tensor([1.0 / (255.0 * s) for s in std], device=pixels.device)
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)], device=pixels.device)
    return (pixels * scale - shift).permute(0, 3, 1, 2)


def open_data(
    spec: str, preprocessing: Preprocessing, *, most: int = 100_000, pool: int = 6000, seed: int = 0
) -> Data:
    """Training pictures of a set.

    Args:
        spec: "embedded", "embedded-hard" or "imagefolder:PATH", as `edgekit.data.open_images` takes them.
        preprocessing: resolution, mean and std of the network; the random crop stands for its resize.
        most: how many pictures of a folder are used at most. pool: how many are generated.
        seed: another one draws other generated pictures.

    Raises:
        DataError: as `open_images`; a folder whose pictures have no classes.
    """
    if spec in GENERATED:
        side = preprocessing.resolution
        first = seed * pool
        return EmbeddedData(spec, side, preprocessing.mean, preprocessing.std, pool=pool, first=first)
    return PictureData(open_images(spec, "train", most, preprocessing))


@lru_cache(maxsize=4)
def _version(spec: str) -> str:
    """A short hash of the first pictures: a generator that changed makes other pools."""
    return hashlib.sha256(GENERATED[spec].generate("train", 48, 48)[0].tobytes()).hexdigest()[:8]


@lru_cache(maxsize=8)
def _pooled(
    spec: str, size: int, first: int, grade: Grade, cache: Path, workers: int
) -> tuple[np.ndarray, np.ndarray]:
    if spec not in GENERATED:
        raise DataError(f"{spec}: is not generated: {', '.join(GENERATED)}")
    name = f"{spec}-{_version(spec)}-{size}-{first}-{grade.pool}-{grade.hard}-{grade.zoom}"
    path, labels = cache / f"{name}.npy", cache / f"{name}.labels.npy"
    if not (path.exists() and labels.exists()):
        with storage_errors(cache):
            cache.mkdir(parents=True, exist_ok=True)
            _generate(GENERATED[spec].generate, size, first, grade, path, labels, workers)
    return np.load(path, mmap_mode="r"), np.load(labels)


def _generate(
    generate: Any, size: int, first: int, grade: Grade, path: Path, labels: Path, workers: int
) -> None:
    """Write a pool whole or not at all, a thousand pictures at a time."""
    starts = range(first, first + grade.pool, _GENERATED_AT_ONCE)
    counts = [min(_GENERATED_AT_ONCE, first + grade.pool - start) for start in starts]
    jobs = [
        ("train", n, size, start, grade.hard, grade.zoom) for n, start in zip(counts, starts, strict=True)
    ]
    partial = path.with_suffix(f".{os.getpid()}.partial")
    shape = (grade.pool, size, size, 3)
    images = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
    classes = np.empty(grade.pool, np.int64)
    for start, made in zip(starts, _each(generate, jobs, workers), strict=True):
        place = slice(start - first, start - first + len(made[0]))
        images[place], classes[place] = made
    images.flush()
    del images
    other = labels.with_suffix(f".{os.getpid()}.partial")
    with open(other, "wb") as file:
        np.save(file, classes)
    other.replace(labels)
    partial.replace(path)


def _each(generate: Any, jobs: Sequence[tuple], workers: int) -> Any:
    if workers < 2 or len(jobs) < 2:
        return (generate(*job) for job in jobs)
    return _in_processes(generate, jobs, workers)


def _in_processes(generate: Any, jobs: Sequence[tuple], workers: int) -> Any:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(generate, *zip(*jobs, strict=True))
