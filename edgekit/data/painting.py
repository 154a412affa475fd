"""What the generated image sets are made with: counter-hashed draws, a canvas, backgrounds, clutter, noise.

Byte equality rests on two rules. Arithmetic is integer or IEEE-exact (+ - * / sqrt, floor, min, max), one
ufunc at a time: no sin, exp or atan2, whose last bit differs between libraries, and no sum or matrix
product, whose order does. Rotations use the rational circle ((1-t^2)/(1+t^2), 2t/(1+t^2)).

Enters: a hash key, indices, a picture's draws. Leaves: planes with things painted on them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from edgekit.data.figures import Field, box, length, wave

MAX_RESOLUTION = 224
LATTICE = 7  # background texture: value noise on a 7 x 7 lattice

_NOISE_KEY = 0x510E527FADE682D1
_GOLDEN = 0x9E3779B97F4A7C15
_NOISE_SIDE = 256


def _mix(x: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser over uint64, wrapping."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def hashed(key: int, index: np.ndarray, draws: int) -> np.ndarray:
    """uint64 (len(index), draws): draw k of picture i."""
    golden = np.uint64(_GOLDEN)
    start = _mix(index.astype(np.uint64) * golden + np.uint64(key))
    return _mix(start[:, None] + np.arange(1, draws + 1, dtype=np.uint64) * golden)


def uniform(bits: np.ndarray) -> np.ndarray:
    """uint64 -> float64 in [0, 1), 53 bits, exact."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


@lru_cache(maxsize=1)
def noise_table() -> Field:
    """Bell-shaped noise, standard deviation about 1, (2 * side, 2 * side): tiled, so an offset is a slice."""
    count = _NOISE_SIDE * _NOISE_SIDE
    bits = hashed(_NOISE_KEY, np.zeros(1, np.uint64), count)[0]
    total = np.zeros(count, np.int64)
    for byte in range(6):
        total += ((bits >> np.uint64(8 * byte)) & np.uint64(255)).astype(np.int64)
    table = ((total - 765).astype(np.float32) / np.float32(181)).reshape(_NOISE_SIDE, _NOISE_SIDE)
    return np.tile(table, (2, 2))


def direction(t: float, quarter: float) -> tuple[float, float]:
    """Two uniform draws -> (cos, sin): t spans a quarter turn, `quarter` picks which."""
    t = (2.0 * t - 1.0) * 0.41421356237309503
    c, s = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    for _ in range(int(quarter * 4)):
        c, s = -s, c
    return c, s


class Canvas:
    """Three float32 planes and the pixel grid; paints what has a signed distance."""

    def __init__(self, resolution: int) -> None:
        self.resolution = resolution
        self.grid = (np.arange(resolution, dtype=np.float32) + np.float32(0.5)) / np.float32(resolution)
        self.planes = np.empty((3, resolution, resolution), np.float32)

    def window(self, x: float, y: float, reach: float) -> tuple[slice, slice] | None:
        n = self.resolution
        left, right = max(0, int((x - reach) * n) - 1), min(n, int((x + reach) * n) + 2)
        top, bottom = max(0, int((y - reach) * n) - 1), min(n, int((y + reach) * n) + 2)
        return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None

    def local(self, window, x, y, c, s, size_u, size_v) -> tuple[Field, Field]:
        """The figure's own coordinates over `window`: turned by (c, s), scaled by its sizes."""
        dx = (self.grid[window[1]] - x)[None, :]
        dy = (self.grid[window[0]] - y)[:, None]
        return dx * (c / size_u) + dy * (s / size_u), dy * (c / size_v) - dx * (s / size_v)

    def paint(self, window, distance: Field, size: float, colour, opacity: float = 1.0) -> None:
        """Blend `colour` (three numbers or three fields) where `distance` < 0, one pixel soft."""
        coverage = distance * (-size * self.resolution) + 0.5
        np.maximum(coverage, 0.0, out=coverage)
        np.minimum(coverage, 1.0, out=coverage)
        if opacity != 1.0:
            coverage *= opacity
        for plane, value in zip(self.planes, colour, strict=True):
            part = plane[window]
            part += coverage * (value - part)


def background(canvas: Canvas, draw: Iterator[float], lattice: Field, hard: float) -> list[float]:
    """Gradient, value-noise texture and perhaps faint waves; returns the middle colour."""
    grid = canvas.grid
    middle = [40.0 + 175.0 * next(draw) for _ in range(3)]
    c, s = direction(next(draw), next(draw))
    ramp = (grid - 0.5)[None, :] * c + (grid - 0.5)[:, None] * s
    position = grid * (LATTICE - 1)
    cell = np.minimum(position.astype(np.int64), LATTICE - 2)
    part = position - cell
    part = part * part * (3.0 - 2.0 * part)
    rows = lattice[cell] + (lattice[cell + 1] - lattice[cell]) * part[:, None]
    columns = rows.T
    texture = (columns[cell] + (columns[cell + 1] - columns[cell]) * part[:, None]).T
    roughness = 8.0 + 32.0 * next(draw)
    waves, frequency, wave_c, wave_s = next(draw), 5.0 + 9.0 * next(draw), *direction(next(draw), next(draw))
    texture = (texture - 0.5) * (hard * roughness)
    if waves < 0.35:
        texture += wave((grid * (wave_c * frequency))[None, :] + (grid * (wave_s * frequency))[:, None]) * (
            hard * (24.0 + 48.0 * waves)
        )
    for plane, base in zip(canvas.planes, middle, strict=True):
        slope, weight = 120.0 * (next(draw) - 0.5), 0.6 + 0.4 * next(draw)
        np.multiply(ramp, slope, out=plane)
        plane += texture * weight
        plane += base
    return middle


def against(middle: list[float], contrast: float, draw: Iterator[float]) -> list[float]:
    """A colour `contrast` lighter or darker than `middle`, by unequal parts in the three channels."""
    brightness = (middle[0] + middle[1] + middle[2]) / 3.0
    up = brightness < 90.0 + 75.0 * next(draw)
    return [base + (contrast if up else -contrast) * (0.45 + 0.55 * next(draw)) for base in middle]


def clutter(canvas: Canvas, draw: Iterator[float], middle: list[float], hard: float, most: int) -> None:
    """Up to `most` small discs, squares and bars, each clearly smaller than any figure."""
    pieces = int(hard * (1 + int(most * next(draw))))
    for piece in range(most):
        kind, x, y, size = next(draw), next(draw), next(draw), 0.012 + 0.023 * next(draw)
        c, s = direction(next(draw), next(draw))
        colour = against(middle, 20.0 + 70.0 * next(draw), draw)
        window = canvas.window(x, y, size * (5.0 if kind > 0.6 else 1.5))
        if piece >= pieces or window is None:
            continue
        u, v = canvas.local(window, x, y, c, s, size, size)
        if kind < 0.3:
            distance = length(u, v) - 1.0
        elif kind < 0.6:
            distance = box(u, v, 0.9, 0.9)
        else:
            distance = box(u, v, 4.0, 0.35)
        canvas.paint(window, distance, size, colour)


def occlude(
    canvas: Canvas, draw: Iterator[float], middle: list[float], x, y, size, hard: float, limits
) -> None:
    """Things in front of the figure: a bar across it, or a disc over part of its edge."""
    pieces = next(draw) + (1.0 - hard)
    for limit in limits:
        bar, c, s = next(draw) < 0.55, *direction(next(draw), next(draw))
        shift, across = next(draw), next(draw)
        colour = against(middle, 70.0 * next(draw), draw)
        if pieces >= limit:
            continue
        if bar:
            thick = size * (0.08 + 0.12 * across)
            offset = size * 1.2 * (shift - 0.5)
            px, py = x - s * offset, y + c * offset
            window = canvas.window(px, py, size * 1.6)
            if window is not None:
                u, v = canvas.local(window, px, py, c, s, size, size)
                canvas.paint(window, box(u, v, 1.5, thick / size), size, colour)
        else:
            radius = size * (0.25 + 0.2 * across)
            px, py = x + c * size * (0.55 + 0.4 * shift), y + s * size * (0.55 + 0.4 * shift)
            window = canvas.window(px, py, radius)
            if window is not None:
                u, v = canvas.local(window, px, py, c, s, radius, radius)
                canvas.paint(window, length(u, v) - 1.0, radius, colour)


def noise(canvas: Canvas, draw: Iterator[float], hard: float, amplitude: tuple[float, float]) -> np.ndarray:
    """The canvas with noise on it, uint8 (resolution, resolution, 3), rounding halves up."""
    resolution = canvas.resolution
    deviation = hard * (amplitude[0] + amplitude[1] * next(draw))
    pick = (np.arange(resolution, dtype=np.int64) * 2 + 1) * MAX_RESOLUTION // (2 * resolution)
    table = noise_table()
    image = np.empty((resolution, resolution, 3), np.uint8)
    for channel, plane in enumerate(canvas.planes):
        top, left = int(next(draw) * _NOISE_SIDE), int(next(draw) * _NOISE_SIDE)
        patch = table[top : top + MAX_RESOLUTION, left : left + MAX_RESOLUTION]
        if resolution != MAX_RESOLUTION:
            patch = patch.take(pick, axis=0).take(pick, axis=1)
        plane += patch * deviation
        plane += 0.5
        np.maximum(plane, 0.0, out=plane)
        np.minimum(plane, 255.0, out=plane)
        image[:, :, channel] = plane  # truncation of x + 0.5
    return image
