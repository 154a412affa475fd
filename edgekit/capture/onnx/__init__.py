"""An ONNX file of another framework -> Graph.

Enters: a path to a float32 or QDQ model (opset 7 to 26). Leaves: a checked Graph of high-level ops in
NCHW, whose values keep the file's tensor names and whose `source` is the file's node name. Arithmetic on
shapes and constants is executed; Quantize/DequantizeLinear pairs become annotations. `prove` holds the graph
against a runtime's answers.

    registry        the table of importers          convolution   convolutions, products, normalisation
    file            reading and refusing files      activation    activations, arithmetic
    quantization    Q/DQ pairs                      pooling, movement, resize
    saturation      activations folded into Q
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from edgekit.capture.onnx import activation, convolution, movement, pooling, resize  # noqa: F401
from edgekit.capture.onnx.activation import ErfTerm
from edgekit.capture.onnx.file import OnnxFile, read
from edgekit.capture.onnx.file import nodes as nodes_of
from edgekit.capture.onnx.quantization import Quantized, fake_quantize, filled
from edgekit.capture.onnx.registry import IMPORTERS, OnnxNode, Unsupported
from edgekit.capture.onnx.saturation import restore_activations
from edgekit.capture.prove import RELATIVE_TOLERANCE, find_batchable, relative_error
from edgekit.errors import CaptureError, GraphError
from edgekit.graph.check import check
from edgekit.graph.ir import Graph, Node, QuantParams, Value
from edgekit.graph.run import run
from edgekit.graph.shapes import infer_shapes

__all__ = ["OnnxFile", "import_onnx", "is_quantized", "prove", "read"]

QUANTIZED_TOLERANCE = 0.02  # root mean square: integers that flip in one layer move those after it
_DRAWS = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial"})
_MOVES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity"})

Reference = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]


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


def is_quantized(graph: Graph) -> bool:
    """Did the file bring quantization parameters?"""
    return any(value.quant is not None for value in graph.values())


def prove(graph: Graph, file: OnnxFile, reference: Reference | None = None) -> float:
    """Hold the graph against a runtime on one seeded picture; sets `graph.batchable`.

    Args:
        reference: one array per input -> one per output; onnx's own reference evaluator when None.
    Returns: the largest error relative to the largest output (of a quantized graph: root mean square).
    Raises: CaptureError when it is above 1e-4 (quantized: 2e-2).
    """
    generator = torch.Generator().manual_seed(0)
    examples = [torch.randn(value.shape, generator=generator) for value in graph.inputs]
    expected = (reference or _evaluator(file))([x.numpy() for x in examples])
    quantized = is_quantized(graph)
    worst, limit = 0.0, QUANTIZED_TOLERANCE if quantized else RELATIVE_TOLERANCE
    with torch.no_grad():
        got = run(graph, examples, fake_quantize if quantized else None)
        for value, a, b in zip(graph.outputs, got, expected, strict=True):
            wanted = torch.from_numpy(np.array(b, dtype=np.float32))
            error = _rms(a, wanted) if quantized else relative_error(a, wanted)
            if not error <= limit:
                raise CaptureError(
                    f"[capture] {graph.name}: output {value.name} differs from the file's own "
                    f"by {error:.1e}: at most {limit:.0e} relative"
                )
            worst = max(worst, error)
        graph.batchable = find_batchable(graph, examples, got if not quantized else run(graph, examples))
    return worst


def _rms(a: torch.Tensor, b: torch.Tensor) -> float:
    if a.shape != b.shape:
        return float("inf")
    return float((a - b).square().mean().sqrt() / b.square().mean().sqrt().clamp_min(1e-12))


def _evaluator(file: OnnxFile) -> Reference:
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.ops.op_dequantize_linear import DequantizeLinear_19
    from onnx.reference.ops.op_quantize_linear import QuantizeLinear_19

    def of_any_opset(name: str, kind: type) -> type:
        """The evaluator knows these two from opset 19 only; 13's are the same, with fewer dtypes."""

        def compute(self: Any, *args: Any, axis: int | None = None, **_newer: Any) -> Any:
            return kind._run(self, *args, axis=axis)  # type: ignore[attr-defined]

        return type(name, (kind,), {"op_domain": "", "_run": compute})

    old = [
        of_any_opset("DequantizeLinear", DequantizeLinear_19),
        of_any_opset("QuantizeLinear", QuantizeLinear_19),
    ]
    session = ReferenceEvaluator(file.model, new_ops=old if file.opset < 19 else None)
    return lambda arrays: session.run(None, dict(zip(file.inputs, arrays, strict=True)))  # type: ignore[return-value]


class Importer:
    """Walks the nodes once; `env` holds a Value, an array (constant) or what an importer is building."""

    def __init__(self, file: OnnxFile, resolution: int | None) -> None:
        self.file, self.opset = file, file.opset
        self.graph = Graph([], [], [], file.name)
        self.env: dict[str, Any] = {"": None, **file.initializers}
        self.names: set[str] = set(file.outputs)
        self.constants: dict[int, Value] = {}
        self.constant_names = {id(array): name for name, array in file.initializers.items()}
        self.parameters: dict[int, QuantParams] = {}
        self.turned: dict[int, np.ndarray] = {}
        self.saturated: list[Value] = []  # what a QuantizeLinear reads
        self.producers: dict[Value, Node] = {}
        self.keep_alive: list[Any] = []
        self.node = OnnxNode("", "", (), ())
        for name, shape in file.inputs.items():
            value = Value(self._name(name), self._fixed(name, shape, resolution))
            self.env[name] = value
            self.graph.inputs.append(value)
        missing: dict[str, list[str]] = {}
        for node in file.nodes:
            self._import(node, missing)
        if missing:
            listing = "; ".join(f"{what} at {_places(where)}" for what, where in sorted(missing.items()))
            raise CaptureError(f"[capture] {file.name}: cannot import {listing}")
        self.graph.outputs = [self._output(name) for name in file.outputs]
        for value in self.producers:
            if value.name.startswith(_TEMPORARY):
                value.name = self._name(value.name.removeprefix(_TEMPORARY))

    def _fixed(
        self, name: str, shape: tuple[int | str | None, ...], resolution: int | None
    ) -> tuple[int, ...]:
        """Batch 1, and the sides that were asked for."""
        fixed = [1 if i == 0 and not isinstance(d, int) else d for i, d in enumerate(shape)]
        if resolution is not None and len(fixed) == 4:
            fixed[2:] = [d if isinstance(d, int) else resolution for d in fixed[2:]]
        open_dims = [i for i, d in enumerate(fixed) if not isinstance(d, int)]
        if open_dims or not fixed:
            sides = len(fixed) == 4 and set(open_dims) <= {2, 3}
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
        made = isinstance(value, Value) and value in self.producers and value.name.startswith(_TEMPORARY)
        if made:
            self.names.discard(value.name)
            self.names.discard(name)
            value.name = self._name(name)
        return result

    # what importers use
    def _name(self, stem: str) -> str:
        name, i = stem, 0
        while name in self.names:
            i += 1
            name = f"{stem}_{i}"
        self.names.add(name)
        return name

    def value(self, x: Any) -> Value:
        """A Value for a Value, array or number; the same array gives the same constant."""
        if isinstance(x, Value):
            return x
        if not isinstance(x, np.ndarray):
            x = np.array(x, dtype=np.float32)
        if id(x) not in self.constants:
            name = self._name(self.constant_names.get(id(x)) or f"{self.node.name or 'model'}/constant")
            data = torch.from_numpy(np.array(x, dtype=np.float32 if x.dtype.kind == "f" else x.dtype))
            quant = self.parameters.get(id(x))
            dtype = str(data.dtype).removeprefix("torch.")
            self.constants[id(x)] = Value(name, tuple(data.shape), dtype, data, None, quant)
            self.keep_alive.append(x)
        return self.constants[id(x)]

    def emit(self, op: str, inputs: Iterable[Any], /, **attrs: Any) -> Value:
        """Append a node with one output; its shape comes from running it on meta tensors."""
        return self.emit_many(op, inputs, **attrs)[0]

    def emit_many(self, op: str, inputs: Iterable[Any], /, **attrs: Any) -> list[Value]:
        given = list(inputs)
        if any(isinstance(x, Quantized | ErfTerm) for x in given):
            raise Unsupported(self.node.op)
        node = Node(op, [None if x is None else self.value(x) for x in given], [], attrs, self.node.name)
        stem = f"{_TEMPORARY}{self.node.name}/{op}"
        node.outputs = [Value(self._name(stem), shape) for shape in infer_shapes(node)]
        self.producers.update(dict.fromkeys(node.outputs, node))
        self.graph.nodes.append(node)
        return node.outputs

    def reshape(self, x: Value, sizes: Iterable[int]) -> Value:
        """To `sizes`, recorded so that the leading dimension stays the batch's."""
        wanted = tuple(int(d) for d in sizes)
        return self.emit("reshape", (x,), shape=(-1, *wanted[1:]) if wanted else ())

    def remember(self, array: np.ndarray, params: QuantParams) -> None:
        """`array` came out of integers with these parameters."""
        self.parameters[id(array)] = params
        self.keep_alive.append(array)

    def transposed(self, array: np.ndarray) -> np.ndarray:
        """A matrix the other way round: one array for each, with its quantization and its name."""
        if id(array) not in self.turned:
            turned = np.ascontiguousarray(array.T)
            if id(array) in self.constant_names:
                self.constant_names[id(turned)] = self.constant_names[id(array)]
            if (p := self.parameters.get(id(array))) is not None:
                axis = None if p.axis is None else array.ndim - 1 - p.axis
                self.parameters[id(turned)] = QuantParams(p.scale, p.zero_point, p.dtype, axis)
            self.keep_alive += [array, turned]
            self.turned[id(array)] = turned
        return self.turned[id(array)]

    def scaled(self, x: Any) -> tuple[Value, float] | None:
        """(y, factor) where x was computed as y * factor or y / (1 / factor)."""
        node = self.producers.get(x) if isinstance(x, Value) else None
        if node is None or node.op not in ("mul", "div") or node.inputs[0] is None:
            return None
        other = node.inputs[1]
        if other is None or other.data is None or other.data.numel() != 1:
            return None
        factor = float(other.data.reshape(()))
        return node.inputs[0], factor if node.op == "mul" else 1 / factor


_TEMPORARY = "~"


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
