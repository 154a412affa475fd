"""Run lowered files in ONNX Runtime, for the tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from litert import annotate

from edgekit.graph.ir import Graph, Node, Value
from edgekit.lower.lowered import Lowered
from edgekit.lower.onnx import lower, prepare
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


def lowered_case(case: Case, target_name: str, *, stem: bool = True, **kwargs: Any) -> tuple[Graph, Lowered]:
    """(prepared graph, file) of a case, calibrated on the case's own images where the target needs it.

    stem: False puts a step that does nothing between image and case, so that its convolution is no stem.
    """
    target = get_target(target_name)
    graph = case.graph()
    if not stem:
        (image,) = graph.inputs
        behind = Value("behind_the_image", image.shape)
        graph.replace_uses(image, behind)
        graph.nodes.insert(0, Node("expand", [image], [behind], {"shape": (-1,) * len(image.shape)}, "image"))
    if target.quantized:
        annotate(graph, case.images())
    prepared = prepare(graph, target)
    return prepared, lower(prepared, target, **kwargs)


def runs_in_integers(lowered: Lowered, folder: Path) -> bool:
    """Whether the file is quantized and the runtime's own graph converts at its borders only."""
    if not any(op.builtin == "QuantizeLinear" for op in lowered.operators):
        return False
    path = folder / "optimized.onnx"
    session(lowered.files["model.onnx"], path)
    graph = onnx.load(path).graph
    inputs, outputs = {v.name for v in graph.input}, {v.name for v in graph.output}
    inner = [n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] not in inputs]
    inner += [n for n in graph.node if n.op_type == "DequantizeLinear" and n.output[0] not in outputs]
    return not inner


def run_file(lowered: Lowered, images: torch.Tensor | np.ndarray) -> list[np.ndarray]:
    runner = session(lowered.files["model.onnx"])
    return runner.run(None, {lowered.inputs[0]: np.asarray(images)})


def parsed(lowered: Lowered) -> onnx.ModelProto:
    return onnx.load_from_string(lowered.files["model.onnx"])


def op_types(lowered: Lowered) -> list[str]:
    """The nodes without the conversions between float and integers."""
    return [op.builtin for op in lowered.operators if not op.builtin.endswith("Linear")]
