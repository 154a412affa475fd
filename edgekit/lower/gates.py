"""x * gate(x) in two integer steps: the parameters of the gate in between.

Enters: the parameters of x and of the product. Leaves: those of the gate, searched: over the 256 values x can
take, the scale whose rounded product comes nearest the true one. It must not clip, so the search starts at
the largest gate / 255.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgekit.graph.ir import QuantParams


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def hardsigmoid(x: np.ndarray) -> np.ndarray:
    return np.clip(x / 6.0 + 0.5, 0.0, 1.0)


def gate_parameters(
    x: QuantParams, out: QuantParams, gate: Callable[[np.ndarray], np.ndarray] = sigmoid, slack: float = 0.01
) -> QuantParams:
    """The gate's parameters between an input and a product of these parameters.

    slack: up to how much coarser than needed the scale may be.
    """
    if x.dtype != "int8" or out.dtype != "int8":
        return QuantParams((1.0 / 32768.0,), (0,), "int16")
    reals = (np.arange(-128, 128) - x.zero_point[0]) * np.float64(x.scale[0])
    true = gate(reals)
    low, high = (np.array([-128, 127]) - out.zero_point[0]) * np.float64(out.scale[0])
    wanted = np.clip(reals * true, low, high)
    base = max(true.max(), 1e-3) / 255.0
    candidates = base * np.linspace(1.0, 1.0 + slack, 81)
    steps = np.rint(true[None, :] / candidates[:, None])
    product = np.clip(reals * np.minimum(steps, 255) * candidates[:, None], low, high)
    rounded = np.rint(product / out.scale[0]) * out.scale[0]
    error = np.square(rounded - wanted).sum(1)
    return QuantParams((float(np.float32(candidates[int(error.argmin())])),), (-128,), "int8")
