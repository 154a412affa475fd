"""The state of one lowering: which tensor holds each value, in which layout, and the operators so far.

A lowering function has the graph op's name and takes (context, node). It reads its operands in the layout it
wants, asks for a tensor to write its result into, and emits operators between them. What is float in the file
and what is integer follows from the values: a float operator that produces a quantized value gets its
QUANTIZE here, and reading a quantized value as float puts a DEQUANTIZE in front, one per reader, because
the runtime folds DEQUANTIZE - operator - QUANTIZE into one table only if nothing else reads what lies
between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgekit.graph.ir import Graph, Node, QuantParams, Value
from edgekit.lower.table import Check, register
from edgekit.lower.tflite import constants, layout
from edgekit.lower.tflite.builder import Operator, Tensor
from edgekit.lower.tflite.layout import NHWC, Perm, RemainingTranspose
from edgekit.targets import Target

Lowering = Callable[["Context", Node], None]

LOWERINGS: dict[str, Lowering] = {}
CHECKS: dict[str, Check] = {}


def lowers(check: Check | None = None) -> Callable[[Lowering], Lowering]:
    """Register the lowering of the op the function is named after.

    check: says in a few words why a node cannot be lowered and what would be, or None.
    """

    return lambda fn: register(fn, LOWERINGS, CHECKS, check)


@dataclass
class Context:
    """exposed: values somebody wants to read from the outside, so that none of them may be fused away."""

    graph: Graph
    target: Target
    exposed: frozenset[Value] = frozenset()
    operators: list[Operator] = field(default_factory=list)
    certificate: list[RemainingTranspose] = field(default_factory=list)
    stored: dict[Value, tuple[Tensor, Perm]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.node: Node | None = None
        self.node_index = -1
        self.users = self.graph.users()
        self.producers = self.graph.producers()
        self.use_counts = self.graph.use_counts()
        self.joined: dict[tuple[Any, ...], Tensor] = {}  # (axis, piece, piece, ...) -> their concatenation
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._transposed: dict[tuple[Value, Perm], Tensor] = {}
        self._names: set[str] = {value.name for value in self.graph.values()}

    def exposed_in_order(self) -> list[Value]:
        return [value for value in self.graph.values() if value in self.exposed]

    # walking
    def run(self) -> None:
        """Lower every node in order."""
        for index, node in enumerate(self.graph.nodes):
            self.node, self.node_index = node, index
            LOWERINGS[node.op](self, node)
            for source, result in self._pending:
                self.emit("QUANTIZE", [source], [result])
            self._pending.clear()

    def emit(
        self, name: str, inputs: list[Tensor | None], outputs: list[Tensor], options: Any = None
    ) -> None:
        node = self.node
        self.operators.append(
            Operator(
                name,
                inputs,
                outputs,
                options,
                source=node.source if node else "",
                graph_op=node.op if node else "",
                node_index=self.node_index,
            )
        )

    # tensors
    def fresh_name(self, stem: str) -> str:
        name, count = stem, 0
        while name in self._names:
            count += 1
            name = f"{stem}_{count}"
        self._names.add(name)
        return name

    def temporary(
        self, stem: str, shape: tuple[int, ...], dtype: str = "float32", quant: QuantParams | None = None
    ) -> Tensor:
        """A tensor that holds no value of the graph."""
        return Tensor(self.fresh_name(stem), tuple(shape), dtype, None, quant)

    def like(self, tensor: Tensor, stem: str, shape: tuple[int, ...] | None = None) -> Tensor:
        """A temporary of the same type and quantization."""
        return self.temporary(stem, shape or tensor.shape, tensor.dtype, tensor.quant)

    def constant(self, stem: str, data: np.ndarray, quant: QuantParams | None = None) -> Tensor:
        return Tensor(
            self.fresh_name(stem), tuple(data.shape), str(data.dtype), np.ascontiguousarray(data), quant
        )

    def weight(self, stem: str, data: np.ndarray) -> Tensor:
        """A float constant; stored as float16 behind a DEQUANTIZE where the target's weights are float16."""
        if self.target.weights != "float16":
            return self.constant(stem, data.astype(np.float32))
        half = self.constant(stem, data.astype(np.float16))
        full = self.temporary(f"{stem}/float32", half.shape)
        self.emit("DEQUANTIZE", [half], [full])
        return full

    # layouts
    def perm(self, value: Value) -> Perm:
        """How `value` lies now; constants lie as they are."""
        return layout.identity(len(value.shape)) if value.is_constant else self.stored[value][1]

    def preferred(self, *values: Value | None) -> Perm:
        """The layout of the largest of these values that is no constant."""
        real = [v for v in values if v is not None and not v.is_constant]
        largest = max(real, key=lambda v: (len(v.shape), int(np.prod(v.shape))))
        return self.perm(largest)

    def read(self, value: Value, perm: Perm | None = None, *, as_float: bool = False) -> Tensor:
        """The tensor of `value` in layout `perm` (None: as it lies), as float if asked for."""
        if value.is_constant:
            return self._constant_operand(value, perm, as_float)
        tensor, have = self.stored[value]
        if perm is not None and have != perm:
            tensor = self._in_layout(value, tensor, have, perm)
        if as_float and tensor.dtype != "float32":
            return self.dequantized(tensor)
        return tensor

    def read_as(self, value: Value, quant: QuantParams | None, perm: Perm | None = None) -> Tensor:
        """The tensor of `value` carrying exactly `quant`; another scale is exchanged through float, which
        rounds correctly where an integer QUANTIZE is off by one. Between int8 and int16 it is an integer
        QUANTIZE all the same: it differs in ties alone, and needs no tensor of floats.
        """
        if quant is None:
            return self.read(value, perm, as_float=True)
        if value.is_constant:
            assert value.data is not None
            data = constants.as_numpy(value)
            data = data.transpose(perm) if perm else data
            return self.constant(value.name, constants.quantize(data, quant), quant)
        tensor = self.read(value, perm)
        if tensor.quant == quant:
            return tensor
        if tensor.dtype == quant.dtype:
            tensor = self.dequantized(tensor)
        return self.quantized(tensor, quant)

    def dequantized(self, tensor: Tensor) -> Tensor:
        floating = self.temporary(f"{tensor.name}/float", tensor.shape)
        self.emit("DEQUANTIZE", [tensor], [floating])
        return floating

    def quantized(self, tensor: Tensor, quant: QuantParams) -> Tensor:
        result = self.temporary(f"{tensor.name}/quantized", tensor.shape, quant.dtype, quant)
        self.emit("QUANTIZE", [tensor], [result])
        return result

    def write(self, value: Value, perm: Perm, *, integer: bool) -> Tensor:
        """The tensor to compute `value` into; a float result of a quantized value is quantized afterwards."""
        shape = layout.apply(perm, value.shape)
        if value.quant is None:
            result = Tensor(value.name, shape, value.dtype)
        else:
            result = Tensor(value.name, shape, value.quant.dtype, None, value.quant)
        self.stored[value] = (result, perm)
        if value.quant is None or integer:
            return result
        floating = self.temporary(f"{value.name}/float", shape)
        self._pending.append((floating, result))
        return floating

    def alias(self, value: Value, tensor: Tensor, perm: Perm) -> None:
        """`value` is `tensor`, seen through `perm`; nothing is emitted."""
        self.stored[value] = (tensor, perm)

    def integer(self, node: Node, *operands: Value | None) -> bool:
        """Whether the node can run in integers: its results and these operands (all by default) are
        quantized.
        """
        values = [v for v in (operands or tuple(node.operands)) if v is not None]
        return all(v.quant is not None for v in (*values, *node.outputs))

    def computes_in(self, node: Node) -> str:
        """The type of a node's result, which is the one it computes in."""
        return node.output.quant.dtype if node.output.quant is not None else "float32"

    def _in_layout(self, value: Value, tensor: Tensor, have: Perm, want: Perm) -> Tensor:
        key = (value, want)
        if key not in self._transposed:
            shape = layout.apply(want, value.shape)
            result = self.like(tensor, f"{value.name}/layout", shape)
            if layout.moves_nothing(value.shape, have, want):
                self.reshape(tensor, result)
            else:
                self.transpose(tensor, result, layout.between(have, want), value.name)
            self._transposed[key] = result
        return self._transposed[key]

    def reshape(self, tensor: Tensor, result: Tensor) -> None:
        shape = self.constant("shape", np.array(result.shape, np.int32))
        self.emit("RESHAPE", [tensor, shape], [result], constants.reshape_options(result.shape))

    def transpose(self, tensor: Tensor, result: Tensor, permutation: Perm, cause: str) -> None:
        self.emit("TRANSPOSE", [tensor, self.constant("perm", np.array(permutation, np.int32))], [result])
        node = self.node
        self.certificate.append(
            RemainingTranspose(
                node.source if node else "", node.op if node else "", cause, tensor.shape, permutation
            )
        )

    def _constant_operand(self, value: Value, perm: Perm | None, as_float: bool) -> Tensor:
        data = constants.as_numpy(value)
        data = data.transpose(perm) if perm else data
        if as_float or value.quant is None:
            return self.constant(value.name, data)
        return self.constant(value.name, constants.quantize(data, value.quant), value.quant)


__all__ = ["CHECKS", "LOWERINGS", "NHWC", "Context", "lowers"]
