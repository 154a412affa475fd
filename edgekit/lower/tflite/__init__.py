"""The .tflite backend, in the order things happen: prepare (graph passes), lower (layout, operators,
bytes).
"""

from __future__ import annotations

from edgekit.lower.tflite.layout import RemainingTranspose
from edgekit.lower.tflite.lowering import Lowered, LoweredOp, lower, supported, unsupported
from edgekit.lower.tflite.prepare import prepare

__all__ = [
    "Lowered",
    "LoweredOp",
    "RemainingTranspose",
    "lower",
    "prepare",
    "supported",
    "unsupported",
]
