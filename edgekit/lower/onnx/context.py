"""The state of one lowering: which tensor of the file holds each value, and the nodes so far.

A lowering function has the graph op's name, takes (context, node), reads its operands as float tensors, emits
nodes and returns the tensor that holds its result (or one a result). What is integer in the file follows from
the values alone: a quantized value gets its QuantizeLinear here, and each of its readers a DequantizeLinear
of its own, because runtimes recognise an integer operator by the pair that nothing else reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgekit.graph.ir import Graph, Node, QuantParams, Value
from edgekit.lower.onnx import constants
from edgekit.lower.table import Check, op_name, register
from edgekit.targets import Target

Result = str | Sequence[str]
Lowering = Callable[["Context", Node], Result]

LOWERINGS: dict[str, Lowering] = {}
CHECKS: dict[str, Check] = {}
INTEGER: dict[str, Callable[[Node], bool]] = {}  # op -> for which nodes ONNX Runtime computes in integers


def lowers(
    check: Check | None = None, *, integer: bool | Callable[[Node], bool] = False
) -> Callable[[Lowering], Lowering]:
    """Register the lowering of the op the function is named after.

    check: says in a few words why a node cannot be lowered and what would be, or None.
    integer: whether ONNX Runtime's CPU kernels compute it on integers, possibly in the pieces of
        `prepare.expand_gates`; else it runs in float between conversions.
    """

    def enter(fn: Lowering) -> Lowering:
        if integer:
            INTEGER[op_name(fn)] = integer if callable(integer) else lambda _node: True
        return register(fn, LOWERINGS, CHECKS, check)

    return enter


@dataclass(eq=False)
class Operator:
    """One node of the file and the graph node it came from; node_index -1 for conversions at the edges."""

    op_type: str
    inputs: list[str]
    outputs: list[str]
    attrs: dict[str, Any]
    source: str = ""
    graph_op: str = ""
    node_index: int = -1


@dataclass(eq=False)
class Context:
    """dynamic: the first dimension of everything that depends on the input is left open."""

    graph: Graph
    target: Target
    dynamic: bool = False
    operators: list[Operator] = field(default_factory=list)
    initializers: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.node: Node | None = None
        self.node_index = -1
        self.floats: dict[Value, str] = {}  # value -> its float tensor, where the file has one to read
        self.integers: dict[Value, str] = {}  # quantized value -> its integer tensor
        self.renamed: dict[str, str] = {}
        self._whole: set[str] = set()  # results of lowerings that are integers already
        self.batched: set[Value] = set(self.graph.inputs)  # what depends on an input
        self._names: set[str] = {value.name for value in self.graph.values()}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    # walking
    def run(self) -> None:
        """Lower every node in order."""
        for index, node in enumerate(self.graph.nodes):
            self.node, self.node_index = node, index
            if self.batched & set(node.operands):
                self.batched.update(node.outputs)
            found = LOWERINGS[node.op](self, node)
            tensors = [found] if isinstance(found, str) else list(found)
            for value, tensor in zip(node.outputs, tensors, strict=True):
                self._bind(value, tensor)

    def emit(self, op_type: str, *inputs: str | None, outputs: int = 1, **attrs: Any) -> str:
        """Append a node; the name of its (first) result. Attributes that are None are left out."""
        return self.emit_many(op_type, *inputs, outputs=outputs, **attrs)[0]

    def emit_many(self, op_type: str, *inputs: str | None, outputs: int, **attrs: Any) -> list[str]:
        node = self.node
        stem = node.output.name if node else "graph"
        results = [self.fresh_name(f"{stem}/{op_type}") for _ in range(outputs)]
        given = [name or "" for name in inputs]
        while given and not given[-1]:
            given.pop()
        kept = {key: value for key, value in attrs.items() if value is not None}
        self.operators.append(
            Operator(
                op_type,
                given,
                results,
                kept,
                source=node.source if node else "",
                graph_op=node.op if node else "",
                node_index=self.node_index,
            )
        )
        return results

    def _bind(self, value: Value, tensor: str) -> None:
        """`value` is `tensor`; a quantized one is rounded to its grid first."""
        if value.quant is None:
            known = tensor in self.initializers or tensor in self.renamed or tensor in self.floats.values()
            if not known and tensor not in self._names_of_values():
                self.renamed[tensor] = value.name
            self.floats[value] = tensor
            return
        if tensor in self._whole:
            self.renamed[tensor] = self.fresh_name(f"{value.name}/quantized")
            self.integers[value] = tensor
            return
        self.integers[value] = self.quantized(tensor, value.quant, f"{value.name}/quantized")

    def already_integer(self, tensor: str) -> str:
        """Say of a lowering's result that it lies on the grid of its value, as integers."""
        self._whole.add(tensor)
        return tensor

    def _names_of_values(self) -> set[str]:
        return {value.name for value in self.graph.inputs}

    # tensors
    def fresh_name(self, stem: str) -> str:
        name, count = stem, 0
        while name in self._names:
            count += 1
            name = f"{stem}_{count}"
        self._names.add(name)
        return name

    def constant(self, stem: str, data: np.ndarray) -> str:
        """An initializer; equal small ones are one."""
        data = np.asarray(data, order="C")
        if data.size > constants.SMALL:
            name = self.fresh_name(stem)
            self.initializers[name] = data
            return name
        key = (str(data.dtype), data.shape, data.tobytes())
        if key not in self._constants:
            self._constants[key] = self.fresh_name(stem)
            self.initializers[self._constants[key]] = data
        return self._constants[key]

    def scalar(self, number: float) -> str:
        return self.constant("number", np.array(number, np.float32))

    def shape(self, sizes: Sequence[int]) -> str:
        return self.constant("sizes", np.array(sizes, np.int64))

    def read(self, value: Value) -> str:
        """A float tensor that holds `value`."""
        if value.is_constant:
            return self.parameter(value.name, constants.as_numpy(value), value.quant)
        if value in self.integers:
            assert value.quant is not None
            return self.dequantized(self.integers[value], value.quant)
        return self.floats[value]

    def operands(self, node: Node) -> list[str]:
        return [self.read(value) for value in node.operands]

    def first(self, node: Node) -> str:
        """The first operand."""
        return self.read(node.operands[0])

    def parameter(self, stem: str, data: np.ndarray, quant: QuantParams | None) -> str:
        """A constant as the file holds it: float, or integers behind a DequantizeLinear."""
        if quant is None:
            return self.constant(stem, data.astype(np.float32) if data.dtype.kind == "f" else data)
        form = quant if quant.axis is not None else constants.stored_as(quant, self.target)
        return self.dequantized(self.constant(stem, constants.quantize(data, form)), form)

    def quantized(self, tensor: str, quant: QuantParams, name: str) -> str:
        form = constants.stored_as(quant, self.target)
        result = self.emit("QuantizeLinear", tensor, *self._grid(form))
        self.renamed[result] = self.fresh_name(name)
        return result

    def dequantized(self, tensor: str, quant: QuantParams) -> str:
        form = quant if quant.axis is not None else constants.stored_as(quant, self.target)
        axis = form.axis if len(form.scale) > 1 else None
        return self.emit("DequantizeLinear", tensor, *self._grid(form), axis=axis)

    def _grid(self, quant: QuantParams) -> tuple[str, str]:
        """The initializers of a scale and a zero point."""
        scale = np.array(quant.scale, np.float32)
        zero_point = np.array(quant.zero_point, quant.dtype)
        if scale.size == 1:
            scale, zero_point = scale.reshape(()), zero_point.reshape(())
        return self.constant("scale", scale), self.constant("zero_point", zero_point)

    def batch(self) -> str:
        """The number of images in this run, (1,) int64."""
        return self.emit("Shape", self.graph.inputs[0].name, start=0, end=1)
