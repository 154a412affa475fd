"""GPTQ, least-squares scales and bias correction do what their algebra says, and not where they must not."""

import pytest
import torch
from quantize_graphs import Builder, inverted_residual_net, smooth_images

from edgekit.graph.run import run
from edgekit.quantize import QuantizeSettings, qparams, quantize, rounding
from edgekit.quantize.bias_correction import adjust, trimmed_mean
from edgekit.quantize.observers import observe

OFF = {
    "ranges": "minmax",
    "equalize": False,
    "weight_mse": False,
    "bias_correction": False,
    "gptq": False,
}


def _correlated(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=rng)
    return torch.randn(rows, columns // 4, generator=rng) @ mixing[: columns // 4]


def test_gptq_beats_nearest_on_correlated_inputs():
    rng = torch.Generator().manual_seed(1)
    weight = torch.randn(16, 48, generator=rng)
    x = _correlated(512, 48)
    quant = qparams.weight_quant(weight)
    nearest = qparams.codes(weight, quant) * qparams.scales_of(quant, 2)
    ours = rounding.gptq(weight, quant, (x.T @ x)[None] / len(x))
    errors = [float(((w - weight) @ x.T).square().mean()) for w in (nearest, ours)]
    assert errors[1] < 0.5 * errors[0]
    codes = ours / qparams.scales_of(quant, 2)
    assert torch.allclose(codes, codes.round(), atol=1e-3) and codes.abs().max() <= 127.001


@pytest.mark.parametrize("kernel, groups, stride", [(1, 1, 1), (3, 1, 2), (3, 8, 1), (3, 2, 1), (1, 1, 2)])
def test_second_moments_are_those_of_the_patches(kernel, groups, stride):
    b = Builder((1, 8, 9, 9))
    b.conv(b.input, 8, kernel, stride, groups)
    node = b.nodes[0]
    x = b.random(3, 8, 9, 9)
    found = rounding.second_moment(node, x)
    weight = node.inputs[1].data
    out = run(b.graph(node.output), [x])[0] - node.inputs[2].data.view(-1, 1, 1)
    energy = out.square().mean((0, 2, 3))  # w^T H w
    rows = weight.reshape(groups, -1, found.shape[1])
    expected = torch.einsum("gok,gkl,gol->go", rows, found, rows).flatten()
    assert torch.allclose(energy, expected, rtol=1e-4)


def test_least_squares_scales_clip_an_outlier_only_when_it_pays():
    rng = torch.Generator().manual_seed(0)
    flat = torch.rand(1, 4096, generator=rng) * 2 - 1
    peaked = torch.randn(1, 4096, generator=rng) * 0.2
    peaked[0, 0] = 2.0
    shrink = rounding.best_shrink(torch.cat([flat, peaked]))
    assert shrink[0] == 1.0 and shrink[1] < 1.0
    for rows, factor in ((flat, shrink[:1]), (peaked, shrink[1:])):
        quants = [qparams.weight_quant(rows, 0, s) for s in (torch.ones(1), factor)]
        errors = [float((qparams.codes(rows, q) * q.scale[0] - rows).square().sum()) for q in quants]
        assert errors[1] <= errors[0]


def test_bias_correction_by_hand():
    """One 1x1 convolution of a constant image: the shift is weight error times input, to the last bit."""
    b = Builder((1, 1, 4, 4))
    graph = b.graph(b.conv(b.input, 2))
    node = graph.nodes[0]
    node.inputs[1].data = torch.tensor([[[[1.0]]], [[[0.504]]]])
    node.inputs[2].data = torch.zeros(2)
    images = torch.full((4, 1, 4, 4), 2.0)
    result = quantize(graph, images, QuantizeSettings(**OFF)).graph
    node = result.nodes[0]
    # coarse weights, as if both channels shared a scale of 1/2: 1.0 stays, 0.504 becomes 0.5
    node.inputs[1].quant = qparams.QuantParams((0.5, 0.5), (0, 0), "int8", 0)
    adjust(result, images, observe(result, images), gptq=False, bias=True)
    assert torch.allclose(node.inputs[2].data, torch.tensor([0.0, 0.008]), atol=1e-5)


def test_one_poisoned_image_does_not_move_the_mean():
    rows = torch.tensor([[1.0]] * 19 + [[1000.0]])
    assert float(trimmed_mean(rows)) == 1.0
    assert float(trimmed_mean(rows[:4])) == 1.0


def test_bias_correction_and_gptq_leave_shared_constants_alone():
    b = Builder((1, 4, 8, 8))
    x = b.conv(b.input, 4, activation="relu")
    first = b.nodes[0]
    graph = b.graph(b.conv(b.op("conv2d", x, *first.inputs[1:], **first.attrs), 3))
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(16, 4, 8, 8, generator=rng)
    result = quantize(graph, images, QuantizeSettings(**{**OFF, "gptq": True, "bias_correction": True})).graph
    for i in (1, 2):
        assert torch.equal(graph.nodes[0].inputs[i].data, result.nodes[0].inputs[i].data)
        assert not torch.equal(graph.nodes[2].inputs[i].data, result.nodes[2].inputs[i].data)


def test_gptq_weights_are_integers_of_the_annotation():
    settings = QuantizeSettings(**{**OFF, "gptq": True})
    graph = quantize(inverted_residual_net(), smooth_images(16, 0), settings).graph
    for node in graph.nodes:
        if node.op in ("conv2d", "linear"):
            weight = node.inputs[1]
            on_grid = qparams.integers(weight).float() * qparams.scales_of(weight.quant, weight.data.ndim)
            assert torch.allclose(on_grid, weight.data, atol=1e-5)
