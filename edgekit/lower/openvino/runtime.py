"""The one door to the openvino package: loaded when a file is made, never when edgekit is imported."""

from __future__ import annotations

from typing import Any

from edgekit.errors import UsageError


def openvino() -> Any:
    """The package. Raises: UsageError that says which extra brings it."""
    try:
        import openvino
    except ImportError as error:
        raise UsageError(
            "[target] openvino: the package is not installed: pip install 'edgekit[openvino]'"
        ) from error
    return openvino


def opset() -> Any:
    """Constructors of the operators, by their snake_case names."""
    openvino()
    from openvino import opset15

    return opset15
