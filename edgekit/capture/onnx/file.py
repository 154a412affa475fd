"""The .onnx file itself: read, kept inside its own folder, and made one flat list of nodes.

Enters: a path. Leaves: an `OnnxFile` with initializers as arrays and local functions inlined. Tensor data in
other files is read only from regular files below the model's own folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from edgekit.capture.onnx.registry import OnnxNode
from edgekit.errors import ArtifactError, CaptureError, UsageError

OPSETS = range(7, 27)
_STANDARD = ("", "ai.onnx")
_CHANNELS = (1, 3, 4)  # grey, RGB, RGBA
# TensorProto's types an input may have; whole numbers are real ones of the same value
_DTYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 10: "float16", 11: "float64"}


@dataclass(frozen=True)
class OnnxFile:
    """A checked model. `shapes` are as the file states them: an int, or a name (None) where it is open."""

    name: str
    model: Any  # onnx.ModelProto, external data loaded, functions inlined
    opset: int
    sha256: str
    inputs: dict[str, tuple[int | str | None, ...]]
    dtypes: dict[str, str]  # of the inputs, as numpy spells them
    outputs: tuple[str, ...]
    initializers: dict[str, np.ndarray]
    nodes: tuple[OnnxNode, ...]

    def channels_last(self, name: str) -> bool:
        """Whether an input is a picture (N, H, W, C), as TensorFlow's converters leave it."""
        shape = self.inputs[name]
        return len(shape) == 4 and shape[3] in _CHANNELS and shape[1] not in _CHANNELS

    def fed(self, name: str, array: np.ndarray) -> np.ndarray:
        """A float picture (N, C, H, W) as the file's input wants it."""
        turned = array.transpose(0, 2, 3, 1) if self.channels_last(name) else array
        return np.ascontiguousarray(turned).astype(self.dtypes[name])


def _onnx() -> Any:
    try:
        import onnx
        import onnx.external_data_helper
        import onnx.inliner
        import onnx.numpy_helper
    except ImportError as error:
        raise UsageError("reading .onnx files: the package onnx is missing: pip install onnx") from error
    return onnx


def read(path: Path) -> OnnxFile:
    """The model in `path`.

    Raises:
        ArtifactError: not an ONNX file, a damaged one, or data files that are missing or outside its folder.
        CaptureError: training operators, or an opset this version does not know.
        UsageError: the package onnx is not installed.
    """
    onnx = _onnx()
    data = path.read_bytes()
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf raises its own DecodeError, which has no public home
        raise ArtifactError(f"{path}: cannot be read ({_line(error)}): a whole ONNX file") from error
    if not model.graph.node and not model.graph.output:
        raise ArtifactError(f"{path}: holds no graph: a whole ONNX file")
    digest = hashlib.sha256(data)
    for external in _external_files(model, path, onnx):
        digest.update(external.read_bytes())
    try:
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # a length or offset beyond the file
        raise ArtifactError(
            f"{path}: its tensor data cannot be read ({_line(error)}): whole files"
        ) from error
    _refuse_training(model, path)
    try:
        if model.ByteSize() < 1 << 31:
            onnx.checker.check_model(model)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        return _flat(model, path, digest.hexdigest(), onnx)
    except (onnx.checker.ValidationError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ArtifactError(
            f"{path}: is inconsistent ({_line(error)}): a file onnx.checker accepts"
        ) from error


def _flat(model: Any, path: Path, sha256: str, onnx: Any) -> OnnxFile:
    opset = next((o.version for o in model.opset_import if o.domain in _STANDARD), 0)
    if opset not in OPSETS:
        raise CaptureError(
            f"[capture] {path}: opset {opset}: {OPSETS.start} to {OPSETS.stop - 1}, export it again"
        )
    graph = model.graph
    initializers = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    return OnnxFile(
        path.stem,
        model,
        opset,
        sha256,
        {i.name: _shape(i) for i in graph.input if i.name not in initializers},
        {i.name: _dtype(i) for i in graph.input if i.name not in initializers},
        tuple(o.name for o in graph.output),
        initializers,
        tuple(nodes(graph, onnx)),
    )


def nodes(graph: Any, onnx: Any = None) -> Iterator[OnnxNode]:
    """A graph's or branch's nodes; operators of other domains carry the domain in their name."""
    onnx = onnx or _onnx()
    for i, node in enumerate(graph.node):
        attrs = {a.name: _attribute(onnx.helper.get_attribute_value(a), onnx) for a in node.attribute}
        op = node.op_type if node.domain in _STANDARD else f"{node.domain}.{node.op_type}"
        name = node.name or next((o for o in node.output if o), f"{op}_{i}")
        yield OnnxNode(op, name, tuple(node.input), tuple(node.output), attrs, node)


def _attribute(value: Any, onnx: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    if isinstance(value, list | tuple) and value and isinstance(value[0], bytes):
        return [item.decode("utf-8", "replace") for item in value]
    return value


def _dtype(info: Any) -> str:
    kind = info.type.tensor_type.elem_type
    if kind not in _DTYPES:
        raise CaptureError(
            f"[capture] input {info.name} of the ONNX file has type {kind}: {', '.join(_DTYPES.values())}"
        )
    return _DTYPES[kind]


def _shape(info: Any) -> tuple[int | str | None, ...]:
    tensor = info.type.tensor_type
    return tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else (d.dim_param or None)
        for d in tensor.shape.dim
    )


def _refuse_training(model: Any, path: Path) -> None:
    found = [
        f"{n.op_type} at {n.name or n.output[0]}"
        for n in model.graph.node
        if n.domain in ("ai.onnx.preview.training", "ai.onnx.training") or n.op_type.endswith("Grad")
    ]
    if found or model.training_info:
        raise CaptureError(
            f"[capture] {path}: holds training operators ({', '.join(found[:3]) or 'training_info'}): "
            "export the model in eval mode"
        )


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for branch in (attribute.g, *attribute.graphs):
                if branch.node or branch.initializer:
                    yield from _tensors(branch)


def _external_files(model: Any, path: Path, onnx: Any) -> list[Path]:
    """The data files the model refers to. Raises ArtifactError unless each lies below the model's folder."""
    folder = path.parent.resolve()
    found: dict[Path, None] = {}
    for tensor in _all_tensors(model):
        if not onnx.external_data_helper.uses_external_data(tensor):
            continue
        location = next((e.value for e in tensor.external_data if e.key == "location"), "")
        foreign = PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor
        file = (folder / location).resolve()
        if not location or foreign or "\\" in location or not file.is_relative_to(folder):
            raise ArtifactError(
                f"{path}: tensor {tensor.name} is to be read from {location!r}: a file beside the model"
            )
        if not file.is_file():
            raise ArtifactError(
                f"{path}: its data file {location} is missing (tensor {tensor.name}): put it beside the model"
            )
        found[file] = None
    return list(found)


def _all_tensors(model: Any) -> Iterator[Any]:
    yield from _tensors(model.graph)
    for function in model.functions:
        for node in function.node:
            for attribute in node.attribute:
                yield attribute.t
                yield from attribute.tensors


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
