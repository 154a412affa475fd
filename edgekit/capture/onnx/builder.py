"""A graph being built from ONNX nodes: names, shared constants, what importers are given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from edgekit.capture import builder
from edgekit.capture.builder import Unsupported
from edgekit.capture.onnx.registry import OnnxNode
from edgekit.capture.quantized import Quantized
from edgekit.graph.ir import Node, QuantParams, Value
from edgekit.graph.ops import PLACES
from edgekit.graph.shapes import infer_shapes

_WHOLE = frozenset({"greater", "greater_equal", "equal", "floor", "ceil", "round", "sign"})
TEMPORARY = "~"  # a name until the file's own is known


@dataclass(frozen=True)
class ErfTerm:
    """factor * x**power * (plus_one + erf(x / sqrt(2))): a GELU in the making."""

    x: Value
    plus_one: bool = False
    power: int = 0
    factor: float = 1.0


class Builder(builder.Builder):
    """Appends nodes to `graph`.

    opset: the file's, of the standard operators. node: the node that is being imported.
    """

    def __init__(self, name: str, opset: int) -> None:
        super().__init__(name)
        self.opset = opset
        self.parameters: dict[int, QuantParams] = {}
        self.turned: dict[int, np.ndarray] = {}
        self.saturated: list[Value] = []  # what a QuantizeLinear reads
        self.producers: dict[Value, Node] = {}
        self.node = OnnxNode("", "", (), ())

    def value(self, x: Any) -> Value:
        """A Value for a Value, array or number; the same array gives the same constant."""
        if isinstance(x, Value | torch.Tensor):
            return super().value(x)
        if not isinstance(x, np.ndarray):
            x = np.array(x, dtype=np.float32)
        if id(x) not in self.constants:
            name = self.name(self.constant_names.get(id(x)) or f"{self.node.name or 'model'}/constant")
            data = torch.from_numpy(np.array(x, dtype=np.float32 if x.dtype.kind == "f" else x.dtype))
            quant = self.parameters.get(id(x))
            dtype = str(data.dtype).removeprefix("torch.")
            self.constants[id(x)] = Value(name, tuple(data.shape), dtype, data, None, quant)
            self.keep_alive.append(x)
        return self.constants[id(x)]

    def emit_many(
        self, op: str, inputs: Iterable[Any], shapes: Iterable[Iterable[int]] | None = None, /, **attrs: Any
    ) -> list[Value]:
        given = list(inputs)
        if any(isinstance(x, Quantized | ErfTerm) for x in given):
            raise Unsupported(self.node.op)
        node = Node(op, [None if x is None else self.value(x) for x in given], [], attrs, self.node.name)
        stem = f"{TEMPORARY}{self.node.name}/{op}"
        node.outputs = [Value(self.name(stem), shape) for shape in infer_shapes(node)]
        self.producers.update(dict.fromkeys(node.outputs, node))
        self.graph.nodes.append(node)
        return node.outputs

    def reshape(self, x: Value, sizes: Iterable[int]) -> Value:
        """To `sizes`, recorded so that the leading dimension stays the batch's."""
        wanted = tuple(int(d) for d in sizes)
        return self.emit("reshape", (x,), shape=(-1, *wanted[1:]) if wanted else ())

    def is_whole(self, x: Value) -> bool:
        """Whether a value's numbers are whole by what made it."""
        node = self.producers.get(x)
        return node is not None and (node.op in PLACES or node.op in _WHOLE)

    def tensor(self, x: Any) -> Any:
        """A constant as torch's tensor, under its name; a Value as it is."""
        if isinstance(x, Value) or x is None:
            return x
        made = torch.from_numpy(np.array(x, dtype=np.float32 if x.dtype.kind == "f" else x.dtype))
        self.constant_names[id(made)] = self.constant_names.get(id(x)) or f"{self.node.name}/constant"
        self.keep_alive.append(made)
        return made

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

    def widened(self, array: np.ndarray) -> np.ndarray:
        """A weight (O, C, k) as (O, C, 1, k), with its quantization and its name."""
        wide = np.ascontiguousarray(array[:, :, None])
        if id(array) in self.constant_names:
            self.constant_names[id(wide)] = self.constant_names[id(array)]
        if id(array) in self.parameters:
            self.parameters[id(wide)] = self.parameters[id(array)]
        self.keep_alive += [array, wide]
        return wide

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
