"""A graph whose file brought its own scales, completed by our rules."""

import pytest
import torch

from edgekit.errors import QuantizationError
from edgekit.graph.ir import Graph, Node, QuantParams, Value
from edgekit.quantize.given import complete, is_given

GIVEN = QuantParams((0.05,), (-8,))
SPAN = (-6.0, 6.75)


def graph(weight=None):
    data = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    x, w = Value("x", (1, 1, 2, 2), range=SPAN, quant=GIVEN), Value("w", (3, 4), data=data, quant=weight)
    flat, y = Value("flat", (1, 4)), Value("y", (1, 3))
    nodes = [Node("reshape", [x], [flat], {"shape": (-1, 4)}), Node("linear", [flat, w, None], [y], {})]
    return Graph([x], [y], nodes)


def test_moved_tensors_share_the_scale_and_weights_are_per_channel():
    source = graph(QuantParams((0.02,), (0,)))
    y = source.outputs[0]
    y.quant, y.range = QuantParams((0.1,), (-128,)), (0.0, 25.5)
    done = complete(source)
    assert is_given(source) and source.value("flat").quant is None
    assert done.value("x").quant == done.value("flat").quant == GIVEN
    assert done.value("y").quant == QuantParams((0.1,), (-128,))
    assert done.value("w").quant == QuantParams((0.02,) * 3, (0,) * 3, "int8", 0)


def test_what_nothing_gives_a_scale_is_named():
    with pytest.raises(QuantizationError, match="but not y: calibration images, a file that quantizes every"):
        complete(graph())


def test_what_the_file_leaves_in_float_takes_its_range_from_images():
    source = graph()
    images = torch.randn(8, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    done = complete(source, lambda: images)
    answers = images.flatten(1) @ source.value("w").data.T
    low, high = float(answers.min()), float(answers.max())
    assert done.value("y").range == pytest.approx((low, high), rel=1e-5)
    assert done.value("x").quant == GIVEN and source.value("y").quant is None


def test_what_moves_behind_a_fixed_range_takes_it_from_its_group():
    source = graph()
    logits, gate, moved = source.outputs[0], Value("gate", (1, 3)), Value("moved", (3, 1))
    logits.quant, logits.range = GIVEN, SPAN
    source.nodes += [
        Node("sigmoid", [logits], [gate], {}),
        Node("reshape", [gate], [moved], {"shape": (-1, 1)}),
    ]
    source.outputs = [moved]
    done = complete(source, lambda: torch.zeros(2, 1, 2, 2))
    assert done.value("moved").quant == done.value("gate").quant == QuantParams((1 / 256,), (-128,))


def test_images_are_not_asked_for_when_the_file_gives_everything():
    source = graph()
    source.outputs[0].quant, source.outputs[0].range = GIVEN, SPAN
    complete(source, lambda: pytest.fail("nothing is left to calibrate"))


def test_weights_with_zero_points_are_refused():
    source = graph(QuantParams((0.02,), (5,)))
    source.outputs[0].quant, source.outputs[0].range = GIVEN, SPAN
    with pytest.raises(QuantizationError, match="weight w has zero points"):
        complete(source)
