"""The nodes of an ONNX file -> Graph: each through its importer, arithmetic on constants executed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.capture.builder import Unsupported
from edgekit.capture.onnx import (  # noqa: F401 (each registers its importers)
    activation,
    comparison,
    convolution,
    movement,
    pooling,
    recurrent,
    resize,
)
from edgekit.capture.onnx.builder import TEMPORARY, Builder, ErfTerm
from edgekit.capture.onnx.file import OnnxFile
from edgekit.capture.onnx.file import nodes as nodes_of
from edgekit.capture.onnx.quantization import filled
from edgekit.capture.onnx.registry import IMPORTERS, OnnxNode
from edgekit.capture.onnx.saturation import restore_activations
from edgekit.capture.quantized import Quantized
from edgekit.errors import CaptureError, GraphError
from edgekit.graph.check import check
from edgekit.graph.ir import Graph, Value

_DRAWS = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial"})
_MOVES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity"})


def import_onnx(file: OnnxFile, resolution: int | None = None) -> Graph:
    """The file's graph in our ops.

    Args:
        resolution: height and width of an image input whose sides the file leaves open, in pixels.
    Returns: a checked Graph, not yet proven; `quant` and `range` are set where the file quantizes.
    Raises: CaptureError naming every operator that cannot be imported and its node, or the open dimension.
    """
    importer = Importer(file, resolution)
    graph = importer.graph
    restore_activations(graph, importer.saturated)
    _join_bias(graph)
    graph.remove_dead()
    try:
        check(graph)
    except GraphError as error:
        raise CaptureError(f"[capture] {file.name}: {error}") from error
    return graph


class Importer(Builder):
    """Walks the nodes once; `env` holds a Value, an array (constant) or what an importer is building."""

    def __init__(self, file: OnnxFile, resolution: int | None) -> None:
        super().__init__(file.name, file.opset)
        self.file = file
        self.env: dict[str, Any] = {"": None, **file.initializers}
        self.names.update(file.outputs)
        self.constant_names = {id(array): name for name, array in file.initializers.items()}
        for name, shape in file.inputs.items():
            self.env[name] = self._input(name, self._fixed(name, shape, resolution))
        missing: dict[str, list[str]] = {}
        for node in file.nodes:
            self._import(node, missing)
        if missing:
            listing = "; ".join(f"{what} at {_places(where)}" for what, where in sorted(missing.items()))
            raise CaptureError(f"[capture] {file.name}: cannot import {listing}")
        self.graph.outputs = [self._output(name) for name in file.outputs]
        for name, value in zip(file.outputs, self.graph.outputs, strict=True):
            if value in self.producers and value.name not in file.outputs:  # a cast that is none passed it on
                value.name = name
        for value in self.producers:
            if value.name.startswith(TEMPORARY):
                value.name = self.name(value.name.removeprefix(TEMPORARY))

    def _input(self, name: str, shape: tuple[int, ...]) -> Value:
        """The graph's input; a picture is (1, C, H, W) and turned to what the file reads."""
        last = self.file.channels_last(name)
        value = Value(self.name(name), (shape[0], shape[3], *shape[1:3]) if last else shape)
        self.graph.inputs.append(value)
        return self.emit("permute", (value,), dims=(0, 2, 3, 1)) if last else value

    def _fixed(
        self, name: str, shape: tuple[int | str | None, ...], resolution: int | None
    ) -> tuple[int, ...]:
        """Batch 1, and the sides that were asked for."""
        fixed = [1 if i == 0 and not isinstance(d, int) else d for i, d in enumerate(shape)]
        heights = slice(1, 3) if self.file.channels_last(name) else slice(2, 4)
        if resolution is not None and len(fixed) == 4:
            fixed[heights] = [d if isinstance(d, int) else resolution for d in fixed[heights]]
        open_dims = [i for i, d in enumerate(fixed) if not isinstance(d, int)]
        if open_dims or not fixed:
            sides = len(fixed) == 4 and set(open_dims) <= set(range(4)[heights])
            cure = "--resolution PIXELS" if sides else "an export with static shapes"
            raise CaptureError(
                f"[capture] {self.file.name}: input {name} has the open shape {_spelled(shape)}: {cure}"
            )
        if fixed[0] != 1:
            raise CaptureError(
                f"[capture] {self.file.name}: input {name} is a batch of {fixed[0]}: export it with batch 1"
            )
        return tuple(int(d) for d in fixed if d is not None)

    def _output(self, name: str) -> Value:
        result = self.env.get(name)
        if isinstance(result, Quantized):  # integers leave the file; the graph's answers are real numbers
            return result.value
        if isinstance(result, ErfTerm) or result is None:
            raise CaptureError(f"[capture] {self.file.name}: output {name} cannot be expressed in the graph")
        return self.value(result)

    def _import(self, node: OnnxNode, missing: dict[str, list[str]]) -> None:
        self.node = node
        args = [self.env.get(name, _MISSING) for name in node.inputs]
        results: Any = [_MISSING] * len(node.outputs)
        try:
            if any(arg is _MISSING for arg in args):
                if node.op not in IMPORTERS and node.op not in ("If", "Constant"):
                    raise Unsupported(node.op)
            else:
                results = self._results(node, args, missing)
        except Unsupported as reason:
            missing.setdefault(_reason(node.op, str(reason)), []).append(node.name)
        for name, result in zip(node.outputs, results, strict=False):
            if name:
                self.env[name] = self._renamed(name, result)
                if isinstance(result, np.ndarray):
                    self.constant_names.setdefault(id(result), name)
                    self.keep_alive.append(result)

    def _results(self, node: OnnxNode, args: list[Any], missing: dict[str, list[str]]) -> Sequence[Any]:
        if node.op == "If" and isinstance(args[0], np.ndarray):
            branch = node.attrs["then_branch" if bool(args[0].reshape(-1)[0]) else "else_branch"]
            return self._branch(branch, missing)
        if node.op == "DequantizeLinear" or any(_is_symbolic(arg) for arg in args):
            if node.op in _MOVES and isinstance(args[0], Quantized):
                return (self._moved(node, args),)
            if node.op == "Pad" and isinstance(args[0], Quantized):
                return (self._moved(node, [*args[:2], filled(args[0], args[2:]), *args[3:]]),)
            if node.op not in IMPORTERS or any(isinstance(a, Quantized) for a in args[1:]):
                raise Unsupported(node.op)
            if isinstance(args[0], Quantized) and node.op != "DequantizeLinear":
                raise Unsupported(f"{node.op} of integers")
            if any(isinstance(a, ErfTerm) for a in args) and node.op not in ("Add", "Mul", "Div"):
                raise Unsupported("Erf (only within GELU)")
            try:
                result = IMPORTERS[node.op](self, node, *args)
            except GraphError as error:  # torch refuses what the operator's arguments ask for
                raise Unsupported(f"{node.op} ({error})") from error
            return result if isinstance(result, tuple) else (result,)
        if node.op in _DRAWS:
            raise Unsupported(f"{node.op} (random)")
        return self._executed(node, args)

    def _moved(self, node: OnnxNode, args: list[Any]) -> Quantized:
        """A view of integers is the view of the real numbers, with the same parameters."""
        result = IMPORTERS[node.op](self, node, args[0].value, *args[1:])
        result.quant, result.range = args[0].value.quant, args[0].value.range
        return Quantized(result)

    def _branch(self, branch: Any, missing: dict[str, list[str]]) -> list[Any]:
        from onnx.numpy_helper import to_array

        self.env.update({t.name: to_array(t) for t in branch.initializer})
        for node in nodes_of(branch):
            self._import(node, missing)
        return [self.env.get(output.name, _MISSING) for output in branch.output]

    def _executed(self, node: OnnxNode, args: list[Any]) -> Sequence[Any]:
        """A node without any picture in it, run by onnx's reference evaluator."""
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

        feeds = {name: arg for name, arg in zip(node.inputs, args, strict=True) if name}
        names = [name for name in node.outputs if name]
        inputs = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in feeds.items()
        ]
        outputs = [helper.make_empty_tensor_value_info(n) for n in names]
        graph = helper.make_graph([node.proto], "constants", inputs, outputs)
        model = helper.make_model(graph, opset_imports=self.file.model.opset_import)
        try:
            found = dict(zip(names, ReferenceEvaluator(model).run(None, feeds), strict=True))
        except Exception as error:  # the evaluator raises whatever numpy does
            raise Unsupported(f"{node.op} of constants") from error
        return [np.asarray(found[name]) if name else None for name in node.outputs]

    def _renamed(self, name: str, result: Any) -> Any:
        """The last value a node made takes the file's own name."""
        value = result.value if isinstance(result, Quantized) else result
        made = isinstance(value, Value) and value in self.producers and value.name.startswith(TEMPORARY)
        if made:
            self.names.discard(value.name)
            self.names.discard(name)
            value.name = self.name(name)
        return result


class _Missing:
    """The result of a node that could not be imported."""


_MISSING = _Missing()


def _is_symbolic(x: Any) -> bool:
    return isinstance(x, Value | Quantized | ErfTerm)


def _reason(op: str, reason: str) -> str:
    return reason if reason.startswith(op) else f"{op}: {reason}" if " " in reason else reason


def _spelled(shape: Sequence[int | str | None]) -> str:
    return f"({', '.join('?' if d is None else str(d) for d in shape)})"


def _places(names: list[str]) -> str:
    unique = list(dict.fromkeys(names))
    return ", ".join(unique[:3]) + (f" and {len(unique) - 3} more" if len(unique) > 3 else "")


def _join_bias(graph: Graph) -> None:
    """linear without bias, then add of one number a column -> the bias of the linear."""
    counts, producers = graph.use_counts(), graph.producers()
    for node in graph.nodes:
        if node.op != "add" or node.inputs[0] is None or node.inputs[1] is None:
            continue
        bias, product = node.inputs[1], producers.get(node.inputs[0])
        if product is None or product.op != "linear" or product.inputs[2] is not None:
            continue
        if counts[product.output] != 1 or product.output.quant is not None:
            continue
        if bias.data is None or bias.shape != (product.output.shape[-1],):
            continue
        node.op, node.attrs = "linear", {}
        node.inputs = [*product.inputs[:2], bias]
