"""The simulator does integer arithmetic: checked against int64 by hand and against fake-quantization."""

import torch
from quantize_graphs import Builder, inverted_residual_net, smooth_images

from edgekit.graph.run import run
from edgekit.quantize import bias_integers, fake_quantize, integers, quantize, simulate, sqnr_db
from edgekit.quantize.simulate import on_value


def test_a_convolution_equals_integer_arithmetic_exactly():
    b = Builder((1, 3, 8, 8))
    graph = quantize(b.graph(b.conv(b.input, 5, 3, activation="relu6")), smooth_images(8, 0, 8)).graph
    images = smooth_images(3, 1, 8)
    node = graph.nodes[0]
    x, weight, out = node.inputs[0].quant, node.inputs[1], node.output.quant
    stored = (
        torch.clamp(torch.round(images / x.scale[0]) + x.zero_point[0], -128, 127).long() - x.zero_point[0]
    )
    sums = torch.nn.functional.conv2d(stored.double(), integers(weight).double(), padding=1).long()
    sums += bias_integers(node).long().view(-1, 1, 1)
    multiplier = (torch.tensor(weight.quant.scale, dtype=torch.float64) * x.scale[0] / out.scale[0]).float()
    result = torch.round(sums.float() * multiplier.view(-1, 1, 1)) + out.zero_point[0]
    high = min(127, round(6 / out.scale[0]) + out.zero_point[0])
    expected = (result.clamp(max(-128, out.zero_point[0]), high) - out.zero_point[0]) * out.scale[0]
    assert torch.equal(simulate(graph, images)[0], expected)


def test_outputs_lie_on_their_grid_and_batches_do_not_matter():
    graph = quantize(inverted_residual_net(), smooth_images(8, 0)).graph
    images = smooth_images(5, 1)
    together = simulate(graph, images)[0]
    apart = simulate(graph, images, batch=2)[0]
    assert torch.equal(together, apart)
    quant = graph.outputs[0].quant
    steps = together / quant.scale[0]
    assert torch.allclose(steps, steps.round(), atol=1e-3)


def test_agrees_with_fake_quantization_of_every_value():
    graph = quantize(inverted_residual_net(), smooth_images(16, 0)).graph
    images = smooth_images(8, 1)
    with torch.no_grad():
        fake = run(graph, [images], on_value)[0]
    assert sqnr_db(fake, simulate(graph, images)[0]) > sqnr_db(run(graph, [images])[0], fake) + 3


def test_int8_follows_the_float_graph():
    float_graph = inverted_residual_net()
    images = smooth_images(16, 1)
    graph = quantize(float_graph, smooth_images(32, 0)).graph
    assert sqnr_db(run(float_graph, [images])[0], simulate(graph, images)[0]) > 15


def test_a_value_without_parameters_stays_float():
    b = Builder((1, 3, 8, 8))
    x = b.conv(b.input, 4)
    y = b.op("gelu", x)
    graph = quantize(b.graph(b.conv(y, 3)), smooth_images(8, 0, 8)).graph
    images = smooth_images(4, 1, 8)
    before = simulate(graph, images)[0]
    for value in graph.values():
        value.quant = None
    assert torch.allclose(simulate(graph, images)[0], run(graph, [images])[0], atol=1e-5)
    assert not torch.equal(before, simulate(graph, images)[0])


def test_gradients_pass_straight_through_inside_the_range_only():
    b = Builder((1, 3, 8, 8))
    graph = quantize(b.graph(b.conv(b.input, 4)), smooth_images(8, 0, 8)).graph
    quant = graph.inputs[0].quant
    top = (127 - quant.zero_point[0]) * quant.scale[0]
    x = torch.tensor([0.0, 0.3 * top, 2 * top], requires_grad=True)
    fake_quantize(x, quant).sum().backward()
    assert x.grad.tolist() == [1.0, 1.0, 0.0]
