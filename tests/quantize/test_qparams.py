"""Parameters are exact where they must be, and usable for every degenerate range."""

import math

import numpy as np
import pytest
import torch
from quantize_graphs import Builder, smooth_images

from edgekit.errors import QuantizationError
from edgekit.graph.ir import Value
from edgekit.quantize import annotate, bias_integers, integers, qparams, quantize


@pytest.mark.parametrize(
    "low, high", [(-1.0, 1.0), (0.0, 6.0), (-3.0, 0.2), (0.4, 2.0), (-5.0, -1.0), (-1e-6, 3e-6)]
)
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
def test_zero_is_an_integer_and_the_range_is_covered(low, high, dtype):
    quant = qparams.from_range(low, high, dtype)
    smallest, largest = qparams.LIMITS[dtype]
    (scale,), (zero_point,) = quant.scale, quant.zero_point
    assert smallest <= zero_point <= largest
    assert scale == float(np.float32(scale))
    slack = 0.5001 * scale + 1e-12
    assert (smallest - zero_point) * scale <= min(low, 0.0) + slack
    assert (largest - zero_point) * scale >= max(high, 0.0) - slack


def test_relu6_and_unit_ranges_are_exact():
    assert qparams.from_range(0.0, 6.0).zero_point == (-128,)
    assert qparams.from_range(-1.0, 0.0).zero_point == (127,)
    assert qparams.from_range(0.0, 255.0).scale == (1.0,)


@pytest.mark.parametrize("low, high", [(0.0, 0.0), (0.0, 1e-12), (-1e-30, 0.0)])
def test_nothing_to_measure_takes_an_ordinary_scale(low, high):
    assert qparams.from_range(low, high) == qparams.from_range(0.0, 1.0)


@pytest.mark.parametrize("low, high", [(math.nan, 1.0), (0.0, math.inf), (2.0, 1.0)])
def test_ranges_that_are_no_ranges(low, high):
    with pytest.raises(QuantizationError, match="finite bounds in order"):
        qparams.from_range(low, high)


def test_weights_are_symmetric_per_channel_and_reach_127():
    weight = torch.tensor([[1.0, -2.0], [0.5, 0.25], [0.0, 0.0]])
    value = Value("w", (3, 2), data=weight, quant=qparams.weight_quant(weight))
    stored = integers(value)
    assert stored.dtype == torch.int8
    assert stored.tolist() == [[64, -127], [127, 64], [0, 0]]
    assert all(s > 0 for s in value.quant.scale)


def test_weight_axis_of_a_transposed_convolution():
    weight = torch.zeros(2, 3, 1, 1)
    weight[0, :, 0, 0] = torch.tensor([1.0, 2.0, 4.0])
    quant = qparams.weight_quant(weight, axis=1)
    assert quant.axis == 1
    assert quant.scale == pytest.approx([1 / 127, 2 / 127, 4 / 127])


def test_a_large_bias_on_a_dead_channel_fits_int32():
    b = Builder((1, 3, 8, 8))
    x = b.conv(b.input, 2)
    weight, bias = b.nodes[0].inputs[1:]
    weight.data[1] = 0.0
    bias.data[1] = 1e6
    graph = quantize(b.graph(x), smooth_images(4, 0, 8)).graph
    stored = bias_integers(graph.nodes[0])
    assert stored.abs().max() <= 2**30 * 1.001
    node = graph.nodes[0]
    assert float(stored[1]) * node.inputs[0].quant.scale[0] * node.inputs[1].quant.scale[1] == pytest.approx(
        1e6, rel=1e-6
    )


def test_annotate_derives_int16_from_the_ranges_a_graph_carries():
    b = Builder((1, 3, 8, 8))
    x = b.op("sigmoid", b.conv(b.input, 2))
    graph = quantize(b.graph(x), smooth_images(4, 0, 8)).graph
    weights = graph.nodes[0].inputs[1].quant
    annotate(graph, dtype="int16")
    assert graph.inputs[0].quant.dtype == "int16" and graph.inputs[0].quant.zero_point == (0,)
    assert graph.outputs[0].quant.scale == (1 / 32768,)
    assert graph.nodes[0].inputs[1].quant == weights


def test_annotate_without_ranges_names_the_value():
    b = Builder((1, 3, 8, 8))
    with pytest.raises(QuantizationError, match=r"image.*no calibrated range"):
        annotate(b.graph(b.conv(b.input, 2)))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_calibration_images_are_caught_before_running(bad):
    b = Builder((1, 3, 8, 8))
    images = smooth_images(4, 0, 8)
    images[2, 1, 3, 3] = bad
    with pytest.raises(QuantizationError, match="calibration image 2 contains NaN or infinity"):
        quantize(b.graph(b.conv(b.input, 2)), images)


def test_bad_activations_name_value_module_and_image():
    b = Builder((1, 3, 8, 8))
    x = b.op("log", b.conv(b.input, 2, activation="relu"))
    with pytest.raises(
        QuantizationError, match=r"log_1 at log_1 \(log\) is NaN or infinite on calibration image 0"
    ):
        quantize(b.graph(x), smooth_images(4, 0, 8))


def test_bad_weights_name_the_weight():
    b = Builder((1, 3, 8, 8))
    x = b.conv(b.input, 2)
    b.nodes[0].inputs[1].data[0, 0] = math.inf
    with pytest.raises(QuantizationError, match="conv2d_0"):
        quantize(b.graph(x), smooth_images(4, 0, 8))


@pytest.mark.parametrize("shape", [(4, 3, 9, 8), (4, 1, 8, 8), (0, 3, 8, 8)])
def test_images_of_another_shape(shape):
    b = Builder((1, 3, 8, 8))
    with pytest.raises(QuantizationError, match=r"expected \(N, 3, 8, 8\)"):
        quantize(b.graph(b.conv(b.input, 2)), torch.zeros(shape))
