"""Activations that a quantizer folded into the saturation of QuantizeLinear come back as operators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from graphs import captured, ops, outputs
from onnx_graphs import model, noise, saved
from onnxruntime import quantization
from test_capture_onnx import f32, runtime

from edgekit.capture.onnx import import_onnx, prove, read
from edgekit.capture.onnx.saturation import folded_bounds, restore_activations
from edgekit.capture.quantized import fake_quantize
from edgekit.graph.ir import Graph, QuantParams
from edgekit.graph.run import run

INFINITE = float("inf")


def grid(low: float, high: float) -> QuantParams:
    """The parameters of a calibrated range, as ONNX Runtime's quantizer makes them."""
    scale = np.float32((high - low) / 255)
    return QuantParams((float(scale),), (int(np.clip(np.rint(-low / scale), 0, 255)) - 128,))


@pytest.mark.parametrize(
    ("low", "high", "bounds"),
    [
        (0.0, 6.0, (0.0, 6.0)),
        (0.0, 5.2137, (0.0, INFINITE)),
        (0.0, 4.0, (0.0, 4.0)),
        (-1.0, 1.0, (-1.0, 1.0)),
        (-2.0, 6.0, (-2.0, 6.0)),
        (-3.117, 0.0, (-INFINITE, 0.0)),
        (-1.318, 4.052, (-INFINITE, INFINITE)),
        (-1.5, 1.5, (-INFINITE, INFINITE)),
    ],
)
def test_whole_ends_are_an_activation_and_others_the_calibration(
    low: float, high: float, bounds: tuple[float, float]
) -> None:
    assert folded_bounds(grid(low, high)) == bounds


X = noise(2, 4, 8, 8, seed=7)
W, V = noise(6, 4, 3, 3, seed=1), noise(6, 6, 3, 3, seed=2)
CONV = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
Steps = list[Any]


def _two(*activation: Any, attrs: dict[str, Any] | None = None) -> Steps:
    """conv, activation, conv."""
    op, *rest = activation
    return [
        ("Conv", ["x", "w"], ["c"], CONV),
        (op, ["c", *rest], ["r"], attrs or {}),
        ("Conv", ["r", "v"], ["y"], CONV),
    ]


_RESIDUAL: Steps = [
    ("Conv", ["x", "w"], ["c"], CONV),
    ("Relu", ["c"], ["r"]),
    ("Conv", ["r", "v"], ["d"], CONV),
    ("Add", ["r", "d"], ["s"]),
    ("Relu", ["s"], ["t"]),
    ("GlobalAveragePool", ["t"], ["y"]),
]
_POOLED: Steps = [
    ("Conv", ["x", "w"], ["c"], CONV),
    ("Clip", ["c", "zero", "six"], ["r"]),
    ("MaxPool", ["r"], ["p"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("Conv", ["p", "v"], ["y"], CONV),
]
_GATED: Steps = [
    ("Conv", ["x", "w"], ["c"], CONV),
    ("GlobalAveragePool", ["c"], ["g"]),
    ("Conv", ["g", "v"], ["a"], CONV),
    ("Relu", ["a"], ["b"]),
    ("Conv", ["b", "v"], ["d"], CONV),
    ("Sigmoid", ["d"], ["e"]),
    ("Mul", ["c", "e"], ["y"]),
]
NETS: dict[str, tuple[Steps, list[str]]] = {
    "relu": (_two("Relu"), ["conv2d", "relu", "conv2d"]),
    "relu6": (_two("Clip", "zero", "six"), ["conv2d", "relu6", "conv2d"]),
    "to one": (_two("Clip", "zero", "one"), ["conv2d", "clamp", "conv2d"]),
    "hardtanh": (_two("Clip", "minus", "one"), ["conv2d", "clamp", "conv2d"]),
    "residual": (_RESIDUAL, ["conv2d", "relu", "conv2d", "add", "relu", "mean"]),
    "pooled": (_POOLED, ["conv2d", "relu6", "max_pool2d", "conv2d"]),
    "gated": (_GATED, ["conv2d", "mean", "conv2d", "relu", "conv2d", "sigmoid", "mul"]),
}
CONSTANTS = {"w": W, "v": V * 0.3, "zero": f32(0)[0], "six": f32(6)[0], "one": f32(1)[0], "minus": f32(-1)[0]}


class _Images(quantization.CalibrationDataReader):
    def __init__(self) -> None:
        self.left = [{"x": X[i : i + 1]} for i in range(len(X))]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.left.pop() if self.left else None


def _quantized(steps: Steps, folder: Path, **settings: Any) -> tuple[Path, Path]:
    """(float file, what ONNX Runtime's quantizer makes of it)."""
    used = {name for _, inputs, *_ in steps for name in inputs}
    path = saved(model(steps, {k: v for k, v in CONSTANTS.items() if k in used}, (1, 4, 8, 8)), folder)
    made = folder / "quantized.onnx"
    quantization.quantize_static(path, made, _Images(), per_channel=True, **settings)
    return path, made


def _error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.sqrt(np.square(found - wanted).mean() / np.square(wanted).mean()))


@pytest.mark.parametrize("activation", ["QUInt8", "QInt8"])
@pytest.mark.parametrize("name", NETS)
def test_the_float_function_of_a_quantized_file_keeps_its_activations(
    name: str, activation: str, tmp_path: Path
) -> None:
    steps, left = NETS[name]
    kind = getattr(quantization.QuantType, activation)
    source, made = _quantized(steps, tmp_path, activation_type=kind)
    assert not {"Relu", "Clip"} & {node.op_type for node in onnx.load(made).graph.node}  # it folded them
    file = read(made)
    graph = import_onnx(file)
    assert ops(graph) == left
    assert prove(graph, file, runtime(made)) < 0.02
    in_float, given, ours = runtime(source), runtime(made), []
    for image in X:
        (wanted,), (answer,) = in_float([image[None]]), given([image[None]])
        images = [torch.from_numpy(image[None])]
        ours.append(_error(run(graph, images)[0].numpy(), wanted))
        assert _error(run(graph, images, fake_quantize)[0].numpy(), answer) < 0.02
    assert max(ours) < 0.03  # its weights are int8


# hardsigmoid as a line that its grid clips
def line_to_half(high: float | None) -> Graph:
    """x/6 + 1/2, on a grid from 0 to `high`."""
    graph = captured(lambda m, x: x * (1 / 6) + 0.5, torch.from_numpy(X[:1]))
    if high is not None:
        graph.outputs[0].quant, graph.outputs[0].range = QuantParams((high / 255,), (-128,)), (0.0, high)
    return graph


def test_a_line_that_its_grid_clips_is_a_hardsigmoid() -> None:
    graph = line_to_half(1.0)
    assert restore_activations(graph, graph.outputs) == 1 and graph.remove_dead() == 1
    assert ops(graph) == ["hardsigmoid"]
    x = torch.from_numpy(X) * 4
    torch.testing.assert_close(outputs(graph, x)[0], F.hardsigmoid(x))


@pytest.mark.parametrize(("high", "left"), [(None, ["mul", "add"]), (1.5, ["mul", "add", "relu"])])
def test_a_line_that_nothing_clips_at_one_stays_a_line(high: float | None, left: list[str]) -> None:
    graph = line_to_half(high)
    restore_activations(graph, graph.outputs)
    assert ops(graph) == left


@pytest.mark.parametrize("gate", [torch.sigmoid, torch.tanh, F.hardswish])
def test_bounds_that_the_reader_implies_stay_out(gate: Callable[[torch.Tensor], torch.Tensor]) -> None:
    graph = captured(lambda m, x: gate(x * 2), torch.from_numpy(X[:1]))
    graph.nodes[0].output.quant = grid(-8.0, 8.0)
    assert restore_activations(graph, [graph.nodes[0].output]) == 0
