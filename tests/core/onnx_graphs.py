"""ONNX graphs the importer's tests share, written by hand with onnx.helper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
from onnx import TensorProto, helper, numpy_helper

Step = tuple[Any, ...]  # (op, inputs, outputs) or (op, inputs, outputs, attrs)


def model(
    steps: Sequence[Step],
    constants: dict[str, Any] | None = None,
    shape: Sequence[int | str | None] = (1, 4, 8, 10),
    outputs: Sequence[str] = ("y",),
    opset: int = 18,
    elem_type: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A model of `steps` over the input x."""
    nodes = [
        helper.make_node(step[0], list(step[1]), list(step[2]), name=f"{step[0]}_{i}", **dict(*step[3:]))
        for i, step in enumerate(steps)
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", elem_type, list(shape))],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    proto = onnx.shape_inference.infer_shapes(proto)
    for info in proto.graph.output:  # what inference does not know; the checker wants a type and a shape
        if not info.type.tensor_type.elem_type:
            info.type.tensor_type.elem_type = elem_type
        info.type.tensor_type.shape.SetInParent()
    return proto


def saved(proto: onnx.ModelProto, folder: Path, name: str = "net.onnx") -> Path:
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return path


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
