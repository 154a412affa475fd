"""Equalization keeps the function, undoes any rescaling of channels, and leaves alone what it must."""

import pytest
import torch
from quantize_graphs import Builder, inverted_residual_net, rescale_channels, smooth_images

from edgekit.graph.ir import Graph, Node
from edgekit.graph.run import run
from edgekit.quantize import QuantizeSettings, quantize, simulate, sqnr_db
from edgekit.quantize.equalize import apply_scales, channel_reach, equalize, families, family_scales
from edgekit.quantize.observers import observe

PLAIN = QuantizeSettings(
    ranges="minmax", equalize=False, weight_mse=False, bias_correction=False, gptq=False, calibration=64
)


def _same_function(a: Graph, b: Graph, images: torch.Tensor) -> None:
    expected, got = run(a, [images])[0], run(b, [images])[0]
    assert torch.allclose(expected, got, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("balance", [0.0, 0.25, 0.5])
def test_the_float_function_stays(balance):
    before, after = inverted_residual_net(), inverted_residual_net()
    images = smooth_images(8, 0)
    assert equalize(after, observe(after, images), balance) > 5
    assert not torch.equal(before.nodes[2].inputs[1].data, after.nodes[2].inputs[1].data)
    _same_function(before, after, smooth_images(4, 1))


def test_observations_are_rescaled_with_the_graph():
    graph = inverted_residual_net()
    images = smooth_images(8, 0)
    seen = observe(graph, images, samples=64)
    equalize(graph, seen)
    fresh = observe(graph, images, samples=64)
    for value in fresh.low:
        size = float(fresh.high[value].abs().max() + fresh.low[value].abs().max())
        for name in ("low", "high", "sample"):
            ours, theirs = getattr(seen, name)[value], getattr(fresh, name)[value]
            assert torch.allclose(ours, theirs, atol=1e-4 * size, rtol=1e-4), (value, name)
    for node in fresh.mean:
        size = float(fresh.mean[node].abs().max())
        assert torch.allclose(seen.mean[node], fresh.mean[node], atol=1e-4 * size, rtol=1e-3)


def test_a_rescaled_network_is_recovered():
    graph, images, unseen = inverted_residual_net(), smooth_images(40, 0), smooth_images(32, 1)
    reference = run(graph, [unseen])[0]
    rescaled = inverted_residual_net()
    assert rescale_channels(rescaled, spread=1.5) > 5
    _same_function(graph, rescaled, unseen)
    plain = sqnr_db(reference, simulate(quantize(rescaled, images, PLAIN).graph, unseen)[0])
    equal = QuantizeSettings(
        ranges="minmax", equalize=True, weight_mse=False, bias_correction=False, gptq=False
    )
    recovered = sqnr_db(reference, simulate(quantize(rescaled, images, equal).graph, unseen)[0])
    untouched = sqnr_db(reference, simulate(quantize(graph, images, equal).graph, unseen)[0])
    assert recovered > plain + 3
    assert recovered > untouched - 1.0


def test_every_rescaled_version_arrives_at_the_same_network():
    images = smooth_images(16, 0)
    a, b = inverted_residual_net(), inverted_residual_net()
    rng = torch.Generator().manual_seed(1)
    factors = [torch.exp(torch.randn(f.units, generator=rng)) for f in families(b)]
    for family, factor in zip(families(b), factors, strict=True):
        apply_scales(family, factor)
    seen_a, seen_b = observe(a, images), observe(b, images)
    for one, other, factor in zip(families(a), families(b), factors, strict=True):
        alive = torch.stack([channel_reach(seen_a, v) > 1e-4 for v in one.values if v in seen_a.low]).any(0)
        ratio = (family_scales(other, seen_b, 0.5) * factor / family_scales(one, seen_a, 0.5))[alive]
        assert torch.allclose(ratio, ratio.mean().expand_as(ratio), rtol=1e-4), one.values


def test_a_depthwise_consumer_takes_everything():
    b = Builder((1, 3, 8, 8))
    x = b.conv(b.input, 6, activation="relu")
    y = b.conv(x, 6, 3, groups=6, activation="relu")
    graph = b.graph(b.conv(y, 4))
    seen = observe(graph, smooth_images(8, 0, 8))
    equalize(graph, seen)
    reach = channel_reach(seen, x)
    assert torch.allclose(reach, reach.max().expand(6), rtol=1e-4)


def test_residual_stream_and_squeeze_excite_are_one_family_each():
    graph = inverted_residual_net()
    found = families(graph)
    by_value = {v.name: f for f in found for v in f.values}
    adds = [n for n in graph.nodes if n.op == "add"]
    stream = by_value[adds[0].output.name]
    assert {n.output for n in adds} <= set(stream.values)
    product = next(n for n in graph.nodes if n.op == "mul")
    data = by_value[product.output.name]
    assert product.inputs[1] in data.values  # the data side
    assert product.inputs[0].name not in by_value  # the gate is pinned
    squeeze = next(n for n in graph.nodes if n.op == "mean")
    assert squeeze.output in data.values  # compensated in the first squeeze-excite layer


def _family_names(graph: Graph) -> set[str]:
    return {v.name for f in families(graph) for v in f.values}


@pytest.mark.parametrize("op", ["hardswish", "silu", "sigmoid", "gelu"])
def test_functions_that_are_not_homogeneous_pin(op):
    b = Builder((1, 3, 8, 8))
    x = b.conv(b.input, 4)
    graph = b.graph(b.conv(b.op(op, x), 3))
    assert _family_names(graph) == set()


def test_a_concatenation_ties_each_channel_to_its_own():
    b = Builder((1, 3, 8, 8))
    x, y = b.conv(b.input, 4, activation="relu"), b.conv(b.input, 6, activation="relu")
    pooled = b.op("max_pool2d", b.op("concat", x, y, x, dim=1), kernel=(2, 2), stride=(2, 2), padding=(0, 0))
    first, rest = b.op("slice", pooled, dim=1, start=0, end=6), b.op("slice", pooled, dim=1, start=6, end=14)
    graph = b.graph(b.conv(first, 3), b.conv(rest, 5))
    (family,) = families(graph)
    assert family.units == 10  # x twice and y
    images = smooth_images(8, 0, 8)
    expected = run(graph, [images])
    apply_scales(family, torch.rand(10) * 3 + 0.1)
    for a, c in zip(expected, run(graph, [images]), strict=True):
        assert torch.allclose(a, c, atol=1e-5)


def test_of_what_is_read_in_part_the_rest_is_rescaled():
    b = Builder((1, 3, 8, 8))
    x = b.conv(b.input, 6, activation="relu")
    part = b.op("slice", x, dim=1, start=0, end=2)
    graph = b.graph(b.conv(x, 4), b.op("hardswish", part))
    (family,) = families(graph)
    assert family.units == 4 and family.of[x].tolist() == [4, 4, 0, 1, 2, 3]
    images = smooth_images(8, 0, 8)
    expected = run(graph, [images])
    seen = observe(graph, images)
    reach = channel_reach(seen, x)
    scales = family_scales(family, seen, 0.0)
    after = reach * torch.cat([torch.ones(2), scales])
    assert torch.allclose(after[2:], torch.full((4,), float(reach.max())), rtol=1e-4)
    apply_scales(family, scales)
    for a, c in zip(expected, run(graph, [images]), strict=True):
        assert torch.allclose(a, c, atol=1e-5)


def test_a_rescaled_network_of_branches_arrives_at_the_same_weights():
    """Tensors that share a few units each: the level of each is found through the others."""

    def net():
        b = Builder((1, 3, 8, 8))
        x = b.conv(b.input, 5, activation="relu")
        y = b.conv(x, 4, activation="relu")
        z = b.conv(b.op("concat", x, y, dim=1), 6, activation="relu")
        joined = b.op("concat", y, z, dim=1)
        last = b.op("add", z, b.conv(joined, 6))
        return b.graph(b.conv(b.op("relu", last), 3))

    one, other, images = net(), net(), smooth_images(16, 0, 8)
    rng = torch.Generator().manual_seed(1)
    factors = [torch.exp(torch.randn(f.units, generator=rng)) for f in families(other)]
    for family, factor in zip(families(other), factors, strict=True):
        apply_scales(family, factor)
    assert torch.allclose(run(one, [images])[0], run(other, [images])[0], atol=1e-4)
    seen, rescaled = observe(one, images), observe(other, images)
    for first, second, factor in zip(families(one), families(other), factors, strict=True):
        ratio = family_scales(second, rescaled, 0.5) * factor / family_scales(first, seen, 0.5)
        assert torch.allclose(ratio, ratio.mean().expand_as(ratio), rtol=1e-3)


def test_outputs_pin():
    b = Builder((1, 3, 8, 8))
    x = b.conv(b.input, 4)
    assert _family_names(b.graph(b.conv(x, 3), x)) == set()


def test_shared_weights_pin():
    b = Builder((1, 4, 8, 8))
    x = b.conv(b.input, 4, activation="relu")
    first = b.nodes[0]
    y = b.op("conv2d", x, *first.inputs[1:], **first.attrs)
    z = b.conv(b.conv(y, 4, activation="relu"), 2)
    graph = b.graph(z)
    assert _family_names(graph) == {graph.nodes[2].output.name}


def test_two_consumers_are_both_compensated():
    b = Builder((1, 3, 8, 8))
    x = b.conv(b.input, 6, activation="relu")
    graph = b.graph(b.conv(x, 4), b.conv(x, 5, 3, groups=1))
    images = smooth_images(8, 0, 8)
    expected = run(graph, [images])
    (family,) = families(graph)
    assert len(family.consumers) == 2
    apply_scales(family, torch.rand(6) * 3 + 0.1)
    for a, c in zip(expected, run(graph, [images]), strict=True):
        assert torch.allclose(a, c, atol=1e-5)


def test_a_consumer_that_cannot_absorb_pins():
    b = Builder((1, 3, 8, 8))
    x = b.conv(b.input, 6, activation="relu")
    graph = b.graph(b.conv(x, 4), b.op("hardswish", x))
    assert _family_names(graph) == set()


def test_grouped_convolutions_absorb_by_group():
    b = Builder((1, 4, 8, 8))
    x = b.conv(b.input, 8, activation="relu")
    graph = b.graph(b.conv(x, 6, 3, groups=2))
    images = b.random(4, 4, 8, 8)
    expected = run(graph, [images])[0]
    (family,) = families(graph)
    apply_scales(family, torch.rand(8) * 3 + 0.1)
    assert torch.allclose(expected, run(graph, [images])[0], atol=1e-5)


def test_relu6_moves_only_channels_that_never_reach_it():
    b = Builder((1, 3, 8, 8))
    x = b.conv(b.input, 8, activation="relu6")
    b.nodes[0].inputs[1].data[:4] *= 20.0
    b.nodes[0].inputs[1].data[4:] *= 0.1
    b.nodes[0].inputs[2].data[4:] *= 0.1
    graph = b.graph(b.conv(x, 4))
    images = smooth_images(16, 0, 8)
    seen = observe(graph, images)
    (family,) = families(graph)
    scales = family_scales(family, seen, 0.5)
    assert (scales[:4] == 1.0).all() and (scales[4:] > 1.5).all()
    expected = run(graph, [images])[0]
    apply_scales(family, scales)
    assert torch.allclose(expected, run(graph, [images])[0], atol=1e-5)


def test_a_dead_channel_is_harmless():
    b = Builder((1, 3, 8, 8))
    x = b.conv(b.input, 6, activation="relu")
    node: Node = b.nodes[0]
    node.inputs[1].data[2] = 0.0
    node.inputs[2].data[2] = -1.0
    graph = b.graph(b.conv(x, 4))
    images = smooth_images(16, 0, 8)
    expected = run(graph, [images])[0]
    equalize(graph, observe(graph, images))
    assert torch.allclose(expected, run(graph, [images])[0], atol=1e-5)
