"""The .tflite backend, in the order things happen: prepare (graph passes), lower (layout, operators,
bytes).
"""

from __future__ import annotations

from edgekit.lower.tflite.layout import RemainingTranspose
from edgekit.lower.tflite.lowering import lower, supported, unsupported
from edgekit.lower.tflite.prepare import prepare

__all__ = [
    "RemainingTranspose",
    "lower",
    "prepare",
    "supported",
    "unsupported",
]
