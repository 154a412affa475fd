"""Versions of what a result depends on besides edgekit's own code."""

from __future__ import annotations

import contextlib
import importlib.metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


_PACKAGES = ("torch", "torchvision", "timm", "ai-edge-litert", "numpy")


_OPTIONAL = ("onnx", "onnxruntime", "openvino", "nncf", "tensorflow")


def versions() -> dict[str, str]:
    """Versions of what a result depends on besides edgekit's own code."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    for name in _OPTIONAL:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
