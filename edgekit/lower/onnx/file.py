"""The bytes of an .onnx file, the same for the same graph.

The file is checked by `onnx.checker` with strict shape inference, whose shapes it carries, so that a viewer
shows every tensor's. It does not go through onnxsim: what that simplifies (constant folding, batch norm,
no-op reshapes) has been done on our graph with its module names, and folding a DequantizeLinear of a weight
would undo the quantization. A test holds onnxsim against it instead: it must find nothing to remove.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import edgekit
from edgekit.errors import UsageError
from edgekit.lower.onnx import constants
from edgekit.lower.onnx.context import Context

OPSET = 17
IR_VERSION = 8  # the one that came with opset 15 to 18


@dataclass(frozen=True)
class Tensor:
    """An input or output; a size may be a name or unknown."""

    name: str
    sizes: tuple[int | str | None, ...]
    dtype: str


@dataclass(frozen=True)
class Packed:
    """names: of the nodes, in order."""

    content: bytes
    names: tuple[str, ...]


def pack(ctx: Context, inputs: list[Tensor], outputs: list[Tensor], about: str) -> Packed:
    """Raises UsageError when the package onnx is missing."""
    try:
        import onnx
        from onnx import helper
    except ImportError as error:
        raise UsageError(f"{ctx.target.name}: the package onnx is not installed: pip install onnx") from error

    names = _node_names(ctx)
    nodes = [
        helper.make_node(
            op.op_type,
            [ctx.renamed.get(t, t) for t in op.inputs],
            [ctx.renamed.get(t, t) for t in op.outputs],
            name=name,
            **op.attrs,
        )
        for name, op in zip(names, ctx.operators, strict=True)
    ]
    used = {name for node in nodes for name in node.input}
    held = {name: data for name, data in ctx.initializers.items() if name in used}

    def model(given: list[Tensor], stored: dict[str, np.ndarray]) -> Any:
        return helper.make_model(
            helper.make_graph(
                nodes,
                ctx.graph.name,
                [_info(t) for t in given],
                [_info(t) for t in outputs],
                [_initializer(name, data) for name, data in stored.items()],
            ),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="edgekit",
            producer_version=edgekit.__version__,
            doc_string=about,
        )

    # the check needs the sizes of large constants, not their bytes: they stand in as inputs
    small = {name: data for name, data in held.items() if data.size <= constants.SMALL}
    large = [Tensor(n, data.shape, str(data.dtype)) for n, data in held.items() if n not in small]
    checked = onnx.shape_inference.infer_shapes(
        model([*inputs, *large], small), check_type=True, strict_mode=True, data_prop=True
    )
    onnx.checker.check_model(checked)
    whole = model(inputs, held)
    whole.graph.value_info.extend(checked.graph.value_info)
    return Packed(whole.SerializeToString(deterministic=True), names)


def _node_names(ctx: Context) -> tuple[str, ...]:
    """Module path and operator, numbered where a module has several of one kind."""
    names: dict[str, None] = {}
    for op in ctx.operators:
        stem = "/".join(filter(None, (op.source or op.graph_op, op.op_type)))
        name, count = stem, 0
        while name in names:
            count += 1
            name = f"{stem}_{count}"
        names[name] = None
    return tuple(names)


def _info(tensor: Tensor) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(tensor.name, _element_type(tensor.dtype), tensor.sizes)


def _element_type(dtype: str) -> int:
    from onnx import helper

    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _initializer(name: str, data: np.ndarray) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(data, name)
