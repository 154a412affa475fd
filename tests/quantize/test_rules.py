"""Which tensors share parameters, which parameters are dictated, and what readers cannot tell apart."""

import math

import torch
from quantize_graphs import Builder, inverted_residual_net, smooth_images

from edgekit.graph.ir import QuantParams
from edgekit.graph.ops import SAME
from edgekit.quantize import QuantizeSettings, qparams, quantize, rules


def _group_of(graph, value):
    return next(g for g in rules.groups(graph).groups if value in g)


def test_every_op_that_shares_its_range_says_why():
    assert all(SAME.values())


def test_dictated_parameters_cover_the_range_of_the_function():
    for name, by_dtype in rules.FIXED.items():
        low, high = rules.fixed_range(name)
        for dtype, quant in by_dtype.items():
            codes = torch.tensor(qparams.LIMITS[dtype]) - quant.zero_point[0]
            ends = (codes * quant.scale[0]).tolist()
            assert quant.dtype == dtype
            assert ends[0] <= low and ends[1] >= high - quant.scale[0]


def test_concat_split_and_pooling_form_one_group():
    b = Builder((1, 3, 8, 8))
    x = b.conv(b.input, 4)
    y = b.conv(b.input, 4)
    joined = b.op("concat", x, y, dim=1)
    pooled = b.op("max_pool2d", joined, kernel=(2, 2), stride=(2, 2), padding=(0, 0))
    first = b.op("split", pooled, outputs=2, sizes=(2, 6), dim=1)
    last = b.conv(first, 5)
    graph = b.graph(last)
    group = set(_group_of(graph, joined))
    assert group == {x, y, joined, pooled, *graph.nodes[4].outputs}
    assert _group_of(graph, last) == [last]
    annotated = quantize(graph, smooth_images(4, 0, 8)).graph
    quants = {annotated.value(v.name).quant for v in group}
    assert len(quants) == 1


def test_fixed_outputs():
    b = Builder((1, 3, 8, 8))
    x = b.conv(b.input, 4)
    outs = [b.op("sigmoid", x), b.op("tanh", x), b.op("softmax", x, dim=1), b.op("hardsigmoid", x)]
    moved = b.op("reshape", outs[0], shape=(-1, 256))
    annotated = quantize(b.graph(*outs, moved), smooth_images(4, 0, 8)).graph
    got = [(q.scale[0], q.zero_point[0]) for q in (v.quant for v in annotated.outputs)]
    assert got == [(1 / 256, -128), (1 / 128, 0), (1 / 256, -128), (1 / 255, -128), (1 / 256, -128)]


def test_a_fixed_output_joined_with_another_tensor_takes_a_range_that_holds_both():
    b = Builder((1, 3, 8, 8))
    x = b.conv(b.input, 4)
    joined = b.op("concat", b.op("sigmoid", x), x, dim=1)
    annotated = quantize(b.graph(joined), smooth_images(4, 0, 8)).graph
    value = annotated.outputs[0]
    assert value.quant != QuantParams((1 / 256,), (-128,))
    assert value.range[0] < -0.1 and value.range[1] >= 1.0


def test_constants_that_are_operands_are_activations_and_parameters_are_not():
    b = Builder((1, 3, 8, 8))
    offset = b.constant("offset", b.random(1, 4, 1, 1))
    x = b.op("add", b.conv(b.input, 4), offset)
    stats = [b.constant(f"s{i}", b.random(4).abs()) for i in range(4)]
    x = b.op("batch_norm", x, *stats, eps=1e-5)
    annotated = quantize(b.graph(x), smooth_images(4, 0, 8)).graph
    assert annotated.value("offset").quant.axis is None
    assert all(annotated.value(f"s{i}").quant is None for i in range(4))
    conv = annotated.nodes[0]
    assert conv.inputs[1].quant.axis == 0 and len(conv.inputs[1].quant.scale) == 4
    assert conv.inputs[2].quant is None


def test_readers_clip_only_when_all_of_them_do():
    b = Builder((1, 3, 8, 8))
    x = b.conv(b.input, 4)
    swish = b.op("hardswish", x)
    graph = b.graph(swish)
    clip = rules.reader_clip([x], graph.users(), set(graph.outputs))
    assert clip == (-3.0, math.inf)
    b.op("add", x, swish)
    graph = b.graph(b.nodes[-1].output)
    assert rules.reader_clip([x], graph.users(), set(graph.outputs)) == (-math.inf, math.inf)
    graph = b.graph(swish, x)
    assert rules.reader_clip([x], graph.users(), set(graph.outputs)) == (-math.inf, math.inf)


def test_every_float_value_is_annotated():
    graph = quantize(inverted_residual_net(), smooth_images(8, 0), QuantizeSettings()).graph
    biases = {rules.bias_of(n) for n in graph.nodes}
    assert all((v.quant is not None and v.range is not None) != (v in biases) for v in graph.values())
