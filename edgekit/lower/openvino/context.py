"""The state of one lowering: which output of the model holds each value, and the operators so far.

A lowering function has the graph op's name, takes (context, node), reads its operands as float outputs, emits
operators and returns the output that holds its result (or one a result). What is integer in the file follows
from the values alone: a quantized value gets its FakeQuantize here, unless its producer only moves numbers
that already lie on the same grid. A clamp that stands for the unrounded FakeQuantize of an addition in place
(`prepare.sum_in_place`) becomes one too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgekit.graph.ir import Graph, Node, QuantParams, Value
from edgekit.graph.ops import MOVES, OPS
from edgekit.lower.lowered import LoweredOp
from edgekit.lower.openvino import constants
from edgekit.lower.openvino.runtime import opset
from edgekit.lower.table import Check, op_name, register
from edgekit.targets import Target

Output = Any  # openvino.Output: the package is not there at import
Result = Output | Sequence[Output]
Lowering = Callable[["Context", Node], Result]

LOWERINGS: dict[str, Lowering] = {}
CHECKS: dict[str, Check] = {}
FUSED: set[str] = set()  # what the CPU plugin computes inside the kernel of the convolution before it


def lowers(check: Check | None = None, *, fused: bool = False) -> Callable[[Lowering], Lowering]:
    """Register the lowering of the op the function is named after.

    check: says in a few words why a node cannot be lowered and what would be, or None.
    fused: whether the CPU plugin computes it inside the kernel of the convolution before it.
    """

    def enter(fn: Lowering) -> Lowering:
        if fused:
            FUSED.add(op_name(fn))
        return register(fn, LOWERINGS, CHECKS, check)

    return enter


def moves_grids(op: str) -> bool:
    """Whether the runtime carries the grid of the input through: only no element-wise operator lets it."""
    return op in MOVES and OPS[op].channels != "join"


def moves_codes(node: Node) -> bool:
    """Whether the outputs lie on the inputs' grid without being rounded again."""
    if not moves_grids(node.op) or (node.op == "pad" and node.attrs.get("value")):
        return False
    quants = {value.quant for value in (*node.operands, *node.outputs)}
    return len(quants) == 1 and not any(value.is_constant for value in node.operands)


@dataclass(eq=False)
class Context:
    """dynamic: the first dimension of everything that depends on the input is left open."""

    graph: Graph
    target: Target
    dynamic: bool = False
    operators: list[LoweredOp] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ops = opset()
        self.node: Node | None = None
        self.node_index = -1
        self.held: dict[Value, Output] = {}
        self.tensors: dict[str, str] = {}
        self.batched: set[Value] = set(self.graph.inputs)  # what depends on an input
        self.users = self.graph.users()
        self._names: set[str] = set()
        self._parameters: dict[tuple[Value, tuple[int, ...]], Output] = {}

    # walking
    def run(self) -> None:
        """Lower every node in order."""
        for index, node in enumerate(self.graph.nodes):
            self.node, self.node_index = node, index
            if self.batched & set(node.operands):
                self.batched.update(node.outputs)
            found = LOWERINGS[node.op](self, node)
            results = list(found) if isinstance(found, list | tuple) else [found]
            for value, output in zip(node.outputs, results, strict=True):
                if value.quant is not None and not moves_codes(node):
                    output = self.fake_quantized(output, value.quant)
                self.bind(value, output)

    def bind(self, value: Value, output: Output) -> None:
        """`value` is `output`, and the file calls it so."""
        name = value.name if value not in self.graph.inputs else f"{value.name}/quantized"
        output.get_tensor().add_names({name})
        self.held[value] = output
        self.tensors[value.name] = name

    def emit(self, op: str, *inputs: Any, **attrs: Any) -> Output:
        """Append an operator, by its name in the opset; its first output."""
        return self.emit_many(op, *inputs, **attrs)[0]

    def emit_many(self, op: str, *inputs: Any, **attrs: Any) -> list[Output]:
        made = getattr(self.ops, op)(*inputs, **attrs)
        node = self.node
        kind = made.get_type_name()
        name = self.name(made, f"{(node.source or node.op) if node else 'graph'}/{kind}")
        for i in range(made.get_input_size()):  # numbers and lists among the inputs became constants
            origin = made.input_value(i).get_node()
            if origin.get_friendly_name() not in self._names:
                self.name(origin, f"{name}/{i}")
        results = list(made.outputs())
        self.operators.append(
            LoweredOp(
                kind,
                node.op if node else "",
                node.source if node else "",
                self.node_index,
                tuple(value.name for value in node.outputs) if node else (),
                name,
            )
        )
        return results

    def name(self, made: Any, stem: str) -> str:
        """Give an operator a name of its own, so that no counter of the process reaches the file."""
        name, count = stem, 0
        while name in self._names:
            count += 1
            name = f"{stem}_{count}"
        self._names.add(name)
        made.set_friendly_name(name)
        return name

    # constants
    def constant(self, stem: str, data: np.ndarray) -> Output:
        made = self.ops.constant(np.array(data, order="C"))
        self.name(made, stem)
        return made.output(0)

    def floats(self, stem: str, data: np.ndarray) -> Output:
        """Float numbers as this target stores them."""
        if data.dtype.kind != "f":
            return self.constant(stem, data)
        data = data.astype(np.float32)
        if self.target.weights == "float16" and constants.fits_half(data):
            return self.emit("convert", self.constant(stem, data.astype(np.float16)), "f32")
        return self.constant(stem, data)

    def numbers(self, numbers: Sequence[float]) -> Output:
        name = f"{self.node.source or self.node.op}/numbers" if self.node else "numbers"
        return self.constant(name, np.array(numbers, np.float32))

    def scalar(self, number: float) -> Output:
        name = f"{self.node.source or self.node.op}/number" if self.node else "number"
        return self.constant(name, np.array(number, np.float32))

    def sizes(self, numbers: Sequence[int]) -> Output:
        name = f"{self.node.source or self.node.op}/sizes" if self.node else "sizes"
        return self.constant(name, np.array(numbers, np.int64))

    def parameter(self, value: Value, shape: tuple[int, ...] | None = None) -> Output:
        """A constant as the file holds it: float, or int8 behind Convert and Multiply; reshaped if asked."""
        shape = shape or value.shape
        if (value, shape) not in self._parameters:
            self._parameters[value, shape] = self._stored(value, shape)
        return self._parameters[value, shape]

    def _stored(self, value: Value, shape: tuple[int, ...]) -> Output:
        data = constants.as_numpy(value)
        if value.quant is None:
            return self.floats(value.name, data.reshape(shape))
        scale = np.broadcast_to(constants.scales(value.quant, data.ndim), data.shape).reshape(shape)
        scale = _without_repeats(scale)
        integers = self.constant(value.name, constants.quantize(data, value.quant).reshape(shape))
        factors = self.constant(f"{value.name}/scale", scale)
        return self.emit("multiply", self.emit("convert", integers, "f32"), factors)

    # values
    def read(self, value: Value) -> Output:
        """A float output that holds `value`."""
        return self.parameter(value) if value.is_constant else self.held[value]

    def operands(self, node: Node) -> list[Output]:
        return [self.read(value) for value in node.operands]

    def first(self, node: Node) -> Output:
        return self.read(node.operands[0])

    def fake_quantized(self, output: Output, quant: QuantParams) -> Output:
        return self.rounded_within(output, *constants.bounds(quant))

    def rounded_within(self, output: Output, *bounds: float) -> Output:
        """A FakeQuantize to 256 numbers from low to high."""
        low, high = (np.array(bound, np.float32) for bound in bounds)
        return self.emit("fake_quantize", output, low, high, low, high, 256)

    def summed_in_place(self, value: Value) -> bool:
        """Whether a float is added to integers: only `prepare.sum_in_place` leaves such an addition."""
        readers = self.users.get(value, [])
        return len(readers) == 1 and readers[0].op == "add" and _is_mixed(readers[0])

    def batch(self) -> Output:
        """The number of images in this run, (1,) int64."""
        shape = self.emit("shape_of", self.held_input(), "i64")
        return self.emit("gather", shape, np.array([0], np.int64), np.array(0, np.int64))

    def held_input(self) -> Output:
        return self.held[self.graph.inputs[0]]


def _is_mixed(node: Node) -> bool:
    return len({value.quant is None for value in node.operands}) == 2


def _without_repeats(scale: np.ndarray) -> np.ndarray:
    """Axes along which nothing changes, cut to one."""
    for axis in range(scale.ndim):
        head = scale.take([0], axis)
        if bool((scale == head).all()):
            scale = head
    return scale
