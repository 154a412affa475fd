"""`model.onnx`: a model of any framework, from its ONNX file.

The file is imported at once: its graph is what the module runs. It carries no preprocessing and no class
names that all exporters agree on; ImageNet's normalisation is assumed, as for user code.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekit.capture.onnx import OnnxFile, import_onnx, read
from edgekit.errors import UnknownModelError, UsageError, WeightsError
from edgekit.files import escaped, user_path
from edgekit.graph.ir import Graph
from edgekit.graph.run import run
from edgekit.zoo.model import Model
from edgekit.zoo.weights import preprocessing_from


class OnnxModule(nn.Module):
    """An imported graph as a module. `imported` is the file it came from, for the proof."""

    def __init__(self, file: OnnxFile, graph: Graph) -> None:
        super().__init__()
        self.imported = file
        self.graph = graph
        self.training = False

    def forward(self, image: torch.Tensor) -> Any:
        results = run(self.graph, [image])
        return results[0] if len(results) == 1 else results

    def train(self, mode: bool = True) -> OnnxModule:
        if mode:
            raise UsageError("onnx model: cannot be put in training mode: it computes as it was exported")
        return self


def load_onnx(spec: str, weights: str, num_classes: int | None, resolution: int | None) -> Model:
    """The model in an ONNX file.

    Raises:
        UnknownModelError: no such file.
        ArtifactError: a damaged file, or data files that are missing or outside its folder.
        CaptureError: operators or shapes that cannot be imported.
        WeightsError, UsageError: a file that does not take one picture, or an argument it cannot honour.
    """
    path = user_path(spec)
    if not path.is_file():
        raise UnknownModelError(f"{path}: no such file: an ONNX file")
    if weights != "auto":
        raise WeightsError(f"{path}: holds its own weights, '{weights}' cannot be put in: auto")
    if num_classes is not None:
        raise UsageError(
            f"{path}: its number of classes was fixed when it was exported: leave num_classes out"
        )
    file = read(path)
    graph = import_onnx(file, resolution)
    shape = _picture(graph, path)
    if resolution not in (None, *shape[2:]):
        raise UsageError(
            f"{path}: was exported for {_sides(shape)}, {resolution} were asked for: "
            "leave it out, or export again"
        )
    record = {"kind": "file", "source": str(path), "sha256": file.sha256, "untrained": False}
    module = OnnxModule(file, graph).eval()
    preprocessing = preprocessing_from(None, min(shape[2:]), spec)
    if file.dtypes[graph.inputs[0].name] == "uint8":  # pixels as they are
        preprocessing = replace(preprocessing, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    return Model(escaped(path.stem), "onnx", module, preprocessing, None, record, shape)


def _picture(graph: Graph, path: Path) -> tuple[int, int, int, int]:
    """The shape of the one picture the graph takes; what is not square RGB is calibrated with tensors."""
    shapes = [value.shape for value in graph.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise UsageError(f"{path}: takes {shapes or 'nothing'}: one picture (1, C, H, W)")
    batch, channels, height, width = shapes[0]
    return batch, channels, height, width


def _sides(shape: tuple[int, int, int, int]) -> str:
    return f"{shape[3]} px" if shape[2] == shape[3] else f"{shape[3]} x {shape[2]} px"
