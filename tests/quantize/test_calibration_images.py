"""Images through graphs whose tensors do not keep them in the leading dimension, against eager."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from quantize_graphs import smooth_images
from torch import nn

from edgekit import passes
from edgekit.capture import capture
from edgekit.errors import QuantizationError
from edgekit.graph.batch import bytes_per_image
from edgekit.graph.ir import Graph
from edgekit.quantize import QuantizeSettings, lockstep, quantize, simulate, sqnr_db
from edgekit.quantize.observers import observe

IMAGES = smooth_images(40, 0)


class Layers(nn.Module):
    """A few layers and a function of them and the image."""

    def __init__(self, forward: Callable[..., torch.Tensor], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.function = forward

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.function(self, *inputs)


def stem(out: int) -> nn.Conv2d:
    return nn.Conv2d(3, out, 3, 4, 1)


def channels_last(m, x):
    x = m.norm(m.stem(x).permute(0, 2, 3, 1))
    return m.head(F.gelu(m.layer(x)).mean((1, 2)))


def windows(m, x):
    x = m.stem(x).permute(0, 2, 3, 1)
    n, h, w, c = x.shape
    x = x.view(n, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
    x = F.gelu(m.layer(x)).view(n, h // 4, w // 4, 4, 4, 24).permute(0, 1, 3, 2, 4, 5)
    return m.head(x.reshape(n, h * w, 24).mean(1))


def sequence_first(m, x):
    return m.head(F.gelu(m.layer(m.stem(x).flatten(2).permute(2, 0, 1))).mean(0))


def patches_through_a_convolution(m, x):
    x = m.stem(x)
    n, c, h, w = x.shape
    x = x.view(n, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 1, 3, 5).reshape(-1, c, 4, 4)
    return m.head(m.conv(x).relu().mean((2, 3)).view(n, -1, 24).mean(1))


def computed_weight(m, x):
    x = m.stem(x).relu()
    weight = m.layer(x.mean((2, 3))).reshape(24, 16, 1, 1)
    return m.head(F.conv2d(x, weight).mean((2, 3)))


def standardized_weight(m, x):
    weight = m.conv.weight
    weight = (weight - weight.mean((1, 2, 3), keepdim=True)) / weight.std((1, 2, 3), keepdim=True)
    return m.head(F.conv2d(m.stem(x).relu(), weight, m.conv.bias).relu().mean((2, 3)))


def talking_heads(m, x):
    x = m.stem(x).flatten(2).transpose(1, 2)
    heads = x[:, None].expand(-1, 4, -1, -1)
    mixed = m.mix((heads @ heads.transpose(-1, -2) * 0.25).softmax(-1))
    return m.head((mixed @ heads).mean(1).mean(1))


NETS: dict[str, Callable[[], Layers]] = {
    "channels-last": lambda: Layers(
        channels_last, stem=stem(16), norm=nn.LayerNorm(16), layer=nn.Linear(16, 24), head=nn.Linear(24, 10)
    ),
    "windows": lambda: Layers(windows, stem=stem(16), layer=nn.Linear(16, 24), head=nn.Linear(24, 10)),
    "sequence-first": lambda: Layers(
        sequence_first, stem=stem(16), layer=nn.Linear(16, 24), head=nn.Linear(24, 10)
    ),
    "patches": lambda: Layers(
        patches_through_a_convolution, stem=stem(16), conv=nn.Conv2d(16, 24, 3), head=nn.Linear(24, 10)
    ),
    "computed-weight": lambda: Layers(
        computed_weight, stem=stem(16), layer=nn.Linear(16, 24 * 16), head=nn.Linear(24, 10)
    ),
    "standardized-weight": lambda: Layers(
        standardized_weight, stem=stem(16), conv=nn.Conv2d(16, 24, 3), head=nn.Linear(24, 10)
    ),
    "talking-heads": lambda: Layers(
        talking_heads, stem=stem(16), mix=nn.Conv2d(4, 4, 1), head=nn.Linear(16, 10)
    ),
}


def captured(module: nn.Module) -> Graph:
    graph = capture(module.eval(), IMAGES[:1], "net")
    passes.optimize(graph)
    return graph


def net(name: str) -> tuple[nn.Module, Graph]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = NETS[name]().eval()
    return module, captured(module)


@pytest.mark.parametrize("profile", ["fast", "thorough"])
@pytest.mark.parametrize("name", NETS)
def test_int8_stays_close_to_eager(name: str, profile: str) -> None:
    module, graph = net(name)
    with torch.no_grad():
        wanted = torch.cat([module(image) for image in IMAGES[32:].split(1)])
    result = quantize(graph, IMAGES[:32], QuantizeSettings(profile=profile))
    assert sqnr_db(wanted, simulate(result.graph, IMAGES[32:])[0]) > 25.0


@pytest.mark.parametrize("name", NETS)
def test_statistics_of_a_batch_are_those_of_its_images(name: str) -> None:
    _, graph = net(name)
    images = IMAGES[:6]
    together, alone = observe(graph, images, 16), observe(graph, images, 16, batch=1)
    for kind in ("low", "high", "mean", "sample"):
        one, other = getattr(together, kind), getattr(alone, kind)
        assert one.keys() == other.keys()
        for key in one:
            assert len(one[key]) == len(images)
            torch.testing.assert_close(one[key], other[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("profile", ["fast", "thorough"])
@pytest.mark.parametrize("name", NETS)
def test_little_memory_gives_nearly_the_same_network(
    name: str, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches that wait as bytes between nodes."""
    _, graph = net(name)
    settings = QuantizeSettings(profile=profile)
    plenty = quantize(graph, IMAGES[:32], settings)
    monkeypatch.setattr(lockstep, "BUDGET_BYTES", 20 * bytes_per_image(graph))
    assert lockstep.fitting_images(graph, 32) == (32, 5)
    sparing = quantize(graph, IMAGES[:32], settings)
    outputs = [simulate(result.graph, IMAGES[32:])[0] for result in (plenty, sparing)]
    assert sqnr_db(*outputs) > (60.0 if profile == "fast" else 30.0)


def test_one_tensor_for_each_input() -> None:
    def fn(m, x, y):
        return m.head(m.stem(x).mean((2, 3)) + m.layer(y))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Layers(fn, stem=stem(16), layer=nn.Linear(5, 16), head=nn.Linear(16, 10))
    rows = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    graph = capture(module.eval(), (IMAGES[:1], rows[:1]), "two")
    result = quantize(graph, [IMAGES[:32], rows[:32]])
    with torch.no_grad():
        wanted = module(IMAGES[32:], rows[32:])
    assert sqnr_db(wanted, simulate(result.graph, [IMAGES[32:], rows[32:]])[0]) > 30.0
    with pytest.raises(QuantizationError, match="takes one for each of"):
        quantize(graph, IMAGES)
    with pytest.raises(QuantizationError, match="40 and 39 images"):
        quantize(graph, [IMAGES, rows[:39]])
    with pytest.raises(QuantizationError, match=r"expected \(N, 5\)"):
        quantize(graph, [IMAGES, rows[:, :4]])
    rows[17, 2] = float("nan")
    with pytest.raises(QuantizationError, match="image 17 contains NaN"):
        quantize(graph, [IMAGES, rows])
