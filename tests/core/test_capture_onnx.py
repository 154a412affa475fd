"""Every ONNX importer against onnxruntime, whole networks against eager, and what is refused."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torchvision
from graphs import ops, outputs, randomize
from onnx import TensorProto, external_data_helper
from onnx_graphs import model, noise, saved

from edgekit.capture import relative_error
from edgekit.capture.onnx import import_onnx, prove, read
from edgekit.errors import ArtifactError, CaptureError
from edgekit.graph.ir import Graph


def runtime(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    return lambda arrays: session.run(None, dict(zip(names, arrays, strict=True)))


def imported(folder: Path, *args: Any, **kwargs: Any) -> Graph:
    """The graph of a hand-written model, proven against onnxruntime."""
    path = saved(model(*args, **kwargs), folder)
    file = read(path)
    graph = import_onnx(file)
    assert prove(graph, file, runtime(path)) <= 1e-4
    return graph


def one(op: str, *constants: Any, **attrs: Any) -> tuple[list[Any], dict[str, Any]]:
    """One node over x; None is an absent input."""
    names = ["" if c is None else f"c{i}" for i, c in enumerate(constants)]
    given = {n: c for n, c in zip(names, constants, strict=True) if c is not None}
    return [(op, ["x", *names], ["y"], attrs)], given


def i64(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


def f32(*numbers: float) -> np.ndarray:
    return np.array(numbers, dtype=np.float32)


W = noise(6, 4, 3, 3, seed=1)
B = noise(6, seed=2)
T = noise(4, 6, 3, 3, seed=3)
CHANNELS = [noise(4, seed=s) for s in (4, 5, 6)] + [np.abs(noise(4, seed=7)) + 0.5]
SCALES = f32(1, 1, 2, 2)
SIZES = i64(1, 4, 16, 20)

# name: ((steps, constants), ops of the graph[, opset])
CASES: dict[str, tuple[Any, ...]] = {
    "conv": (one("Conv", W, B, pads=[1, 1, 1, 1]), ["conv2d"]),
    "conv, every pad its own": (one("Conv", W, pads=[0, 1, 2, 3], strides=[2, 1]), ["conv2d"]),
    "conv, same upper": (one("Conv", W, B, auto_pad="SAME_UPPER", strides=[2, 2]), ["conv2d"]),
    "conv, same lower": (one("Conv", W, B, auto_pad="SAME_LOWER", strides=[2, 2]), ["conv2d"]),
    "conv, valid": (one("Conv", W, B, auto_pad="VALID"), ["conv2d"]),
    "conv, dilated": (one("Conv", W, B, dilations=[2, 1], pads=[2, 1, 2, 1]), ["conv2d"]),
    "conv, groups": (one("Conv", noise(8, 2, 3, 3), group=2), ["conv2d"]),
    "conv, depthwise": (one("Conv", noise(4, 1, 3, 3), group=4), ["conv2d"]),
    "transposed": (one("ConvTranspose", T, B, strides=[2, 2], pads=[1, 1, 1, 1]), ["conv_transpose2d"]),
    "transposed, output padding": (
        one("ConvTranspose", T, strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
        ["conv_transpose2d"],
    ),
    "transposed, less at the end": (
        one("ConvTranspose", T, strides=[2, 2], pads=[1, 1, 0, 0]),
        ["conv_transpose2d"],
    ),
    "transposed, more at the end": (
        one("ConvTranspose", T, strides=[2, 2], pads=[0, 0, 1, 1]),
        ["conv_transpose2d", "slice", "slice"],
    ),
    "transposed, output shape": (
        one("ConvTranspose", T, strides=[2, 2], output_shape=[16, 20]),
        ["conv_transpose2d"],
    ),
    "transposed, same": (
        one("ConvTranspose", T, strides=[2, 2], auto_pad="SAME_UPPER"),
        ["conv_transpose2d", "slice", "slice"],
    ),
    "matmul of weights": (one("MatMul", noise(10, 5)), ["linear"]),
    "matmul and bias": (
        (
            [("MatMul", ["x", "w"], ["m"]), ("Add", ["b", "m"], ["y"])],
            {"w": noise(10, 5), "b": noise(5, seed=1)},
        ),
        ["linear"],
    ),
    "matmul of two": (
        ([("Transpose", ["x"], ["t"], {"perm": [0, 1, 3, 2]}), ("MatMul", ["x", "t"], ["y"])], {}),
        ["permute", "matmul"],
    ),
    "gemm": (
        ([("Flatten", ["x"], ["f"]), ("Gemm", ["f", "w", "b"], ["y"])], {"w": noise(320, 5), "b": noise(5)}),
        ["reshape", "linear"],
    ),
    "gemm, factors": (
        (
            [
                ("Flatten", ["x"], ["f"]),
                ("Gemm", ["f", "w", "b"], ["y"], {"alpha": 0.5, "beta": 2.0, "transB": 1}),
            ],
            {"w": noise(5, 320), "b": noise(1, 5)},
        ),
        ["reshape", "linear"],
    ),
    "batch norm": (one("BatchNormalization", *CHANNELS, epsilon=1e-3), ["batch_norm"]),
    "instance norm": (one("InstanceNormalization", *CHANNELS[:2]), ["group_norm"]),
    "layer norm": (one("LayerNormalization", noise(10), noise(10, seed=1)), ["layer_norm"]),
    "layer norm of two axes": (one("LayerNormalization", noise(8, 10), axis=2), ["layer_norm"]),
    "group norm by channel": (
        one("GroupNormalization", *CHANNELS[:2], num_groups=2),
        ["group_norm"],
        21,
    ),
    "relu": (one("Relu"), ["relu"]),
    "relu6": (one("Clip", np.float32(0), np.float32(6)), ["relu6"]),
    "relu6, old": (one("Clip", min=0.0, max=6.0), ["relu6"], 9),
    "clip": (one("Clip", np.float32(-1), np.float32(0.5)), ["clamp"]),
    "clip above": (one("Clip", None, np.float32(0.5)), ["clamp"]),
    "clip below 0": (one("Clip", np.float32(0)), ["relu"]),
    "hard swish": (one("HardSwish"), ["hardswish"]),
    "hard sigmoid": (one("HardSigmoid"), ["mul", "add", "clamp"]),
    "hard sigmoid of a sixth": (one("HardSigmoid", alpha=1 / 6, beta=0.5), ["hardsigmoid"]),
    "sigmoid": (one("Sigmoid"), ["sigmoid"]),
    "swish": (([("Sigmoid", ["x"], ["s"]), ("Mul", ["x", "s"], ["y"])], {}), ["sigmoid", "mul"]),
    "tanh": (one("Tanh"), ["tanh"]),
    "gelu": (one("Gelu"), ["gelu"], 20),
    "gelu of tanh": (one("Gelu", approximate="tanh"), ["gelu"], 20),
    "elu": (one("Elu", alpha=0.7), ["elu"]),
    "selu": (one("Selu"), ["elu", "mul"]),
    "leaky relu": (one("LeakyRelu", alpha=0.2), ["leaky_relu"]),
    "prelu": (one("PRelu", noise(4, 1, 1)), ["prelu"]),
    "prelu, one slope": (one("PRelu", f32(0.3)), ["prelu"]),
    "mish": (one("Mish"), ["mish"]),
    "softplus": (one("Softplus"), ["softplus"]),
    "softsign": (one("Softsign"), ["abs", "add", "div"]),
    "softmax": (one("Softmax", axis=1), ["softmax"]),
    "softmax, old": (one("Softmax", axis=2), ["reshape", "softmax", "reshape"], 11),
    "log softmax": (one("LogSoftmax"), ["amax", "sub", "exp", "sum", "log", "sub"]),
    "add, number first": (([("Add", ["c", "x"], ["y"])], {"c": f32(2)}), ["add"]),
    "sub, number first": (([("Sub", ["c", "x"], ["y"])], {"c": f32(2)}), ["sub"]),
    "mul by a channel": (one("Mul", noise(4, 1, 1)), ["mul"]),
    "div": (one("Div", f32(3)), ["div"]),
    "max of three": (
        ([("Neg", ["x"], ["n"]), ("Max", ["x", "n", "c"], ["y"])], {"c": f32(0.5)}),
        ["neg", "maximum", "maximum"],
    ),
    "min": (one("Min", f32(0.5)), ["minimum"]),
    "sum": (([("Sum", ["x", "x", "x"], ["y"])], {}), ["add", "add"]),
    "mean of two": (([("Abs", ["x"], ["a"]), ("Mean", ["x", "a"], ["y"])], {}), ["abs", "add", "mul"]),
    "square": (one("Pow", f32(2)), ["mul"]),
    "cube": (one("Pow", np.float32(3)), ["pow"]),
    "exp": (one("Exp"), ["exp"]),
    "root of log": (
        ([("Exp", ["x"], ["e"]), ("Log", ["e"], ["l"]), ("Abs", ["l"], ["a"]), ("Sqrt", ["a"], ["y"])], {}),
        ["exp", "log", "abs", "sqrt"],
    ),
    "reciprocal": (([("Exp", ["x"], ["e"]), ("Reciprocal", ["e"], ["y"])], {}), ["exp", "div"]),
    "max pool": (one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), ["max_pool2d"]),
    "max pool, stride 1": (one("MaxPool", kernel_shape=[2, 3]), ["max_pool2d"]),
    "max pool, ceil": (one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), ["max_pool2d"]),
    "max pool, same": (
        one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
        ["max_pool2d"],
    ),
    "max pool, dilated": (one("MaxPool", kernel_shape=[2, 2], dilations=[2, 3]), ["max_pool2d"]),
    "average pool": (one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]), ["avg_pool2d"]),
    "average pool, border counts": (
        one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        ["avg_pool2d"],
    ),
    "average pool, same": (
        one("AveragePool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
        ["avg_pool2d"],
    ),
    "average pool, uneven border counts": (
        one("AveragePool", kernel_shape=[3, 3], pads=[0, 0, 2, 1], count_include_pad=1),
        ["pad", "avg_pool2d"],
    ),
    "average pool, ceil": (
        one("AveragePool", kernel_shape=[2, 3], strides=[2, 2], ceil_mode=1),
        ["avg_pool2d"],
    ),
    "global average": (one("GlobalAveragePool"), ["mean"]),
    "global maximum": (one("GlobalMaxPool"), ["amax"]),
    "reduce mean": (one("ReduceMean", i64(2, -1), keepdims=0), ["mean"]),
    "reduce mean, attribute": (one("ReduceMean", axes=[2, 3]), ["mean"], 13),
    "reduce sum": (one("ReduceSum", i64(1)), ["sum"], 13),
    "reduce sum, attribute": (one("ReduceSum", axes=[1], keepdims=0), ["sum"], 11),
    "reduce max": (one("ReduceMax", axes=[3]), ["amax"], 13),
    "reduce max of all": (one("ReduceMax", keepdims=1), ["amax"], 13),
    "reduce min": (one("ReduceMin", axes=[3]), ["neg", "amax", "neg"], 13),
    "reduce l2": (one("ReduceL2", axes=[1]), ["mul", "sum", "sqrt"], 13),
    "reduce l1": (one("ReduceL1", axes=[1]), ["abs", "sum"], 13),
    "reduce nothing": (
        ([("ReduceSum", ["x"], ["r"], {"noop_with_empty_axes": 1}), ("Relu", ["r"], ["y"])], {}),
        ["relu"],
    ),
    "reshape": (one("Reshape", i64(0, -1, 5)), ["reshape"]),
    "flatten": (one("Flatten", axis=2), ["reshape"]),
    "flatten from the end": (one("Flatten", axis=-3), ["reshape"]),
    "unsqueeze and squeeze": (
        ([("Unsqueeze", ["x", "a"], ["u"]), ("Squeeze", ["u", "b"], ["y"])], {"a": i64(2, 5), "b": i64(-1)}),
        ["reshape", "reshape"],
    ),
    "unsqueeze, attribute": (one("Unsqueeze", axes=[1]), ["reshape"], 11),
    "squeeze of every one": (
        ([("ReduceMean", ["x"], ["m"], {"axes": [2, 3]}), ("Squeeze", ["m"], ["y"], {"axes": [2, 3]})], {}),
        ["mean", "reshape"],
        11,
    ),
    "transpose": (one("Transpose", perm=[0, 2, 3, 1]), ["permute"]),
    "concat": (([("Concat", ["x", "c", "x"], ["y"], {"axis": -3})], {"c": noise(1, 2, 8, 10)}), ["concat"]),
    "split": (
        ([("Split", ["x", "s"], ["a", "y"], {"axis": 1})], {"s": i64(1, 3)}),
        ["split"],
    ),
    "split, attribute": (([("Split", ["x"], ["a", "y"], {"axis": 1, "split": [1, 3]})], {}), ["split"], 11),
    "split, equal parts": (([("Split", ["x"], ["a", "y"], {"axis": 3, "num_outputs": 2})], {}), ["split"]),
    "slice": (one("Slice", i64(1, -6), i64(9999, -1), i64(1, 3), i64(1, 2)), ["slice", "slice"]),
    "slice, attribute": (one("Slice", starts=[1], ends=[3], axes=[1]), ["slice"], 9),
    "slice of everything": (
        (
            [("Slice", ["x", "a", "b"], ["s"]), ("Relu", ["s"], ["y"])],
            {"a": i64(0, 0), "b": i64(1, 4)},
        ),
        ["relu"],
    ),
    "gather one": (one("Gather", np.int64(-1), axis=1), ["slice", "reshape"]),
    "gather a run": (one("Gather", i64(1, 3), axis=1), ["slice"]),
    "gather out of order": (one("Gather", i64(3, 0, 1), axis=1), ["slice", "slice", "concat"]),
    "gather a table": (
        one("Gather", np.array([[0, 1], [3, 2]]), axis=1),
        ["slice", "slice", "slice", "concat", "reshape"],
    ),
    "gather many": (one("Gather", i64(7, 0, 3, 3, 9, 1, 8, 2), axis=3), ["gather"]),
    "gather elements": (
        one("GatherElements", np.arange(4 * 3 * 10).reshape(1, 4, 3, 10) % 8, axis=2),
        ["reshape", "gather", "reshape"],
    ),
    "slice backwards": (one("Slice", i64(-1), i64(-99), i64(3), i64(-1)), ["gather"]),
    "slice backwards in part": (one("Slice", i64(5), i64(1), i64(2), i64(-2)), ["slice", "slice", "concat"]),
    "where": (
        (
            [("Greater", ["x", "c"], ["g"]), ("Where", ["g", "x", "d"], ["y"])],
            {"c": np.float32(0.2), "d": noise(10, seed=1)},
        ),
        ["greater", "where"],
    ),
    "logic": (
        (
            [
                ("Less", ["x", "c"], ["a"]),
                ("GreaterOrEqual", ["x", "d"], ["b"]),
                ("And", ["a", "b"], ["e"]),
                ("Not", ["e"], ["f"]),
                ("LessOrEqual", ["x", "e0"], ["g"]),
                ("Or", ["f", "g"], ["h"]),
                ("Xor", ["h", "a"], ["i"]),
                ("Cast", ["i"], ["y"], {"to": TensorProto.FLOAT}),
            ],
            {"c": np.float32(0.5), "d": np.float32(-0.5), "e0": np.float32(0)},
        ),
        ["greater", "greater_equal", "mul", "sub", "greater_equal", "maximum", "equal", "sub"],
    ),
    "equal": (
        (
            [("Relu", ["x"], ["r"]), ("Equal", ["r", "c"], ["e"]), ("Cast", ["e"], ["y"], {"to": 1})],
            {"c": np.float32(0)},
        ),
        ["relu", "equal"],
    ),
    "argmax": (
        ([("ArgMax", ["x"], ["a"], {"axis": 1}), ("Cast", ["a"], ["y"], {"to": 1})], {}),
        ["argmax"],
    ),
    "argmin, flat": (
        ([("ArgMin", ["x"], ["a"], {"axis": -1, "keepdims": 0}), ("Cast", ["a"], ["y"], {"to": 1})], {}),
        ["neg", "argmax"],
    ),
    "places as they are": (one("ArgMax", axis=2), ["argmax"]),
    "top k": (
        (
            [
                ("TopK", ["x", "k"], ["v", "i"], {"axis": 1}),
                ("Cast", ["i"], ["f"], {"to": 1}),
                ("Add", ["v", "f"], ["y"]),
            ],
            {"k": i64(3)},
        ),
        ["topk", "topk_indices", "add"],
    ),
    "top k, smallest": (
        ([("TopK", ["x", "k"], ["y", "i"], {"largest": 0})], {"k": i64(3)}),
        ["neg", "topk", "neg"],
    ),
    "roundings": (
        (
            [
                ("Mul", ["x", "c"], ["m"]),
                ("Floor", ["m"], ["f"]),
                ("Ceil", ["m"], ["g"]),
                ("Round", ["m"], ["r"]),
                ("Sign", ["x"], ["s"]),
                ("Sum", ["f", "g", "r", "s"], ["y"]),
            ],
            {"c": np.float32(3)},
        ),
        ["mul", "floor", "ceil", "round", "sign", "add", "add", "add"],
    ),
    "mod": (one("Mod", np.float32(0.75), fmod=1), ["div", "abs", "floor", "sign", "mul", "mul", "sub"]),
    "whole numbers": (
        ([("Cast", ["x"], ["i"], {"to": 7}), ("Cast", ["i"], ["y"], {"to": 1})], {}),
        ["abs", "floor", "sign", "mul"],
    ),
    "thresholded relu": (one("ThresholdedRelu", alpha=0.3), ["greater", "where"]),
    "shrink": (one("Shrink", lambd=0.4, bias=0.1), ["sign", "mul", "sub", "abs", "greater", "where"]),
    "shrink, soft": (one("Shrink", lambd=0.4, bias=0.4), ["clamp", "sub"]),
    "celu": (one("Celu", alpha=2.0), ["mul", "elu", "mul"]),
    "sine and cosine": (([("Sin", ["x"], ["s"]), ("Cos", ["s"], ["y"])], {}), ["sin", "cos"]),
    "cumulative sum": (one("CumSum", np.int64(2), reverse=1), ["permute", "linear", "permute"]),
    "einsum": (
        ([("Einsum", ["x", "w"], ["y"], {"equation": "nchw,dc->ndhw"})], {"w": noise(6, 4)}),
        ["permute", "linear", "permute"],
    ),
    "local response norm": (one("LRN", size=3, alpha=0.5, beta=0.6), ["mul", "conv2d", "pow", "mul"]),
    "local response norm, wide": (one("LRN", size=7, bias=2.0), ["mul", "conv2d", "pow", "mul"]),
    "l2 norm": (one("LpNormalization", axis=1), ["l2_normalize"]),
    "mean variance norm": (
        one("MeanVarianceNormalization"),
        ["mean", "sub", "mul", "mean", "sqrt", "add", "div"],
    ),
    "log of sums": (
        one("ReduceLogSumExp", i64(1), keepdims=0),
        ["amax", "sub", "exp", "sum", "log", "reshape", "add"],
    ),
    "conv of a line": (
        (
            [
                ("Reshape", ["x", "s"], ["l"]),
                ("Conv", ["l", "w", "b"], ["y"], {"pads": [1, 2], "strides": [2]}),
            ],
            {"s": i64(1, 4, 80), "w": noise(6, 4, 3), "b": noise(6)},
        ),
        ["reshape", "reshape", "conv2d", "reshape"],
    ),
    "transposed conv of a line": (
        (
            [
                ("Reshape", ["x", "s"], ["l"]),
                ("ConvTranspose", ["l", "w"], ["y"], {"strides": [2], "pads": [1, 1], "kernel_shape": [4]}),
            ],
            {"s": i64(1, 4, 80), "w": noise(4, 6, 4)},
        ),
        ["reshape", "reshape", "conv_transpose2d", "reshape"],
    ),
    "pools of a line": (
        (
            [
                ("Reshape", ["x", "s"], ["l"]),
                ("MaxPool", ["l"], ["m"], {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}),
                ("AveragePool", ["m"], ["y"], {"kernel_shape": [2], "strides": [2]}),
            ],
            {"s": i64(1, 4, 80)},
        ),
        ["reshape", "reshape", "max_pool2d", "reshape", "reshape", "avg_pool2d", "reshape"],
    ),
    "expand": (
        (
            [("GlobalAveragePool", ["x"], ["m"]), ("Expand", ["m", "s"], ["y"])],
            {"s": i64(1, 1, 8, 10)},
        ),
        ["mean", "expand"],
    ),
    "tile": (one("Tile", i64(1, 1, 2, 3)), ["concat", "concat"]),
    "pad": (one("Pad", i64(0, 0, 1, 2, 0, 0, 3, 4), np.float32(0.5)), ["pad"]),
    "pad, attribute": (one("Pad", pads=[0, 0, 1, 2, 0, 0, 3, 4], value=1.0), ["pad"], 10),
    "pad, reflected": (one("Pad", i64(0, 0, 1, 2, 0, 0, 3, 4), mode="reflect"), ["pad"]),
    "pad, edge": (one("Pad", i64(0, 0, 1, 2, 0, 0, 3, 4), mode="edge"), ["pad"]),
    "pad, axes": (one("Pad", i64(1, 2), None, i64(3)), ["pad"]),
    "depth to space, CRD": (one("DepthToSpace", blocksize=2, mode="CRD"), ["pixel_shuffle"]),
    "depth to space, DCR": (one("DepthToSpace", blocksize=2), ["reshape", "permute", "reshape"]),
    "space to depth": (one("SpaceToDepth", blocksize=2), ["reshape", "permute", "reshape"]),
    "nearest, default": (one("Resize", None, SCALES), ["resize_nearest"]),
    "nearest, floor": (
        one(
            "Resize",
            None,
            None,
            i64(1, 4, 12, 7),
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
        ["resize_nearest"],
    ),
    "nearest, opset 10": (one("Resize", SCALES), ["resize_nearest"], 10),
    "nearest, upsample": (one("Upsample", SCALES), ["resize_nearest"], 9),
    "linear": (one("Resize", None, SCALES, mode="linear"), ["resize_bilinear"]),
    "linear, opset 11": (
        one(
            "Resize",
            f32(),
            f32(),
            SIZES,
            mode="linear",
            coordinate_transformation_mode="pytorch_half_pixel",
        ),
        ["resize_bilinear"],
        11,
    ),
    "linear, corners": (
        one("Resize", None, None, SIZES, mode="linear", coordinate_transformation_mode="align_corners"),
        ["resize_bilinear"],
    ),
    "no-ops": (
        (
            [
                ("Identity", ["x"], ["i"]),
                ("Dropout", ["i"], ["d"]),
                ("Cast", ["d"], ["c"], {"to": TensorProto.FLOAT}),
                ("Relu", ["c"], ["y"]),
            ],
            {},
        ),
        ["relu"],
    ),
    "shape arithmetic": (
        (
            [
                ("Shape", ["x"], ["s"]),
                ("Gather", ["s", "zero"], ["n"]),
                ("Unsqueeze", ["n", "axes"], ["u"]),
                ("Concat", ["u", "rest"], ["target"], {"axis": 0}),
                ("Reshape", ["x", "target"], ["r"]),
                ("ConstantOfShape", ["target_shape"], ["ones"]),
                ("Add", ["r", "ones"], ["y"]),
            ],
            {"zero": np.int64(0), "axes": i64(0), "rest": i64(-1), "target_shape": i64(320)},
        ),
        ["reshape", "add"],
    ),
}


RECURRENT = {
    "gru": (3, {"linear_before_reset": 1}),
    "gru, reset first": (3, {}),
    "lstm": (4, {}),
    "rnn": (1, {}),
    "rnn, relu": (1, {"activations": ["Relu"]}),
}


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers(name: str, direction: str, tmp_path: Path) -> None:
    """Every output, over the rows of the picture as steps; with a given state and a bias, then without."""
    gates, attrs = RECURRENT[name]
    op, ways, size = name.split(",")[0].upper(), 2 if direction == "bidirectional" else 1, 5
    attrs = {**attrs, "direction": direction, "hidden_size": size}
    if "activations" in attrs:
        attrs["activations"] = attrs["activations"] * ways
    weights = {"w": noise(ways, gates * size, 10), "r": noise(ways, gates * size, size, seed=1)}
    given = {"b": noise(ways, 2 * gates * size, seed=2), "h": noise(ways, 1, size, seed=3)}
    names = ["s", "w", "r"]
    for more in ({}, given):
        inputs = [*names, "b", "", "h"] if more else names
        steps = [
            ("Slice", ["x", "from", "to", "axis"], ["one"]),
            ("Reshape", ["one", "shape"], ["flat"]),
            ("Transpose", ["flat"], ["s"], {"perm": [1, 0, 2]}),
            (op, inputs, ["y", "last"], attrs),
        ]
        bounds = {"from": i64(0), "to": i64(1), "axis": i64(1), "shape": i64(1, 8, 10)}
        graph = imported(tmp_path, steps, {**bounds, **weights, **more}, outputs=("y", "last"))
        assert graph.outputs[0].shape == (8, ways, 1, size)


@pytest.mark.parametrize("name", CASES)
def test_importer(name: str, tmp_path: Path) -> None:
    (steps, constants), expected, opset = (*CASES[name], 18)[:3]
    graph = imported(tmp_path, steps, constants, opset=opset)
    assert ops(graph) == expected
    assert graph.outputs[0].name == "y"


def test_gelu_written_with_erf(tmp_path: Path) -> None:
    """x * 0.5 * (1 + erf(x / sqrt 2)) in three orders."""
    head = [("Div", ["x", "root"], ["d"]), ("Erf", ["d"], ["e"]), ("Add", ["e", "one"], ["p"])]
    constants = {"root": np.float32(math.sqrt(2)), "one": np.float32(1), "half": np.float32(0.5)}
    for tail in (
        [("Mul", ["x", "p"], ["m"]), ("Mul", ["m", "half"], ["y"])],
        [("Mul", ["x", "half"], ["m"]), ("Mul", ["m", "p"], ["y"])],
        [("Mul", ["half", "p"], ["m"]), ("Mul", ["m", "x"], ["y"])],
    ):
        assert ops(imported(tmp_path, head + tail, constants)) == ["gelu"]


# whole networks
NETWORKS = ["mobilenet_v3_small", "resnet18", "shufflenet_v2_x0_5", "efficientnet_b0"]


def exported(name: str, path: Path, dynamo: bool) -> torch.nn.Module:
    """A torchvision network of seeded weights, written by torch's old (opset 11) or new exporter (18)."""
    network = randomize(getattr(torchvision.models, name)(weights=None))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters' own deprecations
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, 64, 64),),
            str(path),
            dynamo=dynamo,
            opset_version=18 if dynamo else 11,
            verbose=False,
        )
    return network


@pytest.mark.parametrize(
    ("name", "dynamo"),  # the newer exporter takes many seconds a network
    [*((name, False) for name in NETWORKS), ("mobilenet_v3_small", True), ("resnet18", True)],
)
def test_networks_answer_as_eager(name: str, dynamo: bool, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    network = exported(name, path, dynamo)
    file = read(path)
    graph = import_onnx(file)
    prove(graph, file, runtime(path))
    assert graph.batchable
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = network(images)
    assert relative_error(outputs(graph, images)[0], expected) <= 1e-5


def test_several_outputs_keep_their_names(tmp_path: Path) -> None:
    steps = [("Conv", ["x", "w"], ["small"]), ("Relu", ["small"], ["large"])]
    graph = imported(tmp_path, steps, {"w": W}, outputs=("large", "small"))
    assert [v.name for v in graph.outputs] == ["large", "small"]
    assert [n.source for n in graph.nodes] == ["Conv_0", "Relu_1"]
    assert graph.nodes[0].inputs[1] is not None and graph.nodes[0].inputs[1].name == "w"


def test_open_dimensions(tmp_path: Path) -> None:
    path = saved(model(*one("Relu"), shape=("N", 3, "h", "w")), tmp_path)
    with pytest.raises(CaptureError, match=r"open shape \(N, 3, h, w\): --resolution PIXELS"):
        import_onnx(read(path))
    assert import_onnx(read(path), 32).inputs[0].shape == (1, 3, 32, 32)
    path = saved(model(*one("Relu"), shape=(1, "c", 8, 8)), tmp_path)
    with pytest.raises(CaptureError, match="an export with static shapes"):
        import_onnx(read(path), 32)
    path = saved(model(*one("Relu"), shape=(4, 3, 8, 8)), tmp_path)
    with pytest.raises(CaptureError, match="batch of 4: export it with batch 1"):
        import_onnx(read(path))


def test_a_graph_that_differs_is_refused(tmp_path: Path) -> None:
    path = saved(model(*one("Conv", W, B)), tmp_path)
    file = read(path)
    graph = import_onnx(file)
    assert graph.nodes[0].inputs[2] is not None and graph.nodes[0].inputs[2].data is not None
    graph.nodes[0].inputs[2].data = graph.nodes[0].inputs[2].data + 0.1
    with pytest.raises(CaptureError, match="output y differs from the file's own"):
        prove(graph, file, runtime(path))
    with pytest.raises(CaptureError, match="differs"):
        prove(graph, file)


# quantized files
def quantized(scale: float = 0.05, second: float | None = None) -> tuple[list[Any], dict[str, Any]]:
    """x -> uint8 -> conv of int8 weights -> relu -> uint8 -> max pool -> uint8 of the same parameters."""
    steps = [
        ("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
        ("DequantizeLinear", ["xq", "sx", "zx"], ["xd"]),
        ("DequantizeLinear", ["wq", "sw", "zw"], ["w"], {"axis": 0}),
        ("DequantizeLinear", ["bq", "sb", "zb"], ["b"], {"axis": 0}),
        ("Conv", ["xd", "w", "b"], ["c"]),
        ("Relu", ["c"], ["r"]),
        ("QuantizeLinear", ["r", "sr", "zr"], ["rq"]),
        ("DequantizeLinear", ["rq", "sr", "zr"], ["rd"]),
        ("MaxPool", ["rd"], ["y"], {"kernel_shape": [2, 2]}),
    ]
    rng = np.random.default_rng(0)
    weight_scale = f32(0.01, 0.02, 0.03, 0.01, 0.02, 0.03)
    return steps, {
        "sx": np.float32(scale),
        "zx": np.uint8(120),
        "wq": rng.integers(-127, 128, (6, 4, 3, 3), dtype=np.int8),
        "sw": weight_scale,
        "zw": np.zeros(6, np.int8),
        "bq": rng.integers(-500, 500, 6, dtype=np.int32),
        "sb": weight_scale * np.float32(scale),
        "zb": np.zeros(6, np.int32),
        "sr": np.float32(0.1),
        "zr": np.uint8(0),
    }


def test_qdq_pairs_become_annotations(tmp_path: Path) -> None:
    steps, constants = quantized()
    path = saved(model(steps, constants), tmp_path)
    file = read(path)
    graph = import_onnx(file)
    assert prove(graph, file) < 1e-3
    assert ops(graph) == ["conv2d", "relu", "max_pool2d"]
    x, weight, relu = graph.inputs[0], graph.nodes[0].inputs[1], graph.nodes[1].output
    assert x.quant is not None and weight is not None and weight.quant is not None
    assert (x.quant.dtype, x.quant.zero_point, x.quant.axis) == ("int8", (120 - 128,), None)
    assert x.range == pytest.approx((-120 * 0.05, 135 * 0.05))
    assert (
        relu.quant is not None
        and relu.quant.zero_point == (-128,)
        and relu.range == (0, 255 * np.float32(0.1))
    )
    assert weight.quant.axis == 0 and weight.quant.scale == tuple(float(s) for s in constants["sw"])
    scale = torch.tensor(weight.quant.scale).reshape(-1, 1, 1, 1)
    assert weight.data is not None
    assert torch.equal(torch.round(weight.data / scale).to(torch.int8), torch.from_numpy(constants["wq"]))
    assert graph.nodes[0].output.quant is None


def test_a_quantized_gemm_turns_its_axis(tmp_path: Path) -> None:
    steps = [
        ("Flatten", ["x"], ["f"]),
        ("DequantizeLinear", ["wq", "sw", "zw"], ["w"], {"axis": 1}),
        ("Gemm", ["f", "w"], ["y"]),
    ]
    constants = {
        "wq": np.random.default_rng(0).integers(-127, 128, (320, 3), dtype=np.int8),
        "sw": f32(0.01, 0.02, 0.03),
        "zw": np.zeros(3, np.int8),
    }
    file = read(saved(model(steps, constants), tmp_path))
    graph = import_onnx(file)
    assert prove(graph, file) <= 1e-4  # onnxruntime would quantize the input too
    weight = graph.nodes[1].inputs[1]
    assert weight is not None and weight.quant is not None
    assert weight.shape == (3, 320) and weight.quant.axis == 0


def test_integers_read_by_another_scale_are_a_product(tmp_path: Path) -> None:
    steps, constants = quantized()
    steps[1] = ("DequantizeLinear", ["xq", "sr", "zx"], ["xd"])
    file = read(saved(model(steps, constants), tmp_path))
    graph = import_onnx(file)
    assert prove(graph, file) < 1e-3
    assert ops(graph) == ["mul", "conv2d", "relu", "max_pool2d"]
    factor, product = graph.nodes[0].inputs[1], graph.nodes[0].output
    assert factor is not None and factor.data is not None
    assert float(factor.data) == pytest.approx(0.1 / 0.05, rel=1e-6)
    assert product.quant is not None and product.quant.scale == (float(np.float32(0.1)),)


def test_contradicting_zero_points_are_refused(tmp_path: Path) -> None:
    steps, constants = quantized()
    steps[1] = ("DequantizeLinear", ["xq", "sx", "zr"], ["xd"])
    with pytest.raises(CaptureError, match="another zero point or type than its QuantizeLinear at Dequant"):
        import_onnx(read(saved(model(steps, constants), tmp_path)))


# refusals
def test_all_unsupported_operators_are_listed(tmp_path: Path) -> None:
    steps = [
        ("Tan", ["x"], ["a"]),
        ("Acos", ["a"], ["b"]),
        ("Tan", ["x"], ["c"]),
        ("Erf", ["x"], ["d"]),
        ("Slice", ["b", "s", "e", "ax", "st"], ["f"]),
        ("Add", ["c", "d"], ["g"]),
        ("Add", ["g", "f"], ["y"]),
    ]
    constants = {"s": i64(5), "e": i64(0), "ax": i64(2), "st": i64(-1)}
    with pytest.raises(CaptureError) as caught:
        import_onnx(read(saved(model(steps, constants), tmp_path)))
    message = str(caught.value)
    assert message.startswith("[capture] net: cannot import ") and "\n" not in message
    for part in ("Acos at Acos_1", "Tan at Tan_0, Tan_2", "Erf (only within GELU) at Erf_3"):
        assert part in message


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (one("ArgMax", select_last_index=1), "ArgMax of the last of equals"),
        (one("GRU", noise(1, 9, 10), noise(1, 9, 3)), "GRU"),
        (one("Resize", None, SCALES, mode="cubic"), "cubic Resize"),
        (one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER"), "a padding of 1 before"),
        (one("Cast", to=TensorProto.COMPLEX64), "Cast to type 14"),
        (one("RandomNormalLike"), "RandomNormalLike"),
    ],
)
def test_arguments_that_cannot_be_expressed(case: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=reason):
        import_onnx(read(saved(model(*case), tmp_path)))


@pytest.mark.parametrize("cut", [0, 20, 300])
def test_damaged_files(cut: int, tmp_path: Path) -> None:
    path = saved(model(*one("Conv", W, B)), tmp_path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ArtifactError, match=r"net\.onnx: (cannot be read|holds no graph|is inconsistent)"):
        read(path)


def test_a_foreign_file(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"not a model at all" * 20)
    with pytest.raises(ArtifactError, match="a whole ONNX file"):
        read(path)


def test_training_files(tmp_path: Path) -> None:
    proto = model(*one("Relu"))
    proto.graph.node[0].op_type, proto.graph.node[0].domain = "Adam", "ai.onnx.preview.training"
    with pytest.raises(CaptureError, match=r"training operators \(Adam at Relu_0\)"):
        read(saved(proto, tmp_path))


INPUTS = {
    "uint8": (TensorProto.UINT8, (1, 4, 8, 10)),
    "int32": (TensorProto.INT32, (1, 4, 8, 10)),
    "float64": (TensorProto.DOUBLE, (1, 4, 8, 10)),
    "channels last": (TensorProto.FLOAT, (1, 8, 10, 3)),
    "uint8, channels last": (TensorProto.UINT8, (1, 8, 10, 3)),
    "grey": (TensorProto.FLOAT, (1, 1, 8, 10)),
}


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_of_every_kind(name: str, tmp_path: Path) -> None:
    elem_type, shape = INPUTS[name]
    last = "last" in name
    steps: list[Any] = [("Cast", ["x"], ["f"], {"to": TensorProto.FLOAT})]
    steps += [("Transpose", ["f"], ["t"], {"perm": [0, 3, 1, 2]})] if last else []
    channels = shape[3] if last else shape[1]
    steps.append(("Conv", ["t" if last else "f", "w"], ["y"]))
    graph = imported(tmp_path, steps, {"w": noise(6, channels, 3, 3)}, shape, elem_type=elem_type)
    assert graph.inputs[0].shape == ((1, 3, 8, 10) if last else shape)
    assert graph.batchable


def test_open_sides_of_a_picture_with_its_channels_last(tmp_path: Path) -> None:
    steps = [("Transpose", ["x"], ["t"], {"perm": [0, 3, 1, 2]}), ("GlobalAveragePool", ["t"], ["y"])]
    file = read(saved(model(steps, {}, ("n", "h", "w", 3)), tmp_path))
    assert import_onnx(file, 32).inputs[0].shape == (1, 3, 32, 32)
    with pytest.raises(CaptureError, match="--resolution PIXELS"):
        import_onnx(file)


def test_a_file_in_half_precision(tmp_path: Path) -> None:
    steps = [("Conv", ["x", "w", "b"], ["c"]), ("Relu", ["c"], ["y"])]
    weights = {"w": W.astype(np.float16), "b": B.astype(np.float16)}
    path = saved(model(steps, weights, elem_type=TensorProto.FLOAT16), tmp_path)
    graph = import_onnx(read(path))
    assert prove(graph, read(path), runtime(path)) <= 2e-2
    assert all(value.dtype == "float32" for value in graph.values())


def test_integers_that_come_in_and_are_dequantized(tmp_path: Path) -> None:
    steps = [("DequantizeLinear", ["x", "s", "z"], ["f"]), ("Conv", ["f", "w"], ["y"])]
    constants = {"s": np.float32(0.02), "z": np.uint8(120), "w": noise(6, 4, 3, 3)}
    graph = imported(tmp_path, steps, constants, elem_type=TensorProto.UINT8)
    assert ops(graph) == ["sub", "mul", "conv2d"]


def test_inputs_that_are_no_numbers(tmp_path: Path) -> None:
    proto = model(*one("Identity"), elem_type=TensorProto.STRING)
    with pytest.raises(CaptureError, match="input x of the ONNX file has type 8: float32, uint8"):
        read(saved(proto, tmp_path))


def external(folder: Path, location: str) -> Path:
    proto = model(*one("Conv", W, B))
    for tensor in proto.graph.initializer:
        external_data_helper.set_external_data(tensor, location)
        tensor.ClearField("raw_data")
    return saved(proto, folder)


def test_data_beside_the_model(tmp_path: Path) -> None:
    path = saved(model(*one("Conv", W, B)), tmp_path, "whole.onnx")
    proto = model(*one("Conv", W, B))
    external_data_helper.convert_model_to_external_data(proto, location="w.bin", size_threshold=0)
    from onnx import save

    save(proto, str(tmp_path / "net.onnx"))
    both = [import_onnx(read(p)) for p in (path, tmp_path / "net.onnx")]
    x = torch.from_numpy(noise(1, 4, 8, 10))
    assert torch.equal(outputs(both[0], x)[0], outputs(both[1], x)[0])
    first = read(tmp_path / "net.onnx").sha256
    data = bytearray((tmp_path / "w.bin").read_bytes())
    data[3] ^= 1
    (tmp_path / "w.bin").write_bytes(bytes(data))
    assert read(tmp_path / "net.onnx").sha256 != first


def test_data_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"data file w\.bin is missing \(tensor c0\)"):
        read(external(tmp_path, "w.bin"))


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "a/../../secret", "C:\\secret", "link"])
def test_data_outside_the_folder(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"0" * 4096)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(ArtifactError, match="a file beside the model"):
        read(external(folder, location))
