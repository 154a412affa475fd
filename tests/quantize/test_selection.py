"""Calibration chooses by images it was not fitted to; plain min/max stays unless something wins clearly."""

import pytest
import torch
from quantize_graphs import Builder, inverted_residual_net, smooth_images

from edgekit.graph.ir import Graph, Value
from edgekit.graph.run import run
from edgekit.quantize import QuantizeSettings, quantize, simulate, sqnr_db
from edgekit.quantize.candidates import Asked, Candidate, candidates
from edgekit.quantize.judged import Judged, judge
from edgekit.quantize.selection import Choice, folds

PLAIN, OTHER = Candidate(), Candidate("mse")


def _choice(plain: Judged, other: Judged) -> Choice:
    return Choice(PLAIN, PLAIN, {PLAIN: plain, OTHER: other})


def _judged(db: list[float], signal: list[float] | None = None) -> Judged:
    power = torch.tensor(signal or [1.0] * len(db), dtype=torch.float64)
    return Judged(power, power / 10 ** (torch.tensor(db, dtype=torch.float64) / 10))


@pytest.mark.parametrize("images", [2, 3, 8, 13, 512])
def test_every_image_is_judged_once_by_a_fit_that_did_not_see_it(images):
    found = folds(images, images)
    assert sorted(torch.cat([fold.judged for fold in found]).tolist()) == list(range(images))
    for fold in found:
        assert sorted([*fold.fit.tolist(), *fold.judged.tolist()]) == list(range(images))


def test_of_many_images_an_even_part_is_judged():
    judged = torch.cat([fold.judged for fold in folds(512, 128)])
    assert len(judged) == 128 and judged.max() > 490


@pytest.mark.parametrize(
    ("images", "asked", "expected"),
    [
        (4, Asked(), 1),
        (16, Asked(), 3),
        (17, Asked(), 8),
        (64, Asked(ranges="mse"), 3),
        (64, Asked(equalize=True), 4),
        (64, Asked("trim", True, True), 1),
        (64, Asked(bias_correction=False, equalize=False), 3),
    ],
)
def test_what_a_user_decides_is_no_candidate(images, asked, expected):
    found = candidates(asked, images)
    assert len(found) == expected == len(set(found))
    assert all(c.equalize == asked.equalize for c in found if asked.equalize is not None)
    assert all(c.ranges == asked.ranges for c in found if asked.ranges != "auto")


def test_a_gain_in_two_figures_and_a_loss_in_the_third_is_no_gain():
    plain = _judged([20.0] * 16)
    assert _choice(plain, _judged([21.0] * 16)).wins(OTHER, PLAIN)
    assert not _choice(plain, _judged([20.2] * 16)).wins(OTHER, PLAIN)
    clips_one = _judged([21.0] * 15 + [8.0])
    gains = clips_one.gains(plain)
    assert gains["median"] == pytest.approx(1.0) and gains["pooled"] < 0.0
    assert not _choice(plain, clips_one).wins(OTHER, PLAIN)


def test_an_image_lost_either_way_decides_nothing():
    signal = [1.0] * 31 + [1e4]
    plain, other = _judged([20.0] * 31 + [0.1], signal), _judged([21.0] * 31 + [0.1], signal)
    assert _choice(plain, other).wins(OTHER, PLAIN)
    saved = _judged([21.0] * 31 + [20.0], signal)
    assert saved.gains(plain)["pooled"] > 10.0 and plain.gains(saved)["pooled"] < -10.0


def test_outputs_count_alike_whatever_their_size():
    b = Builder((1, 3, 16, 16))
    x = b.conv(b.input, 8, 3, activation="relu")
    large = b.op("mul", b.conv(x, 4, 3), b.constant("factor", torch.tensor(1000.0)))
    graph = b.graph(large, b.op("mean", b.conv(x, 6), dims=(2, 3), keepdim=False))
    images, unseen = smooth_images(32, 0, 16), smooth_images(32, 1, 16)
    wanted = run(graph, [unseen])
    for count in (8, 32):
        made = simulate(quantize(graph, images[:count]).graph, unseen)
        plain = simulate(quantize(graph, images[:count], _plainly()).graph, unseen)
        for a, one, other in zip(wanted, made, plain, strict=True):
            assert sqnr_db(a, one) > sqnr_db(a, other) - 0.3


def test_several_inputs():
    b = Builder((1, 3, 16, 16))
    other = Value("other", (1, 5))
    x = b.op("mean", b.conv(b.input, 8, 3, activation="relu"), dims=(2, 3), keepdim=False)
    y = b.op("add", x, b.linear(other, 8))
    graph = Graph([b.input, other], [b.linear(y, 4)], b.nodes, "two")
    rows = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    images = smooth_images(40, 0, 16)
    result = quantize(graph, [images[:24], rows[:24]])
    assert result.report["judged_images"] == 24
    unseen = [images[24:], rows[24:]]
    wanted = run(graph, unseen)[0]
    plain = quantize(graph, [images[:24], rows[:24]], _plainly()).graph
    assert (
        sqnr_db(wanted, simulate(result.graph, unseen)[0]) > sqnr_db(wanted, simulate(plain, unseen)[0]) - 0.3
    )


@pytest.mark.parametrize("count", [8, 16, 40])
def test_few_images_are_never_worse_than_plainly_used(count):
    graph, unseen = inverted_residual_net(1, 16), smooth_images(128, 20, 16)
    images, wanted = smooth_images(count, 11, 16), run(graph, [unseen])
    made, plain = (
        judge(wanted, simulate(quantize(graph, images, settings).graph, unseen), [1.0])
        for settings in (None, _plainly())
    )
    gains = made.gains(plain)
    assert gains["median"] > -0.3 and gains["pooled"] > -1.0


def test_a_part_that_loses_is_taken_back_and_told():
    """Where rounding is exact nothing gains, so that min/max stays as it is."""
    b = Builder((1, 3, 8, 8))
    graph = b.graph(b.op("relu", b.input))
    report = quantize(graph, smooth_images(40, 0, 8)).report
    assert report["chosen"] == report["plain"] == "minmax"
    told = {part["part"]: part for part in report["parts"]}
    assert told["minmax"]["kept"] and not told["mse"]["kept"] and told["mse"]["gain_db"] < 0.3


def _plainly() -> QuantizeSettings:
    return QuantizeSettings(
        ranges="minmax", equalize=False, weight_mse=False, bias_correction=False, gptq=False
    )
