"""The OpenVINO backend, in order: prepare (graph passes), lower (operators, then .xml and .bin)."""

from __future__ import annotations

from edgekit.lower.openvino.lowering import lower, supported, unsupported
from edgekit.lower.openvino.prepare import prepare

__all__ = ["lower", "prepare", "supported", "unsupported"]
