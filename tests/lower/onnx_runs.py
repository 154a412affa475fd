"""Run lowered files in ONNX Runtime, for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from litert import annotate

from edgekit.ir import Graph
from edgekit.lower.onnx import Lowered, lower, prepare
from edgekit.targets import get_target
from tests.cases import Case


def session(data: bytes, optimized: Path | None = None) -> onnxruntime.InferenceSession:
    """One thread on the CPU. optimized: where the runtime writes the graph it really runs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def lowered_case(case: Case, target_name: str, **kwargs) -> tuple[Graph, Lowered]:
    """(prepared graph, file) of a case, calibrated on the case's own images where the target needs it."""
    target = get_target(target_name)
    graph = case.graph()
    if target.quantized:
        annotate(graph, case.images())
    prepared = prepare(graph, target)
    return prepared, lower(prepared, target, **kwargs)


def run_file(lowered: Lowered, images: torch.Tensor | np.ndarray) -> list[np.ndarray]:
    runner = session(lowered.files["model.onnx"])
    return runner.run(None, {lowered.inputs[0]: np.asarray(images)})


def parsed(lowered: Lowered) -> onnx.ModelProto:
    return onnx.load_from_string(lowered.files["model.onnx"])


def op_types(lowered: Lowered) -> list[str]:
    """The nodes without the conversions between float and integers."""
    return [op.builtin for op in lowered.operators if not op.builtin.endswith("Linear")]
