"""A kind of unit's time as a function of its sizes, fitted to the points that were measured.

What multiplies by weights runs in tiles of channels (int8 on AVX512-VNNI: 16 out; on AMX: 64 out and 64 in;
other kernels have others), so that time is a staircase in the channels:

    ns = a + M (b + o (c + d i)) + e o i + f M i   M pixels, o = out, i = in * taps, both in whole tiles
    ns = a + M (b + o (c + d taps)) + e o          depthwise
    ns = a + b read + c written + d rows           what goes through elements

All coefficients are at least zero (non-negative least squares on relative errors), and the tiles are those
that predict points which were left out best. What the form leaves over is smooth: points nearby in the
logarithms of the sizes say by what factor the form errs there (a Gaussian process with one length).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

TILES = (1, 4, 8, 16, 32, 64)
PLAIN = (1, 1)
LENGTH = 0.7  # in natural logarithms: a size twice as large is one length away
NOISE = 0.03  # of a measured unit, relative
_FOLDS = 8
Sizes = Mapping[str, int]
Tiles = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Form:
    """A fitted kind. tiles: of output and input channels.

    error: mean relative error on points that were left out; None with too few to leave any.
    """

    kind: str
    tiles: tuple[int, int]
    coefficients: np.ndarray
    places: np.ndarray  # (N, D) logarithms of the points' sizes
    factors: np.ndarray  # (N,) weights of the points in the correction
    least: float  # no correction goes beyond what a point needs
    most: float
    points: int
    error: float | None

    def ns(self, sizes: Sizes) -> float:
        """Nanoseconds of a unit of this kind."""
        row = _features(sizes, self.tiles)
        plain = max(float(row @ self.coefficients), 1.0)
        near = _kernel(_place(sizes, self.tiles)[None], self.places)
        return plain * math.exp(min(max(float((near @ self.factors)[0]), self.least), self.most))


def fit(kind: str, points: Sequence[tuple[Sizes, float]]) -> Form:
    """The form of a kind through its points, (sizes, nanoseconds); at least one."""
    tiles, error = PLAIN, _left_out(kind, points, PLAIN)
    for side, name in enumerate(("out", "in")):
        if error is None or name not in points[0][0]:
            continue
        for size in TILES[1:]:
            tried = (size, tiles[1]) if side == 0 else (tiles[0], size)
            found = _left_out(kind, points, tried)
            if found is not None and found < error:
                tiles, error = tried, found
    return _fitted(kind, points, tiles, error)


def _fitted(kind: str, points: Sequence[tuple[Sizes, float]], tiles: Tiles, error: float | None) -> Form:
    times = np.array([max(ns, 1.0) for _, ns in points])
    rows = np.stack([_features(sizes, tiles) for sizes, _ in points])
    scale = np.maximum(rows.max(0), 1e-30)
    coefficients = nnls(rows / scale / times[:, None], np.ones(len(points)))[0] / scale
    plain = np.maximum(rows @ coefficients, 1.0)
    left = np.log(times / plain)
    places = np.stack([_place(sizes, tiles) for sizes, _ in points])
    spread = max(float(np.mean(left**2)), NOISE**2)
    kernel = spread * _kernel(places, places) + NOISE**2 * np.eye(len(points))
    factors = spread * np.linalg.solve(kernel, left)
    low, high = min(0.0, float(left.min())), max(0.0, float(left.max()))
    return Form(kind, tiles, coefficients, places, factors, low, high, len(points), error)


def _left_out(kind: str, points: Sequence[tuple[Sizes, float]], tiles: Tiles) -> float | None:
    """Mean relative error at points that the fit has not seen."""
    if len(points) < 4:
        return None
    order = np.random.default_rng(0).permutation(len(points))
    errors: list[float] = []
    for fold in np.array_split(order, min(_FOLDS, len(points))):
        out = set(fold.tolist())
        form = _fitted(kind, [p for i, p in enumerate(points) if i not in out], tiles, None)
        errors += [abs(form.ns(points[i][0]) / max(points[i][1], 1.0) - 1.0) for i in out]
    return float(np.mean(errors))


def _features(sizes: Sizes, tiles: Tiles) -> np.ndarray:
    if "out" not in sizes:
        return np.array([1.0, *(float(sizes[name]) for name in sorted(sizes))])
    whole = _in_tiles(sizes, tiles)
    groups, pixels, out = whole.get("groups", 1), float(whole["pixels"]), float(whole["out"])
    if "in" not in whole:
        return np.array([1.0, pixels, pixels * out, pixels * out * whole["taps"], out])
    inner = float(whole["in"] * whole["taps"])
    each = [pixels, pixels * out, pixels * out * inner, out * inner, pixels * inner]
    return np.array([1.0, *(groups * number for number in each)])


def _place(sizes: Sizes, tiles: Tiles) -> np.ndarray:
    whole = {"groups": 1, **_in_tiles(sizes, tiles)} if "in" in sizes else _in_tiles(sizes, tiles)
    return np.array([math.log(max(whole[name], 1)) for name in sorted(whole)])


def _in_tiles(sizes: Sizes, tiles: Tiles) -> dict[str, int]:
    """The sizes with channels filled up to whole tiles."""
    steps = {"out": tiles[0], "in": tiles[1]}
    return {name: -(-n // step) * step for name, n in sizes.items() for step in (steps.get(name, 1),)}


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    apart = ((a[:, None] - b[None]) ** 2).sum(2)
    return np.exp(-apart / (2 * LENGTH**2))
