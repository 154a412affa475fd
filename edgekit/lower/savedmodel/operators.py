"""What TensorFlow computes for each TFLite operator that the float lowering emits.

OPERATORS: builtin -> function (call, step) -> result, or the list of results. `call.tf` is TensorFlow;
nothing is imported here. Kernels and meaning: tensorflow/lite/kernels/*.cc.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgekit.lower.savedmodel.call import Call
from edgekit.lower.savedmodel.program import Step

Operator = Callable[[Call, Step], Any]

OPERATORS: dict[str, Operator] = {}
# Operators whose constants repeat the shape of their result, which is what counts here.
SHAPED_BY_RESULT = frozenset({"RESHAPE", "SLICE", "STRIDED_SLICE", "BROADCAST_TO", "TRANSPOSE_CONV"})
_PADDING = ("SAME", "VALID")


def rebuilds(fn: Operator) -> Operator:
    """Register the operator the function is named after."""
    OPERATORS[fn.__name__.rstrip("_").upper()] = fn
    return fn


def _activated(call: Call, step: Step, x: Any) -> Any:
    """The activation a TFLite operator applies at its end."""
    nn = call.tf.nn
    kinds: dict[int, Callable[[Any], Any]] = {
        0: lambda y: y,
        1: nn.relu,
        2: lambda y: call.tf.clip_by_value(y, -1.0, 1.0),
        3: nn.relu6,
        4: call.tf.tanh,
    }
    return kinds[step.options["fusedActivationFunction"]](x)


def _with_bias(call: Call, step: Step, x: Any, i: int = 2) -> Any:
    bias = call.input(step, i)
    return _activated(call, step, x if bias is None else x + bias)


def _strides(step: Step) -> tuple[int, int]:
    return step.options["strideH"], step.options["strideW"]


def _dilations(step: Step) -> tuple[int, int]:
    return step.options["dilationHFactor"], step.options["dilationWFactor"]


# convolutions and matrix products
@rebuilds
def conv_2d(call: Call, step: Step) -> Any:
    """(O, kh, kw, I) becomes (kh, kw, I, O)."""
    kernel = call.input(step, 1, lambda data: data.transpose(1, 2, 3, 0))
    y = call.tf.nn.conv2d(
        call.input(step, 0),
        kernel,
        _strides(step),
        _PADDING[step.options["padding"]],
        dilations=_dilations(step),
    )
    return _with_bias(call, step, y)


@rebuilds
def depthwise_conv_2d(call: Call, step: Step) -> Any:
    """(1, kh, kw, C * multiplier) becomes (kh, kw, C, multiplier).

    TensorFlow's kernel wants equal strides, and none beside a dilation: other strides are taken afterwards.
    """
    multiplier = step.options["depthMultiplier"]
    kernel = call.input(step, 1, lambda data: data[0].reshape(*data.shape[1:3], -1, multiplier))
    x, strides, dilations = call.input(step, 0), _strides(step), _dilations(step)
    padding = _PADDING[step.options["padding"]]
    fits = strides[0] == strides[1] and (strides == (1, 1) or dilations == (1, 1))
    if fits:
        y = call.tf.nn.depthwise_conv2d(x, kernel, (1, *strides, 1), padding, dilations=dilations)
    else:
        if padding == "SAME":
            spatial = zip(x.shape[1:3], kernel.shape[:2], strides, dilations, strict=True)
            pads = [_same(*sizes) for sizes in spatial]
            x = call.tf.pad(x, [(0, 0), *pads, (0, 0)])
        y = call.tf.nn.depthwise_conv2d(x, kernel, (1, 1, 1, 1), "VALID", dilations=dilations)
        y = y[:, :: strides[0], :: strides[1]]
    return _with_bias(call, step, y)


def _same(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """What SAME adds before and after one dimension."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


@rebuilds
def transpose_conv(call: Call, step: Step) -> Any:
    """(O, kh, kw, I) becomes (kh, kw, O, I); the result's shape comes first, the input third."""
    kernel = call.input(step, 1, lambda data: data.transpose(1, 2, 0, 3))
    sizes = [size if size >= 0 else -size * call.batch for size in call.sizes(step.outputs[0])]
    padding = _PADDING[step.options["padding"]]
    y = call.tf.nn.conv2d_transpose(call.input(step, 2), kernel, sizes, _strides(step), padding)
    return _with_bias(call, step, y, 3)


@rebuilds
def fully_connected(call: Call, step: Step) -> Any:
    x, weight = call.input(step, 0), call.input(step, 1)
    if not step.options["keepNumDims"]:
        x = call.tf.reshape(x, (-1, weight.shape[1]))
    return _with_bias(call, step, call.tf.matmul(x, weight, transpose_b=True))


@rebuilds
def batch_matmul(call: Call, step: Step) -> Any:
    a, b = call.input(step, 0), call.input(step, 1)
    return call.tf.matmul(a, b, transpose_a=step.options["adjX"], transpose_b=step.options["adjY"])


# pooling, reductions, resizing
def _pool(pool: str) -> Operator:
    def operator(call: Call, step: Step) -> Any:
        window = (step.options["filterHeight"], step.options["filterWidth"])
        padding = _PADDING[step.options["padding"]]
        y = getattr(call.tf.nn, pool)(call.input(step, 0), window, _strides(step), padding)
        return _activated(call, step, y)

    return operator


def _reduction(reduction: str) -> Operator:
    def operator(call: Call, step: Step) -> Any:
        axes = call.array(step, 1).reshape(-1).tolist()
        return getattr(call.tf, reduction)(call.input(step, 0), axes, keepdims=step.options["keepDims"])

    return operator


def _resize(kernel: str) -> Operator:
    def operator(call: Call, step: Step) -> Any:
        return getattr(call.tf.raw_ops, kernel)(
            images=call.input(step, 0),
            size=call.array(step, 1),
            align_corners=step.options["alignCorners"],
            half_pixel_centers=step.options["halfPixelCenters"],
        )

    return operator


OPERATORS |= {
    "AVERAGE_POOL_2D": _pool("avg_pool2d"),
    "MAX_POOL_2D": _pool("max_pool2d"),
    "MEAN": _reduction("reduce_mean"),
    "SUM": _reduction("reduce_sum"),
    "REDUCE_MAX": _reduction("reduce_max"),
    "RESIZE_BILINEAR": _resize("ResizeBilinear"),
    "RESIZE_NEAREST_NEIGHBOR": _resize("ResizeNearestNeighbor"),
}


# element by element
def _elementwise(*path: str) -> Operator:
    """A TensorFlow function of one or two operands, and the activation behind it where there is one."""

    def operator(call: Call, step: Step) -> Any:
        function = call.tf
        for name in path:
            function = getattr(function, name)
        y = function(*(call.input(step, i) for i in range(len(step.inputs))))
        return _activated(call, step, y) if "fusedActivationFunction" in step.options else y

    return operator


OPERATORS |= {
    "ADD": _elementwise("add"),
    "SUB": _elementwise("subtract"),
    "MUL": _elementwise("multiply"),
    "DIV": _elementwise("divide"),
    "POW": _elementwise("pow"),
    "MAXIMUM": _elementwise("maximum"),
    "MINIMUM": _elementwise("minimum"),
    "SQUARED_DIFFERENCE": _elementwise("math", "squared_difference"),
    "ABS": _elementwise("abs"),
    "NEG": _elementwise("negative"),
    "EXP": _elementwise("exp"),
    "LOG": _elementwise("math", "log"),
    "SQRT": _elementwise("sqrt"),
    "RSQRT": _elementwise("math", "rsqrt"),
    "SQUARE": _elementwise("square"),
    "LOGISTIC": _elementwise("sigmoid"),
    "TANH": _elementwise("tanh"),
    "RELU": _elementwise("nn", "relu"),
    "RELU6": _elementwise("nn", "relu6"),
    "ELU": _elementwise("nn", "elu"),
    "FLOOR": _elementwise("floor"),
    "CEIL": _elementwise("math", "ceil"),
    "ROUND": _elementwise("round"),
    "SIGN": _elementwise("sign"),
    "SIN": _elementwise("sin"),
    "COS": _elementwise("cos"),
    "GREATER": _elementwise("greater"),
    "GREATER_EQUAL": _elementwise("greater_equal"),
    "EQUAL": _elementwise("equal"),
    "NOT_EQUAL": _elementwise("not_equal"),
    "SELECT_V2": _elementwise("where"),
}


@rebuilds
def relu_n1_to_1(call: Call, step: Step) -> Any:
    return call.tf.clip_by_value(call.input(step, 0), -1.0, 1.0)


@rebuilds
def relu_0_to_1(call: Call, step: Step) -> Any:
    return call.tf.clip_by_value(call.input(step, 0), 0.0, 1.0)


@rebuilds
def hard_swish(call: Call, step: Step) -> Any:
    x = call.input(step, 0)
    return x * call.tf.nn.relu6(x + 3.0) * (1.0 / 6.0)


@rebuilds
def gelu(call: Call, step: Step) -> Any:
    return call.tf.nn.gelu(call.input(step, 0), approximate=step.options["approximate"])


@rebuilds
def leaky_relu(call: Call, step: Step) -> Any:
    return call.tf.nn.leaky_relu(call.input(step, 0), step.options["alpha"])


@rebuilds
def prelu(call: Call, step: Step) -> Any:
    x = call.input(step, 0)
    return call.tf.nn.relu(x) + call.input(step, 1) * call.tf.minimum(x, 0.0)


@rebuilds
def softmax(call: Call, step: Step) -> Any:
    return call.tf.nn.softmax(call.input(step, 0) * step.options["beta"])


# places of the largest
@rebuilds
def cast(call: Call, step: Step) -> Any:
    """To float: nothing else is emitted."""
    return call.tf.cast(call.input(step, 0), call.tf.float32)


@rebuilds
def arg_max(call: Call, step: Step) -> Any:
    axis = int(call.array(step, 1).reshape(-1)[0])
    return call.tf.argmax(call.input(step, 0), axis, output_type=call.tf.int32)


@rebuilds
def topk_v2(call: Call, step: Step) -> list[Any]:
    found = call.tf.math.top_k(call.input(step, 0), int(call.array(step, 1).reshape(-1)[0]))
    return [found.values, found.indices]


# data movement
@rebuilds
def gather(call: Call, step: Step) -> Any:
    return call.tf.gather(call.input(step, 0), call.array(step, 1), axis=step.options["axis"])


@rebuilds
def reshape(call: Call, step: Step) -> Any:
    return call.tf.reshape(call.input(step, 0), call.shape(step))


@rebuilds
def transpose(call: Call, step: Step) -> Any:
    return call.tf.transpose(call.input(step, 0), call.array(step, 1))


@rebuilds
def concatenation(call: Call, step: Step) -> Any:
    """A piece of one image, such as a class token, is repeated over the images."""
    axis, result = step.options["axis"], call.sizes(step.outputs[0])
    pieces = []
    for i, index in enumerate(step.inputs):
        piece, sizes = call.input(step, i), call.sizes(index)
        repeats = [
            -wanted * call.batch if wanted < 0 < size and at != axis else 1
            for at, (size, wanted) in enumerate(zip(sizes, result, strict=True))
        ]
        alike = all(isinstance(count, int) for count in repeats)
        pieces.append(piece if alike else call.tf.tile(piece, repeats))
    return _activated(call, step, call.tf.concat(pieces, axis))


@rebuilds
def split(call: Call, step: Step) -> list[Any]:
    axis = int(call.array(step, 0).reshape(-1)[0])
    return call.tf.split(call.input(step, 1), step.options["numSplits"], axis)


@rebuilds
def slice_(call: Call, step: Step) -> Any:
    sizes = [max(size, -1) for size in call.sizes(step.outputs[0])]
    return call.tf.slice(call.input(step, 0), call.array(step, 1), sizes)


@rebuilds
def strided_slice(call: Call, step: Step) -> Any:
    """First entry, count and stride of each dimension; all of a dimension that counts images."""
    steps = zip(call.array(step, 1), call.array(step, 3), call.sizes(step.outputs[0]), strict=True)
    return call.input(step, 0)[
        tuple(
            slice(int(begin), int(begin + (count - 1) * stride + 1), int(stride))
            if count >= 0
            else slice(None)
            for begin, stride, count in steps
        )
    ]


@rebuilds
def pad(call: Call, step: Step) -> Any:
    return call.tf.pad(call.input(step, 0), call.array(step, 1))


@rebuilds
def padv2(call: Call, step: Step) -> Any:
    number = call.array(step, 2).reshape(-1)[0]
    return call.tf.pad(call.input(step, 0), call.array(step, 1), constant_values=number)


@rebuilds
def mirror_pad(call: Call, step: Step) -> Any:
    mode = ("REFLECT", "SYMMETRIC")[step.options["mode"]]
    return call.tf.pad(call.input(step, 0), call.array(step, 1), mode)


@rebuilds
def broadcast_to(call: Call, step: Step) -> Any:
    sizes = [size if size >= 0 else -size * call.batch for size in call.sizes(step.outputs[0])]
    return call.tf.broadcast_to(call.input(step, 0), sizes)


@rebuilds
def depth_to_space(call: Call, step: Step) -> Any:
    return call.tf.nn.depth_to_space(call.input(step, 0), step.options["blockSize"])


@rebuilds
def space_to_depth(call: Call, step: Step) -> Any:
    return call.tf.nn.space_to_depth(call.input(step, 0), step.options["blockSize"])
