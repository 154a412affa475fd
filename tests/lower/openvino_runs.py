"""Run lowered files on OpenVINO's CPU plugin in true float32, for the tests of this folder."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import torch
from litert import annotate

from edgekit.graph.ir import Graph
from edgekit.lower.lowered import Lowered
from edgekit.lower.openvino import lower, prepare
from edgekit.targets import get_target
from tests.cases import Case

SETTINGS = {
    "INFERENCE_PRECISION_HINT": "f32",
    "ENABLE_CPU_PINNING": False,
    "NUM_STREAMS": 1,
    "INFERENCE_NUM_THREADS": 1,
}


def lowered_case(case: Case, target_name: str, **kwargs: Any) -> tuple[Graph, Lowered]:
    """(prepared graph, files) of a case, calibrated on the case's own images where the target needs it."""
    target = get_target(target_name)
    graph = case.graph()
    if target.quantized:
        annotate(graph, case.images())
    prepared = prepare(graph, target)
    return prepared, lower(prepared, target, **kwargs)


def compiled(files: dict[str, bytes]) -> Any:
    core = openvino.Core()
    return core.compile_model(core.read_model(files["model.xml"], files["model.bin"]), "CPU", SETTINGS)


def run_files(files: dict[str, bytes], images: torch.Tensor) -> list[np.ndarray]:
    """Outputs of the files for (N, C, H, W) images, given all at once."""
    model = compiled(files)
    found = model([images.numpy()])
    return [found[output] for output in model.outputs]


def executed(files: dict[str, bytes]) -> list[dict[str, str]]:
    """What really runs, in order: name, layer type, kernel, precision."""
    rows = []
    for node in compiled(files).get_runtime_model().get_ordered_ops():
        told = node.get_rt_info()
        rows.append(
            {
                "name": node.get_friendly_name(),
                "layer": told["layerType"].astype(str),
                "kernel": told["primitiveType"].astype(str),
                "precision": told["runtimePrecision"].astype(str),
                "origins": told["originalLayersNames"].astype(str),
            }
        )
    return rows
