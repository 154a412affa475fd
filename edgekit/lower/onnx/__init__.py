"""The .onnx backend, in the order things happen: prepare (graph passes, placement), lower (nodes, bytes)."""

from __future__ import annotations

from edgekit.lower.onnx.lowering import lower, supported, unsupported
from edgekit.lower.onnx.prepare import prepare

__all__ = ["lower", "prepare", "supported", "unsupported"]
