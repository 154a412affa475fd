"""What edgetpu_compiler 16 maps to the Edge TPU, as data: its operators, and rules with the words for each.

From https://coral.ai/docs/edgetpu/models-intro/#supported-operations (runtime 14, the last). A rule looks at
one operator and says what of it the Edge TPU cannot take, or nothing. Dimensions are counted from the
innermost, as on that page: z is the last, then x, then y; what lies outside them is the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgekit.lower.tflite.reader import Operator, Subgraph, Tensor

_NAMES = """
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS FULLY_CONNECTED L2_NORMALIZATION
LOGISTIC LSTM MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PACK PAD PRELU QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6
RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT SLICE SOFTMAX SPACE_TO_DEPTH SPLIT
SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM TANH TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM
"""
OPERATORS = frozenset(_NAMES.split())
# operator -> operands that are parameters: weights, biases, axes, shapes
PARAMETERS: dict[str, tuple[int, ...]] = {
    "CONV_2D": (1, 2),
    "DEPTHWISE_CONV_2D": (1, 2),
    "EXPAND_DIMS": (1,),
    "FULLY_CONNECTED": (1, 2),
    "MEAN": (1,),
    "PAD": (1,),
    "PRELU": (1,),
    "REDUCE_MAX": (1,),
    "REDUCE_MIN": (1,),
    "RESHAPE": (1,),
    "RESIZE_BILINEAR": (1,),
    "RESIZE_NEAREST_NEIGHBOR": (1,),
    "SLICE": (1, 2),
    "SPLIT": (0,),
    "STRIDED_SLICE": (1, 2, 3),
    "SUM": (1,),
    "TRANSPOSE": (1,),
    "TRANSPOSE_CONV": (0, 1, 3),
}
_EIGHT_BIT = ("int8", "uint8")
_CONSTANT_DTYPES = (*_EIGHT_BIT, "int32")
_INNER = 3
_SOFTMAX_LIMIT = 16_000
_Z_MULTIPLE = 4


@dataclass(frozen=True)
class Step:
    """One operator with its tensors."""

    graph: Subgraph
    op: Operator

    def operand(self, position: int) -> Tensor | None:
        inputs = self.op.inputs
        at = inputs[position] if position < len(inputs) else -1
        return self.graph.tensors[at] if at >= 0 else None

    @property
    def read(self) -> list[Tensor]:
        return [self.graph.tensors[i] for i in dict.fromkeys(self.op.inputs) if i >= 0]

    @property
    def written(self) -> list[Tensor]:
        return [self.graph.tensors[i] for i in self.op.outputs]

    @property
    def computed(self) -> list[Tensor]:
        return [*(tensor for tensor in self.read if not tensor.is_constant), *self.written]

    def constant(self, position: int) -> np.ndarray:
        """A constant's integers in one row; empty where there is none."""
        tensor = self.operand(position)
        if tensor is None or tensor.raw is None or tensor.dtype not in _CONSTANT_DTYPES:
            return np.zeros(0, np.int32)
        size = np.dtype(tensor.dtype).itemsize
        return np.frombuffer(tensor.raw.tobytes(), tensor.dtype, tensor.raw.size // size)


@dataclass(frozen=True)
class Rule:
    """`found` says what in a step breaks the rule, "" when nothing does; `needs` is what would be mapped."""

    operators: tuple[str, ...]  # empty: all
    found: Callable[[Step], str]
    needs: str

    def broken_by(self, step: Step) -> str | None:
        """The reason in one line, or None."""
        if self.operators and step.op.name not in self.operators:
            return None
        found = self.found(step)
        return f"{found}: {self.needs}" if found else None


def _named(tensors: list[Tensor], words: Callable[[Tensor], str]) -> str:
    return ", ".join(f"{tensor.name} is {words(tensor)}" for tensor in tensors)


def _other_operator(step: Step) -> str:
    return "" if step.op.name in OPERATORS else f"{step.op.name} is not supported"


def _not_eight_bit(step: Step) -> str:
    wrong = [t for t in step.computed if t.dtype not in _EIGHT_BIT]
    wrong += [t for t in step.read if t.is_constant and t.dtype not in _CONSTANT_DTYPES]
    return _named(wrong, lambda t: t.dtype)


def _dynamic(step: Step) -> str:
    return _named([t for t in step.computed if not t.is_static], lambda _: "of open size")


def _computed_parameters(step: Step) -> str:
    operands = [step.operand(i) for i in PARAMETERS.get(step.op.name, ())]
    return _named([t for t in operands if t is not None and not t.is_constant], lambda _: "computed")


def _too_many_dimensions(step: Step) -> str:
    weights = {step.op.inputs[i] for i in PARAMETERS.get(step.op.name, ()) if i < len(step.op.inputs)}
    tensors = [t for t in (*step.read, *step.written) if t.index not in weights]
    return _named([t for t in tensors if any(n > 1 for n in t.shape[:-_INNER])], lambda t: _sizes(t.shape))


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)


def _fused_activation(step: Step) -> str:
    return "a fused activation" if step.op.options.get("fused_activation", 0) else ""


def _unequal_dilation(step: Step) -> str:
    x, y = (step.op.options.get(f"dilation_{side}", 1) for side in "wh")
    return f"dilation {x} in x, {y} in y" if x != y else ""


def _concatenated_constant(step: Step) -> str:
    for position in range(len(step.op.inputs)):
        tensor = step.operand(position)
        if tensor is None or not tensor.is_constant:
            continue
        zero = int(tensor.zero_point[0]) if tensor.zero_point.size else 0
        if len(step.op.inputs) != 2 or (step.constant(position) != zero).any():
            return f"{tensor.name} is a constant among {len(step.op.inputs)} inputs"
    return ""


def _weights_format(step: Step) -> str:
    chosen = step.op.options.get("weights_format", 0)
    return f"weights in format {chosen}" if chosen else ""


def _not_one_dimensional(tensors: list[Tensor]) -> str:
    wrong = [t for t in tensors if t.elements > max(t.shape[-1:], default=1)]
    return _named(wrong, lambda t: _sizes(t.shape))


def _output_not_one_dimensional(step: Step) -> str:
    return _not_one_dimensional(step.written)


def _softmax(step: Step) -> str:
    first = step.read[:1]
    return _not_one_dimensional(first) or _named([t for t in first if t.elements > _SOFTMAX_LIMIT], _elements)


def _elements(tensor: Tensor) -> str:
    return f"{tensor.elements:,} elements"


def _axes_from_inside(step: Step) -> list[int]:
    """The reduced dimensions, 1 for the innermost."""
    tensor = step.operand(0)
    rank = len(tensor.shape) if tensor else 0
    return [-int(axis) if axis < 0 else rank - int(axis) for axis in step.constant(1)]


def _batch_reduced(step: Step) -> str:
    return "the batch is reduced" if any(at > _INNER for at in _axes_from_inside(step)) else ""


def _depth_reduced(step: Step) -> str:
    tensor = step.operand(0)
    depth = tensor.shape[-1] if tensor and tensor.shape else _Z_MULTIPLE
    return f"z of {depth} is reduced" if 1 in _axes_from_inside(step) and depth % _Z_MULTIPLE else ""


def _batch_padded(step: Step) -> str:
    pads = step.constant(1)  # before and after each dimension
    return "the batch is padded" if pads[: -2 * _INNER].any() else ""


def _batch_packed(step: Step) -> str:
    rank = len(step.written[0].shape) if step.written else 0
    axis = step.op.options.get("axis", 0)
    return "the batch is packed" if (-axis if axis < 0 else rank - axis) > _INNER else ""


def _deep_slope(step: Step) -> str:
    slope = step.operand(1)
    return _not_one_dimensional([slope]) if slope is not None else ""


def _inner_squeezed(step: Step) -> str:
    tensor = step.operand(0)
    if tensor is None or not step.written:
        return ""
    gone = len(tensor.shape) - len(step.written[0].shape)
    leading = tensor.shape[gone:] == step.written[0].shape and all(n == 1 for n in tensor.shape[:gone])
    return "" if leading else f"{_sizes(tensor.shape)} becomes {_sizes(step.written[0].shape)}"


def _strides(step: Step) -> str:
    strides = step.constant(3)
    return f"strides {_sizes(tuple(strides.tolist()))}" if (strides != 1).any() else ""


def _slice_masks(step: Step) -> str:
    masks = ("ellipsis_mask", "new_axis_mask")
    return ", ".join(mask for mask in masks if step.op.options.get(mask, 0))


RULES = (
    Rule((), _other_operator, "one of coral.ai/docs/edgetpu/models-intro/#supported-operations"),
    Rule((), _not_eight_bit, "int8 or uint8; constants may be int32"),
    Rule((), _dynamic, "sizes that are fixed when it is compiled"),
    Rule((), _computed_parameters, "parameters that are constants"),
    Rule((), _too_many_dimensions, "only the three innermost dimensions above 1"),
    Rule(("AVERAGE_POOL_2D", "MAX_POOL_2D", "CONCATENATION"), _fused_activation, "none"),
    Rule(("CONV_2D", "DEPTHWISE_CONV_2D"), _unequal_dilation, "the same in x and y"),
    Rule(("CONCATENATION",), _concatenated_constant, "a constant only as one of two, all zeros"),
    Rule(("FULLY_CONNECTED",), _weights_format, "the default format"),
    Rule(("FULLY_CONNECTED",), _output_not_one_dimensional, "a one-dimensional output"),
    Rule(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"), _batch_reduced, "x, y or z"),
    Rule(("MEAN",), _depth_reduced, "z a multiple of 4"),
    Rule(("PAD",), _batch_padded, "padding of x, y or z"),
    Rule(("PACK",), _batch_packed, "packing along x, y or z"),
    Rule(("PRELU",), _deep_slope, "one slope a channel"),
    Rule(("SOFTMAX",), _softmax, "one dimension of at most 16,000 elements"),
    Rule(("SQUEEZE",), _inner_squeezed, "only leading ones removed"),
    Rule(("STRIDED_SLICE",), _strides, "strides of 1"),
    Rule(("STRIDED_SLICE",), _slice_masks, "neither mask"),
)


def _change_of_size(step: Step) -> str:
    return " becomes ".join(_sizes(tensor.shape) for tensor in (*step.read[:1], *step.written))


def _moving_reshape(step: Step) -> str:
    shapes = [tensor.shape for tensor in (*step.read[:1], *step.written)]
    moved = len({tuple(n for n in shape if n != 1) for shape in shapes}) > 1
    return _change_of_size(step) if moved else ""


# What the page says may not be mapped, without the sizes from which on.
CAUTIONS = (
    Rule(("RESHAPE",), _moving_reshape, "a large one may not be mapped"),
    Rule(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), _change_of_size, "some sizes are not mapped"),
)


def violations(graph: Subgraph, op: Operator) -> tuple[str, ...]:
    """Every rule the operator breaks, by itself, one line each."""
    return _broken(RULES, Step(graph, op))


def cautions(graph: Subgraph, op: Operator) -> tuple[str, ...]:
    """Why an operator that breaks no rule may yet not be mapped."""
    return _broken(CAUTIONS, Step(graph, op))


def _broken(rules: tuple[Rule, ...], step: Step) -> tuple[str, ...]:
    return tuple(reason for rule in rules if (reason := rule.broken_by(step)))
