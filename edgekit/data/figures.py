"""The figures of the embedded image set: (u, v, p, q) -> signed distance, negative inside.

u and v are float32 fields of a figure's own coordinates, in which it spans about -1..1; p and q in 0..1 vary
its proportions. Every function keeps to IEEE-exact arithmetic (see shapes.py): no sin, cos, exp or atan2.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# cos and sin of k * 72 degrees and of 60 degrees, written out: libm's last bit is not ours to rely on
_C72, _S72 = 0.30901699437494745, 0.9510565162951535
_C144, _S144 = -0.8090169943749475, 0.5877852522924731
_S60 = 0.8660254037844386
_R2 = 0.7071067811865476

Field = np.ndarray  # float32 (rows, columns)


def length(u: Field, v: Field) -> Field:
    return np.sqrt(u * u + v * v)


def wave(w: Field) -> Field:
    """Triangle wave of period 1: -0.25 at integers, +0.25 half way; its slope is 1."""
    return np.abs(w - np.floor(w + 0.5)) - 0.25


def box(u: Field, v: Field, half_u: float, half_v: float) -> Field:
    return np.maximum(np.abs(u) - half_u, np.abs(v) - half_v)


def _window(u: Field, v: Field, q: float) -> Field:
    """The outline a pattern is seen through: disc or square, so that the outline says nothing."""
    return length(u, v) - 0.95 if q < 0.5 else box(u, v, 0.85, 0.85)


def disc(u, v, p, q):
    return length(u, v) - 0.85


def ring(u, v, p, q):
    return np.abs(length(u, v) - 0.72) - (0.12 + 0.1 * p)


def half_disc(u, v, p, q):
    u = u + 0.45
    return np.maximum(length(u, v) - 1.0, -u)


def crescent(u, v, p, q):
    return np.maximum(length(u, v) - 0.9, (0.72 + 0.08 * p) - length(u - 0.42, v))


def pie(u, v, p, q):
    t = 0.24 + 0.14 * p  # tan of a quarter of the mouth: 54 to 83 degrees
    c, s = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    return np.maximum(length(u, v) - 0.9, u * s - np.abs(v) * c)


def triangle(u, v, p, q):
    return np.maximum(-u, 0.5 * u + _S60 * np.abs(v)) - 0.52


def square(u, v, p, q):
    return box(u, v, 0.76, 0.76)


def frame(u, v, p, q):
    return np.abs(box(u, v, 0.68, 0.68)) - (0.1 + 0.09 * p)


def hexagon(u, v, p, q):
    u, v = np.abs(u), np.abs(v)
    return np.maximum(v, _S60 * u + 0.5 * v) - 0.8


def star(u, v, p, q):
    """Inside at least four of five half planes: the second largest of five distances."""
    a, b = _C72 * u, _C144 * u
    v1, v2 = _S72 * v, _S144 * v
    first, second = u, np.minimum(u, a + v1)
    first = np.maximum(first, a + v1)
    for plane in (a - v1, b + v2, b - v2):
        second = np.maximum(second, np.minimum(first, plane))
        first = np.maximum(first, plane)
    return second - 0.36


def cross(u, v, p, q):
    u, v = np.abs(u), np.abs(v)
    t = 0.2 + 0.1 * p
    return np.maximum(np.maximum(u, v) - 0.92, np.minimum(u, v) - t)


def arrow(u, v, p, q):
    v = np.abs(v)
    head = np.maximum(0.05 - u, (0.95 * v + 0.66 * (u - 1.0)) * 0.8645)
    shaft = np.maximum(v - (0.14 + 0.08 * p), np.abs(u + 0.4) - 0.52)
    return np.minimum(head, shaft)


def heart(u, v, p, q):
    v = np.abs(v)
    u = u + 0.08
    return np.minimum((np.abs(u) + v - 0.78) * _R2, length(u - 0.39, v - 0.39) - 0.5515)


def hash_sign(u, v, p, q):
    u, v = np.abs(u), np.abs(v)
    bars = np.minimum(np.abs(u - 0.36), np.abs(v - 0.36)) - (0.1 + 0.05 * p)
    return np.maximum(bars, np.maximum(u, v) - 0.9)


def hourglass(u, v, p, q):
    u = np.abs(u)
    return np.maximum((np.abs(v) - 0.72 * u - 0.05) * 0.8115, u - 0.88)


def tee(u, v, p, q):
    v = np.abs(v)
    t = 0.17 + 0.07 * p
    bar = np.maximum(np.abs(u - 0.65) - t, v - 0.85)
    stem = np.maximum(v - t, np.abs(u + 0.05) - 0.85)
    return np.minimum(bar, stem)


def corner(u, v, p, q):
    t = 0.17 + 0.07 * p
    inside = np.maximum(u, v) - 0.85  # an L is a square's two sides: |.| of the lower left edge
    edge = np.abs(np.minimum(u, v) + 0.6) - t
    return np.maximum(inside, edge)


def zigzag(u, v, p, q):
    turns = 1.0 + 0.35 * p
    height = 1.3
    slope = turns * height
    bend = np.abs(v - height * wave(u * turns)) / float(np.sqrt(1 + slope * slope)) - 0.14
    return np.maximum(bend, np.abs(u) - 0.98)


def dumbbell(u, v, p, q):
    u = np.abs(u)
    return np.minimum(length(u - 0.6, v) - (0.32 + 0.06 * p), np.maximum(u - 0.6, np.abs(v) - 0.11))


def flower(u, v, p, q):
    v = np.abs(v)
    square_distance = np.minimum(
        (u - 0.58) * (u - 0.58) + v * v,
        np.minimum(
            (u - 0.58 * _C72) * (u - 0.58 * _C72) + (v - 0.58 * _S72) * (v - 0.58 * _S72),
            (u - 0.58 * _C144) * (u - 0.58 * _C144) + (v - 0.58 * _S144) * (v - 0.58 * _S144),
        ),
    )
    return np.minimum(np.sqrt(square_distance) - 0.32, length(u, v) - 0.38)


def stripes(u, v, p, q):
    lines = 2.0 + 0.8 * p  # lines per unit
    return np.maximum(wave(u * lines) / lines, _window(u, v, q))


def checker(u, v, p, q):
    cells = 1.1 + 0.5 * p
    a, b = wave(u * cells + 0.25), wave(v * cells + 0.25)
    both = np.maximum(np.minimum(a, b), -np.maximum(a, b)) / cells
    return np.maximum(both, _window(u, v, q))


def target(u, v, p, q):
    radius = length(u, v)
    gap = 0.42 + 0.1 * p
    return np.maximum(wave(radius / gap) * gap, radius - 2.25 * gap)


def spiral(u, v, p, q):
    """Half circles joined: radii k g around the origin above, (k + 1/2) g around (g/2, 0) below."""
    gap = 0.4 + 0.08 * p
    below = v < 0
    radius = length(u - np.where(below, np.float32(gap / 2), np.float32(0)), v)
    turn = radius / gap - np.where(below, np.float32(0.5), np.float32(0))
    arm = (np.abs(turn - np.floor(turn + 0.5)) - 0.23) * gap
    hub = np.where(below, np.float32(-1.0), 0.5 * gap - radius)  # the upper arm of radius 0 is no arm
    return np.maximum(np.maximum(arm, hub), length(u, v) - 0.98)


FIGURES: tuple[Callable[[Field, Field, float, float], Field], ...] = (
    disc, ring, half_disc, crescent, pie, triangle, square, frame, hexagon, star, cross, arrow,
    heart, hash_sign, hourglass, tee, corner, zigzag, dumbbell, flower, stripes, checker, target, spiral,
)  # fmt: skip
