"""The embedded image sets: generated pictures of figures, the same bytes on every machine.

`embedded` has 24 kinds of figure. `embedded-hard` has 40, most with a near relative among the others, and
smaller, fainter, more cluttered and more occluded, with smaller figures of other kinds strewn about: small
trained networks are right in six to eight pictures of ten, so that what compression costs can be seen.

In: a split, a range of indices and a resolution. Out: uint8 images (N, H, W, 3) and int64 labels (N,).

Everything about picture number i of a split follows from draws d(split, i, k), a 64-bit counter hash, so any
range can be generated on its own, in any order, in any process. A picture is described in coordinates
0..1 and only then sampled: the same index at another resolution is the same picture. painting.py says how the
bytes come to be equal everywhere.

A figure is a signed distance (see figures.py); coverage is the distance in pixels, clipped, which is what
makes edges smooth. The class is the figure alone: place, size, angle, proportions, colours, background,
clutter, occluders and noise are drawn independently of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from edgekit.data.close_figures import CLOSE_FIGURES
from edgekit.data.figures import FIGURES, Field
from edgekit.data.painting import (
    LATTICE,
    MAX_RESOLUTION,
    Canvas,
    against,
    background,
    clutter,
    direction,
    hashed,
    noise,
    occlude,
    uniform,
)
from edgekit.errors import DataError

SPLITS = ("train", "calibration", "evaluation")
SPLIT_COUNTS = {"calibration": 1 << 20, "evaluation": 1 << 20, "train": 1 << 40}

_SPLIT_KEYS = {
    "train": 0x6A09E667F3BCC908,
    "calibration": 0xBB67AE8584CAA73B,
    "evaluation": 0x3C6EF372FE94F82B,
}
_ORDER_KEY = 0xA54FF53A5F1D36F1
_CHUNK = 256


@dataclass(frozen=True)
class ShapeSet:
    """One generated set.

    figures: one a class. key: makes its draws its own. draws: how many a picture may use; a constant, so that
    adding one elsewhere moves nothing. size: (smallest half extent, spread) in parts of the side.
    contrast: (least, spread) of the figure against the background, in grey levels. pieces: the most clutter.
    strangers: the most small figures of other classes. occluders: for each thing in front of the figure
    how likely it is. amplitude: (least, spread) of the noise's standard deviation.
    """

    name: str
    figures: tuple[Callable[[Field, Field, float, float], Field], ...]
    key: int
    draws: int
    size: tuple[float, float]
    contrast: tuple[float, float]
    pieces: int
    strangers: int
    occluders: tuple[float, ...]
    amplitude: tuple[float, float]

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(figure.__name__ for figure in self.figures)

    def labels(self, split: str, count: int, start: int = 0) -> np.ndarray:
        """int64 (count,): every block of as many pictures as classes holds each once, in a drawn order."""
        classes = len(self.figures)
        first, last = start // classes, (start + count - 1) // classes
        blocks = np.arange(first, last + 1, dtype=np.uint64)
        key = _SPLIT_KEYS[split] ^ _ORDER_KEY ^ self.key
        order = np.argsort(hashed(key, blocks, classes), axis=1, kind="stable")
        return order.reshape(-1)[start - first * classes :][:count].astype(np.int64)

    def require_range(self, split: str, count: int, resolution: int, start: int = 0) -> None:
        """Refuse what cannot be generated. Raises: DataError, as `generate`."""
        if split not in _SPLIT_KEYS:
            raise DataError(f"{self.name}: there is no split '{split}': use one of {', '.join(SPLITS)}")
        if not 16 <= resolution <= MAX_RESOLUTION:
            raise DataError(
                f"{self.name}: resolution {resolution} is out of range: 16 to {MAX_RESOLUTION} pixels"
            )
        if count < 1 or start < 0 or start + count > SPLIT_COUNTS[split]:
            raise DataError(
                f"{self.name}: pictures {start} to {start + count} of '{split}' do not exist: "
                f"at least one, from 0 to {SPLIT_COUNTS[split]}"
            )

    def generate(
        self, split: str, count: int, resolution: int, start: int = 0, hard: float = 1.0, zoom: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pictures start .. start + count of a split.

        Args:
            split: "train", "calibration" or "evaluation"; no picture of one is in another.
            count: how many, at least 1.
            resolution: side in pixels, 16 to 224.
            start: index of the first.
            hard: 0..1, how much noise, clutter, occlusion and loss of contrast; 1 is the set itself, less
                is an easier version of the same pictures for early training.
            zoom: enlarges the figures, up to 1.7, for training at low resolution.

        Returns:
            uint8 images (count, resolution, resolution, 3), RGB, and int64 labels (count,).

        Raises:
            DataError: an unknown split, an empty range or a resolution out of range.
        """
        self.require_range(split, count, resolution, start)
        classes = self.labels(split, count, start)
        images = np.empty((count, resolution, resolution, 3), np.uint8)
        for begin in range(0, count, _CHUNK):
            end = min(begin + _CHUNK, count)
            index = np.arange(start + begin, start + end, dtype=np.uint64)
            for offset, bits in enumerate(hashed(_SPLIT_KEYS[split] ^ self.key, index, self.draws)):
                at = begin + offset
                images[at] = self._picture(int(classes[at]), bits, resolution, hard, zoom)
        return images, classes

    def _picture(self, label: int, bits: np.ndarray, resolution: int, hard: float, zoom: float) -> np.ndarray:
        """One picture, uint8 (resolution, resolution, 3), from its label and its row of draws."""
        canvas = Canvas(resolution)
        numbers = uniform(bits)
        texture = LATTICE * LATTICE
        lattice = numbers[:texture].astype(np.float32).reshape(LATTICE, LATTICE)
        draw = iter(numbers[texture:].tolist())

        middle = background(canvas, draw, lattice, hard)
        clutter(canvas, draw, middle, hard, self.pieces)

        spread = next(draw)
        size = (self.size[0] + self.size[1] * spread) * zoom
        room = 1.0 - 1.7 * size  # a figure may leave the picture by a little
        x, y = 0.5 + room * (next(draw) - 0.5), 0.5 + room * (next(draw) - 0.5)
        self._strangers(canvas, draw, middle, label, size, hard)
        self._figure(canvas, draw, middle, label, x, y, size, 40.0 * (1.0 - hard))
        occlude(canvas, draw, middle, x, y, size, hard, self.occluders)
        return noise(canvas, draw, hard, self.amplitude)

    def _figure(
        self, canvas: Canvas, draw: Iterator[float], middle, label, x, y, size, easier, shown=True
    ) -> None:
        c, s = direction(next(draw), next(draw))
        stretch = 0.85 + 0.3 * next(draw)
        mirror = 1.0 if next(draw) < 0.5 else -1.0
        p, q = next(draw), next(draw)
        window = canvas.window(x, y, size * 1.65)
        nearness = next(draw)
        least, more = self.contrast
        colour = against(middle, least + more * nearness * nearness + easier, draw)
        shade = 40.0 * (next(draw) - 0.5)
        if window is None or not shown:
            return
        u, v = canvas.local(window, x, y, c, s, size * stretch, mirror * size / stretch)
        shading = u * shade
        distance = self.figures[label](u, v, p, q)
        canvas.paint(window, distance, size, [shading + value for value in colour])

    def _strangers(self, canvas: Canvas, draw: Iterator[float], middle, label, size, hard) -> None:
        """Figures of other classes, half as large as the one that counts, behind it."""
        count = len(self.figures)
        for k in range(self.strangers):
            there = next(draw) < hard * (0.8 if k == 0 else 0.4)
            other = (label + 1 + int(next(draw) * (count - 1))) % count
            x, y, part = next(draw), next(draw), 0.35 + 0.2 * next(draw)
            self._figure(canvas, draw, middle, other, x, y, size * part, 0.0, there)


EMBEDDED = ShapeSet(
    name="embedded",
    figures=FIGURES,
    key=0,
    draws=160,
    size=(0.12, 0.14),
    contrast=(60.0, 80.0),
    pieces=4,
    strangers=0,
    occluders=(0.35, 0.1),
    amplitude=(2.0, 8.0),
)
HARD = ShapeSet(
    name="embedded-hard",
    figures=CLOSE_FIGURES,
    key=0x9B05688C2B3E6C1F,
    draws=256,
    size=(0.085, 0.125),
    contrast=(32.0, 80.0),
    pieces=6,
    strangers=2,
    occluders=(0.5, 0.2),
    amplitude=(3.0, 11.0),
)
GENERATED: dict[str, ShapeSet] = {one.name: one for one in (EMBEDDED, HARD)}

CLASS_NAMES = EMBEDDED.class_names
labels = EMBEDDED.labels
generate = EMBEDDED.generate
