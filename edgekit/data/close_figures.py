"""The figures that `embedded-hard` adds: each is a near relative of one in figures.py, under its rules."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgekit.data.figures import FIGURES, Field, box, length

_C72, _S72 = 0.30901699437494745, 0.9510565162951535
_C144, _S144 = -0.8090169943749475, 0.5877852522924731
_S60 = 0.8660254037844386
_R2 = 0.7071067811865476
_R10 = 0.31622776601683794


def ellipse(u, v, p, q):
    return (length(u / 0.96, v / 0.56) - 1.0) * 0.6


def pentagon(u, v, p, q):
    v = np.abs(v)
    return np.maximum(np.maximum(u, _C72 * u + _S72 * v), _C144 * u + _S144 * v) - 0.7


def octagon(u, v, p, q):
    u, v = np.abs(u), np.abs(v)
    return np.maximum(np.maximum(u, v), (u + v) * _R2) - 0.8


def rhombus(u, v, p, q):
    return 0.5 * np.abs(u) + _S60 * np.abs(v) - 0.48


def trapezoid(u, v, p, q):
    return np.maximum((np.abs(v) + 0.42 * u - 0.56) * 0.922, np.abs(u) - 0.66)


def right_triangle(u, v, p, q):
    return np.maximum(np.maximum(-u, -v) - 0.5, (u + v - 0.3) * _R2)


def star4(u, v, p, q):
    u, v = np.abs(u), np.abs(v)
    return np.minimum(3.0 * u + v, u + 3.0 * v) * _R10 - 0.31


def hexagram(u, v, p, q):
    side = _S60 * np.abs(v)
    return np.minimum(np.maximum(-u, 0.5 * u + side), np.maximum(u, side - 0.5 * u)) - 0.44


def lorraine(u, v, p, q):
    t = 0.14 + 0.05 * p
    bars = np.minimum(box(u - 0.5, v, t, 0.55), box(u + 0.1, v, t, 0.8))
    return np.minimum(bars, box(u, v, 0.95, t))


def double_arrow(u, v, p, q):
    u, v = np.abs(u), np.abs(v)
    head = np.maximum(0.4 - u, (v + 0.9 * (u - 1.0)) * 0.7433)
    return np.minimum(head, box(u, v, 0.5, 0.13 + 0.07 * p))


def double_ring(u, v, p, q):
    radius = length(u, v)
    half = 0.07 + 0.05 * p
    return np.minimum(np.abs(radius - 0.8), np.abs(radius - 0.42)) - half


def broken_ring(u, v, p, q):
    whole = np.abs(length(u, v) - 0.72) - (0.12 + 0.1 * q)
    return np.maximum(whole, np.minimum(u, (0.16 + 0.14 * p) - np.abs(v)))


def u_shape(u, v, p, q):
    t = 0.15 + 0.08 * p
    return np.maximum(box(u, v, 0.8, 0.74), np.minimum(u + (0.8 - 2.0 * t), (0.74 - 2.0 * t) - np.abs(v)))


def h_shape(u, v, p, q):
    t = 0.13 + 0.07 * p
    sides = np.maximum(np.abs(np.abs(v) - 0.58) - t, np.abs(u) - 0.85)
    return np.minimum(sides, box(u, v, t, 0.58))


def y_shape(u, v, p, q):
    v = np.abs(v)
    t = 0.14 + 0.08 * p
    along, across = 0.5 * u + _S60 * v, np.abs(_S60 * u - 0.5 * v)
    stem = np.maximum(v - t, np.maximum(u, -u - 0.92))
    return np.minimum(stem, np.maximum(across - t, np.maximum(-along, along - 0.92)))


def capsule(u, v, p, q):
    return length(np.maximum(np.abs(u) - 0.52, 0.0), v) - (0.34 + 0.08 * p)


CLOSE_FIGURES: tuple[Callable[[Field, Field, float, float], Field], ...] = (
    *FIGURES,
    ellipse, pentagon, octagon, rhombus, trapezoid, right_triangle, star4, hexagram, lorraine, double_arrow,
    double_ring, broken_ring, u_shape, h_shape, y_shape, capsule,
)  # fmt: skip
