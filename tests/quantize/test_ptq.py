"""The pipeline as a whole: robust against one bad image, deterministic, never worse than min/max."""

import pytest
import torch
from quantize_graphs import Builder, inverted_residual_net, smooth_images

from edgekit.errors import QuantizationError
from edgekit.graph.file import graph_hash
from edgekit.graph.run import run
from edgekit.quantize import QuantizeSettings, quantize, simulate, sqnr_db

OFF = {"equalize": False, "weight_mse": False, "bias_correction": False, "gptq": False}


def _sqnr(graph, result, images):
    return sqnr_db(run(graph, [images])[0], simulate(result.graph, images)[0])


def _poisoned(count: int) -> torch.Tensor:
    images = smooth_images(count, 0)
    images[5] = 60 * images[5]
    return images


@pytest.mark.parametrize("profile", ["fast", "thorough"])
def test_one_poisoned_image_costs_little(profile):
    graph, unseen = inverted_residual_net(), smooth_images(48, 1)
    clean = _sqnr(graph, quantize(graph, smooth_images(128, 0), QuantizeSettings(profile)), unseen)
    poisoned = _sqnr(graph, quantize(graph, _poisoned(128), QuantizeSettings(profile)), unseen)
    ruined = _sqnr(graph, quantize(graph, _poisoned(128), QuantizeSettings(ranges="minmax", **OFF)), unseen)
    assert poisoned > clean - 0.5
    assert ruined < clean - 6


@pytest.mark.parametrize("profile", ["fast", "thorough"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_never_worse_than_minmax(profile, seed):
    graph, images, unseen = inverted_residual_net(seed), smooth_images(64, 10), smooth_images(64, 11)
    plain = _sqnr(graph, quantize(graph, images, QuantizeSettings(ranges="minmax", **OFF)), unseen)
    assert _sqnr(graph, quantize(graph, images, QuantizeSettings(profile)), unseen) > plain - 0.3


def test_sixteen_bits_are_fitted_as_sixteen_bits():
    graph, images, unseen = inverted_residual_net(), smooth_images(64, 0), smooth_images(32, 1)
    wide = quantize(graph, images, QuantizeSettings(activations="int16"))
    quants = [v.quant for v in wide.graph.values() if v.quant is not None and not v.is_constant]
    assert {quant.dtype for quant in quants} == {"int16"} and {quant.zero_point for quant in quants} == {(0,)}
    assert _sqnr(graph, wide, unseen) > _sqnr(graph, quantize(graph, images), unseen) + 6


def test_the_same_inputs_give_identical_parameters():
    graph, images = inverted_residual_net(), smooth_images(32, 0)
    settings = QuantizeSettings("thorough")
    assert graph_hash(quantize(graph, images, settings).graph) == graph_hash(
        quantize(graph, images, settings).graph
    )


def test_the_graph_given_is_left_as_it_was():
    graph = inverted_residual_net()
    before = graph_hash(graph)
    quantize(graph, smooth_images(16, 0))
    assert graph_hash(graph) == before


def test_the_report_has_every_part_with_its_gain_on_unseen_images():
    lines: list[str] = []
    result = quantize(inverted_residual_net(), smooth_images(32, 0), QuantizeSettings(), lines.append)
    parts, report = result.report["parts"], result.report
    kept = [part for part in parts if part["kept"]]
    assert kept[0]["part"] == "minmax" and {"minmax", "trim", "mse", "equalize", "bias_correction"} == {
        part["part"] for part in parts
    }
    assert [part["part"].replace("_", " ") for part in kept if part["part"] != "minmax"] == [
        name for name in report["chosen"].split(" + ") if name != "minmax"
    ]
    gained = sum(part["gain_db"] for part in kept)
    assert gained == pytest.approx(kept[-1]["sqnr_db"] - kept[0]["sqnr_db"])
    assert all(part["judged_images"] == 32 for part in parts)
    assert min(report["gain_db"].values()) > 0.3 or report["chosen"] == report["plain"]
    assert {row["candidate"] for row in report["candidates"] if row["chosen"]} == {report["chosen"]}
    assert len(lines) >= len(report["candidates"])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_handful_of_images_is_enough_to_run(count):
    graph = inverted_residual_net()
    for profile in ("fast", "thorough"):
        assert (
            _sqnr(
                graph,
                quantize(graph, smooth_images(count, 0), QuantizeSettings(profile)),
                smooth_images(8, 1),
            )
            > 3
        )


@pytest.mark.parametrize("wrong", [{"profile": "quick"}, {"ranges": "kl"}, {"calibration": 0}])
def test_settings_that_cannot_be(wrong):
    with pytest.raises(QuantizationError, match=next(iter(wrong))):
        QuantizeSettings(**wrong)


def test_a_constant_image_set_still_gives_a_graph():
    b = Builder((1, 3, 8, 8))
    graph = b.graph(b.conv(b.conv(b.input, 4, activation="relu"), 2))
    result = quantize(graph, torch.zeros(8, 3, 8, 8))
    assert simulate(result.graph, torch.zeros(2, 3, 8, 8))[0].isfinite().all()
