"""Channels injected so that the function stays: int8 has to lose nothing by them."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from quantize_graphs import inverted_residual_net, smooth_images
from torch import nn

from edgekit import passes
from edgekit.capture import capture
from edgekit.graph.ir import Graph
from edgekit.graph.run import run
from edgekit.quantize import QuantizeSettings, quantize, simulate
from edgekit.quantize.equalize import apply_scales, families
from edgekit.quantize.judged import judge
from edgekit.quantize.observers import observe
from edgekit.quantize.outliers import even_outliers, normalized, outlier_scales, told_apart

# a median over fewer images moves by more than half a dB between equally good roundings
IMAGES, UNSEEN = smooth_images(48, 0, 16), smooth_images(480, 1, 16)


class Block(nn.Module):
    """A layer norm and an MLP on (N, H, W, C), tokens or NCHW, as transformers and ConvNeXt have them."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.stem = nn.Conv2d(3, 24, 4, 4)
        self.norm = nn.LayerNorm(24)
        self.first, self.second = nn.Linear(24, 48), nn.Linear(48, 24)
        self.conv = nn.Conv2d(24, 48, 1)
        self.head = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        if self.kind == "channels-first":
            y = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            y = self.second(F.gelu(self.conv(y)).permute(0, 2, 3, 1))
            return self.head((y + x.permute(0, 2, 3, 1)).mean((1, 2)))
        x = x.permute(0, 2, 3, 1)
        if self.kind == "tokens":
            x = x.flatten(1, 2)
        y = self.norm(x)
        if self.kind == "windows":
            n, h, w, c = y.shape
            y = y.view(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        y = self.second(F.gelu(self.first(y))).reshape(x.shape)
        return self.head((y + x).flatten(1, -2).mean(1))


KINDS = ("tokens", "channels-last", "channels-first", "windows")


def _block(kind: str, factor: float = 1.0) -> Graph:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Block(kind).eval()
    channels = [3, 11]
    with torch.no_grad():
        module.norm.weight[channels] *= factor
        module.norm.bias[channels] *= factor
        module.first.weight[:, channels] /= factor
        module.conv.weight[:, channels] /= factor
    graph = capture(module, IMAGES[:1], kind)
    passes.optimize(graph)
    return graph


def _residual(factor: float = 1.0) -> Graph:
    graph = inverted_residual_net(0, 16)
    for family in families(graph):
        scales = torch.ones(family.units)
        scales[family.units // 3] = factor
        apply_scales(family, scales)
    return graph


NETS: dict[str, Callable[[float], Graph]] = {
    **{kind: lambda factor, kind=kind: _block(kind, factor) for kind in KINDS},
    "residual": _residual,
}


def _lost(plain: Graph, injected: Graph, images: torch.Tensor) -> dict[str, float]:
    """dB that the injected network has less, against the same float answers."""
    wanted = run(plain, [UNSEEN])
    torch.testing.assert_close(run(injected, [UNSEEN])[0], wanted[0], rtol=1e-3, atol=1e-4)
    one, other = (
        judge(wanted, simulate(quantize(g, images).graph, UNSEEN), [1.0]) for g in (plain, injected)
    )
    return {name: one.figures()[name] - other.figures()[name] for name in ("pooled", "median")}


@pytest.mark.parametrize("factor", [30.0, 100.0])
@pytest.mark.parametrize("name", NETS)
def test_an_injected_network_loses_nothing(name, factor):
    lost = _lost(NETS[name](1.0), NETS[name](factor), IMAGES)
    assert max(lost.values()) < 0.5, lost


@pytest.mark.parametrize("name", ["tokens", "residual"])
def test_few_images_are_enough(name):
    lost = _lost(NETS[name](1.0), NETS[name](100.0), IMAGES[:8])
    assert max(lost.values()) < 0.5, lost


@pytest.mark.parametrize("name", NETS)
def test_min_max_alone_is_ruined(name):
    """The oracle bites."""
    off = QuantizeSettings(ranges="minmax", equalize=False, bias_correction=False)
    wanted = run(NETS[name](1.0), [UNSEEN])
    plain, injected = (
        judge(wanted, simulate(quantize(NETS[name](k), IMAGES, off).graph, UNSEEN), [1.0]).figures()
        for k in (1.0, 100.0)
    )
    assert injected["median"] < plain["median"] - 3.0


@pytest.mark.parametrize("name", NETS)
def test_the_function_stays_and_observations_follow(name):
    graph = NETS[name](100.0)
    expected = run(graph, [UNSEEN])[0]
    seen = observe(graph, IMAGES, 64, channels=told_apart(graph))
    assert even_outliers(graph, seen) > 0
    torch.testing.assert_close(run(graph, [UNSEEN])[0], expected, rtol=1e-5, atol=1e-5)
    fresh = observe(graph, IMAGES, 64, channels=told_apart(graph))
    for kind in ("low", "high", "sample"):
        for value, rows in getattr(fresh, kind).items():
            torch.testing.assert_close(getattr(seen, kind)[value], rows, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NETS)
def test_an_ordinary_network_is_left_alone(name):
    graph = NETS[name](1.0)
    before = [value.data for value in graph.constants()]
    assert even_outliers(graph, observe(graph, IMAGES, channels=told_apart(graph))) == 0
    assert all(a is b.data for a, b in zip(before, graph.constants(), strict=True))


def test_a_norm_that_something_else_reads_stays():
    class Post(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.layer = nn.LayerNorm(16), nn.Linear(16, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.norm(x)
            return y + self.layer(y)

    assert normalized(capture(Post().eval(), torch.zeros(1, 4, 16), "post")) == []


def test_large_channels_that_are_read_with_large_weights_are_no_outliers():
    reach, weight = torch.ones(16), torch.ones(16)
    reach[3] = 100.0
    assert outlier_scales(reach, weight)[3] < 0.25
    weight[3] = 3.0
    assert outlier_scales(reach, weight) is None
    assert outlier_scales(torch.zeros(16), weight) is None
