"""A model that was found: the module, its weights, what goes in and what its outputs are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from edgekit.data.preprocessing import Preprocessing


@dataclass(frozen=True)
class Model:
    """A module ready to capture and what is known about it.

    Args:
        name: canonical: the library's own spelling, `file.function`, or the archive's name.
        source: "torchvision" | "timm" | "file" | "exported" | "onnx".
        module: in eval mode, float32.
        preprocessing: from a picture to the module's input.
        class_names: one name an output, where the weights define them.
        weights: `kind` ("reference" | "imagenet" | "file" | "random"), `source` (words for a report),
            `sha256` (of the file, or of the tensors where there is none), `untrained`, and `accuracy` for a
            reference.
        input_shape: (1, C, H, W).
    """

    name: str
    source: str
    module: nn.Module
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None
    weights: dict[str, Any]
    input_shape: tuple[int, int, int, int]
