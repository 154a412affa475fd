"""Biases fitted to what a target really rounds."""

import torch
from quantize_graphs import inverted_residual_net, smooth_images

from edgekit.graph.ir import Graph
from edgekit.graph.run import run
from edgekit.quantize import QuantizeResult, QuantizeSettings, quantize, simulate, sqnr_db
from edgekit.quantize.placement import fit_biases

IMAGES = smooth_images(64, 0)


def _placed(result: QuantizeResult) -> Graph:
    """Every other activation left in float, as a target might."""
    graph = result.graph.copy()
    for node in graph.nodes[::2]:
        for value in node.outputs:
            value.quant = None
    return graph


def _db(graph: Graph, placed: Graph, images: torch.Tensor) -> float:
    return sqnr_db(run(graph, [images])[0], simulate(placed, images)[0])


def test_channels_get_their_float_means_back():
    graph = inverted_residual_net()
    result = quantize(graph, IMAGES, QuantizeSettings(bias_correction=False))
    placed = _placed(result)
    before = _db(graph, placed, IMAGES)
    assert fit_biases(placed, IMAGES[result.order], result.means) > 0
    assert _db(graph, placed, IMAGES) > before + 1


def test_biases_fitted_elsewhere_are_fitted_anew():
    """What corrects errors that a target does not make costs accuracy there; fitting takes it back."""
    graph, unseen = inverted_residual_net(2), smooth_images(48, 1)
    result = quantize(graph, IMAGES, QuantizeSettings("thorough"))
    placed = _placed(result)
    before = _db(graph, placed, unseen)
    fit_biases(placed, IMAGES[result.order], result.means)
    assert _db(graph, placed, unseen) > before


def test_scales_and_integer_weights_stay():
    result = quantize(inverted_residual_net(), IMAGES)
    placed = _placed(result)
    before = {v.name: (v.quant, v.data) for v in placed.values() if v.quant is not None}
    fit_biases(placed, IMAGES[result.order], result.means)
    after = {v.name: (v.quant, v.data) for v in placed.values() if v.quant is not None}
    assert {name: quant for name, (quant, _) in before.items()} == {n: q for n, (q, _) in after.items()}
    assert all(data is None or torch.equal(data, after[name][1]) for name, (_, data) in before.items())


def test_a_bias_that_several_nodes_read_stays():
    result = quantize(inverted_residual_net(), IMAGES)
    placed = _placed(result)
    convolutions = [node for node in placed.nodes if node.op == "conv2d"]
    first, second = next(
        (a, b)
        for i, a in enumerate(convolutions)
        for b in convolutions[i + 1 :]
        if a.inputs[2] is not None and b.inputs[2] is not None and a.inputs[2].shape == b.inputs[2].shape
    )
    second.inputs[2] = first.inputs[2]
    kept = first.inputs[2].data.clone()
    fit_biases(placed, IMAGES[result.order], result.means)
    assert torch.equal(first.inputs[2].data, kept)


def test_fitting_to_full_quantization_changes_little():
    """Where nothing is left in float, the biases of the calibration are already right."""
    graph = inverted_residual_net()
    result = quantize(graph, IMAGES)
    again = result.graph.copy()
    fit_biases(again, IMAGES[result.order], result.means)
    assert abs(_db(graph, again, IMAGES) - _db(graph, result.graph, IMAGES)) < 0.5
