"""A changed network that learns its original's answers again: where its blocks end, what it comes to."""

import functools

import pytest
import torch
from torch import nn

from edgekit.capture import capture
from edgekit.graph.module import as_module
from edgekit.passes import optimize
from edgekit.surgery import lite
from edgekit.train import Settings, recover
from edgekit.train.checkpoint import weights_sha256
from edgekit.train.recovery import found_blocks
from tests.train.networks import striped

TOLD = Settings(steps=1, batch=32, rate=3e-3, weight_decay=0.0, hard_share=0.0)


class Bottleneck(nn.Module):
    """Expansion, depthwise, projection: three layers with hard-swish between them, and a sum."""

    def __init__(self):
        super().__init__()
        self.expand, self.norm = nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24)
        self.deep, self.deep_norm = nn.Conv2d(24, 24, 3, 1, 1, groups=24, bias=False), nn.BatchNorm2d(24)
        self.project, self.last = nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.act, self.act2 = nn.Hardswish(), nn.Hardswish()

    def forward(self, x):
        inside = self.act2(self.deep_norm(self.deep(self.act(self.norm(self.expand(x))))))
        return x + self.last(self.project(inside))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.act = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Hardswish()
        self.a, self.b, self.drop = Bottleneck(), Bottleneck(), nn.Dropout(0.5)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.b(self.a(self.act(self.norm(self.stem(x)))))
        return self.head(self.drop(x.mean((2, 3))))


@functools.cache
def _graphs():
    """The original, and what surgery makes of it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module, (images, _) = Net(), striped().batches(0, 64, None, 0)
        for part in module.modules():
            part.momentum = None  # statistics of these images, not a tenth of them
        with torch.no_grad():
            module.train()(images[0])
        for part in module.modules():
            part.momentum = 0.1
        graph = capture(module.eval(), images[0][:1], training=True)
        return graph, lite(graph, images[0], steps=["relu6"]).graph


def _networks():
    original, changed = _graphs()
    folded = original.copy()
    optimize(folded)
    return as_module(changed), as_module(folded).eval()


def _error(module, original):
    x = striped().batches(0, 64, None, 0)[0][0]
    with torch.no_grad():
        wanted = original(x)
        return float((module.eval()(x) - wanted).square().sum() / wanted.square().sum())


def test_blocks_end_where_both_networks_hold_the_same():
    module, original = _networks()
    inputs = striped().batches(0, 16, None, 0)[0]
    assert found_blocks(module, original, inputs) == ("a", "b", "")
    with torch.no_grad():
        module.a.last.weight.mul_(-3.0)
    assert "a" not in found_blocks(module, original, inputs)


@torch.no_grad()
def _spoilt(module):
    """Weights that are a tenth off, as after a cut or a coarse fit."""
    random = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        if parameter.ndim > 1:
            parameter.add_(0.1 * parameter.std() * torch.randn(parameter.shape, generator=random))
    return module


@pytest.mark.parametrize("labels", [True, False])
def test_a_changed_network_comes_back_to_its_original(labels):
    module, original = _networks()
    before = _error(_spoilt(module), original)
    done = recover(module, original, striped(labels=labels), TOLD, steps=(30, 30))
    assert done.blocks == ("a", "b", "") and done.steps == (30, 30)
    assert done.by_block.losses[-1] < 0.7 * done.by_block.losses[0]
    assert _error(module, original) < 0.5 * before
    assert module.drop.p == 0.5 and not module.training
    assert done.whole.weights == weights_sha256(module)


def test_killed_between_its_parts_it_ends_with_the_same_bytes(tmp_path, monkeypatch):
    whole, original = _networks()
    wanted = recover(whole, original, striped(), TOLD, steps=(3, 3), directory=tmp_path / "one")
    again, _ = _networks()

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("edgekit.train.recovery.train", killed)
        with pytest.raises(KeyboardInterrupt):
            recover(again, original, striped(), TOLD, steps=(3, 3), directory=tmp_path / "two")
    again, _ = _networks()
    done = recover(again, original, striped(), TOLD, steps=(3, 3), directory=tmp_path / "two")
    assert done.whole.weights == wanted.whole.weights and done.steps == wanted.steps


def test_minutes_become_steps_that_can_be_asked_for():
    module, original = _networks()
    told = []
    done = recover(module, original, striped(), TOLD, minutes=0.01, progress=lambda *said: told.append(said))
    assert min(done.steps) >= 1 and told[-1][0] == told[-1][1] and told == sorted(told)
    again, _ = _networks()
    assert recover(again, original, striped(), TOLD, steps=done.steps).whole.weights == done.whole.weights
