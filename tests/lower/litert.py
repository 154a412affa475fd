"""Run lowered files in LiteRT, for the tests of this folder."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edgekit.graph.ir import Graph, Value
from edgekit.graph.run import run
from edgekit.lower.lowered import Lowered
from edgekit.lower.tflite import lower, prepare
from edgekit.quantize import qparams
from edgekit.targets import get_target
from tests.cases import Case


def interpreter(data: bytes, *, delegate: bool = True, **kwargs: Any) -> Interpreter:
    kind = OpResolverType.BUILTIN if delegate else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    found = Interpreter(model_content=data, num_threads=1, experimental_op_resolver_type=kind, **kwargs)
    found.allocate_tensors()
    return found


def lowered_case(case: Case, target_name: str, **kwargs: Any) -> tuple[Graph, Lowered]:
    """(prepared graph, file) of a case, calibrated on the case's own images where the target needs it."""
    target = get_target(target_name)
    graph = case.graph()
    if target.quantized:
        annotate(graph, case.images())
    prepared = prepare(graph, target)
    return prepared, lower(prepared, target, **kwargs)


def annotate(graph: Graph, images: torch.Tensor) -> None:
    """Minimum and maximum of every value over the images, and the parameters that follow."""
    ranges: dict[Value, tuple[float, float]] = {}

    def see(value: Value, tensor: torch.Tensor) -> torch.Tensor:
        if not value.is_constant:
            ranges[value] = (float(tensor.min()), float(tensor.max()))
        return tensor

    run(graph, [images], on_value=see)
    qparams.annotate(graph, ranges)


def run_file(data: bytes, image: torch.Tensor, *, delegate: bool = True) -> list[np.ndarray]:
    """Real outputs for one (1, C, H, W) image; integers are converted with the file's own parameters."""
    runner = interpreter(data, delegate=delegate)
    (entry,) = runner.get_input_details()
    runner.set_tensor(entry["index"], to_native(image, entry))
    runner.invoke()
    return [to_real(runner.get_tensor(e["index"]), e) for e in runner.get_output_details()]


def to_native(image: torch.Tensor, entry: dict[str, Any]) -> np.ndarray:
    pixels = np.ascontiguousarray(image.numpy().transpose(0, 2, 3, 1))
    if entry["dtype"] == np.float32:
        return pixels
    scale, zero_point = entry["quantization"]
    limits = np.iinfo(entry["dtype"])
    return np.clip(np.rint(pixels / np.float32(scale)) + zero_point, limits.min, limits.max).astype(
        entry["dtype"]
    )


def to_real(data: np.ndarray, entry: dict[str, Any]) -> np.ndarray:
    if data.dtype == np.float32:
        return data
    scale, zero_point = entry["quantization"]
    return (data.astype(np.float64) - zero_point) * scale


def to_torch_layout(data: np.ndarray) -> np.ndarray:
    """A four-dimensional output as (N, C, H, W)."""
    return data.transpose(0, 3, 1, 2) if data.ndim == 4 else data


def undelegated(data: bytes) -> list[str]:
    """Names of the operators that no delegate partition runs."""
    runner = interpreter(data, experimental_disable_delegate_node_fusion=True)
    operators = runner._get_ops_details()
    done = {i for op in operators if op["op_name"] == "DELEGATE" for i in op["outputs"]}
    return [
        op["op_name"] for op in operators if op["op_name"] != "DELEGATE" and not set(op["outputs"]) <= done
    ]


def partitions(data: bytes) -> int:
    return sum(op["op_name"] == "DELEGATE" for op in interpreter(data)._get_ops_details())
