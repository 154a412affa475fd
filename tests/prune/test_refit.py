"""Closed-form recovery, on small networks whose right answer is known."""

from __future__ import annotations

import torch
from torch import nn

from edgekit.capture import capture
from edgekit.graph.run import run
from edgekit.prune.refit import refit

Tensor = torch.Tensor


def _images(count: int = 32, seed: int = 3) -> Tensor:
    return torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(seed))


class Net(nn.Module):
    """A stem, a depthwise or grouped block with a residual sum, and a linear head."""

    def __init__(self, hidden: int, norm: bool, groups: int = 1) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.expand = nn.Conv2d(8, hidden, 1, bias=not norm)
        self.norm = nn.BatchNorm2d(hidden) if norm else nn.Identity()
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.project = nn.Conv2d(hidden, 8, 1, groups=groups, bias=not norm)
        self.norm2 = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        y = self.depthwise(self.norm(self.expand(x)).relu()).relu()
        return self.head((x + self.norm2(self.project(y))).mean((2, 3)))


def _seeded(hidden: int, norm: bool, groups: int = 1) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Net(hidden, norm, groups)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.data.uniform_(0.5, 2.0)
                module.bias.data.uniform_(-0.5, 0.5)
                module.running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
        net.depthwise.weight.data *= 6
        net.project.weight.data *= 6
    return net.eval()


def _with_twins(net: Net, pairs: list[tuple[int, int]]) -> Net:
    """Hidden channel b says the same as a, times two."""
    state = net.state_dict()
    for a, b in pairs:
        for name, value in state.items():
            if name.startswith(("expand", "norm.")) and value.ndim:
                value[b] = value[a]
        state["depthwise.weight"][b] = 2 * state["depthwise.weight"][a]
        state["depthwise.bias"][b] = 2 * state["depthwise.bias"][a]
    net.load_state_dict(state)
    return net


def _without(net: Net, gone: list[int], norm: bool) -> Net:
    hidden = net.expand.out_channels
    left = torch.tensor([i for i in range(hidden) if i not in gone])
    small = Net(len(left), norm)
    state = net.state_dict()
    for name, value in state.items():
        if name.startswith(("expand", "norm.", "depthwise")) and value.ndim:
            state[name] = value[left]
    state["project.weight"] = state["project.weight"][:, left]
    small.load_state_dict(state)
    return small.eval()


def _kept(hidden: int, gone: list[int]) -> dict[str, dict[int, Tensor]]:
    left = torch.tensor([i for i in range(hidden) if i not in gone])
    return {"expand": {1: left}, "depthwise": {1: left}}


def _answers(net: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return net(images)


def test_a_channel_that_another_repeats_is_made_up_for_exactly() -> None:
    for norm in (False, True):
        net = _with_twins(_seeded(12, norm), [(1, 7), (4, 9)])
        small = _without(net, [7, 9], norm)
        example = _images(1)
        done = refit(capture(net, example), capture(small, example), _images(), kept=_kept(12, [7, 9]))
        others = _images(16, seed=9)
        right = _answers(net, others)
        lost = (_answers(small, others) - right).norm() / right.norm()
        left = (run(done.graph, [others])[0] - right).norm() / right.norm()
        assert lost > 0.05 and left < 1e-4, (norm, lost, left)


def test_what_a_cut_cannot_repair_exactly_becomes_closer_on_images_it_did_not_see() -> None:
    for norm in (False, True):
        net = _seeded(12, norm)
        small = _without(net, [0, 3, 5], norm)
        example = _images(1)
        given = capture(small, example)
        before = [value.data.clone() for value in given.constants() if value.data is not None]
        done = refit(capture(net, example), given, _images(48), kept=_kept(12, [0, 3, 5]))
        others = _images(32, seed=9)
        right = _answers(net, others)
        lost = (_answers(small, others) - right).norm()
        left = (run(done.graph, [others])[0] - right).norm()
        assert left < 0.6 * lost, (norm, left, lost)
        assert all(torch.equal(a, v.data) for a, v in zip(before, given.constants(), strict=True))
        changed = {layer.name: layer for layer in done.layers if layer.ridge is not None}
        assert "project" in changed and all(x.after < x.before for x in changed.values())


def test_nothing_is_touched_where_nothing_was_cut() -> None:
    graph = capture(_seeded(8, True), _images(1))
    done = refit(graph, graph, _images(8))
    assert all(layer.ridge is None for layer in done.layers)
    for a, b in zip(graph.constants(), done.graph.constants(), strict=True):
        assert torch.equal(a.data, b.data)  # type: ignore[arg-type]


def test_grouped_layers_take_a_group_each_and_output_channels_are_named() -> None:
    net, example = _seeded(12, False, groups=2), _images(1)
    original = capture(net, example)
    small = _seeded(12, False, groups=2)
    small.depthwise.weight.data[3] = 0.0  # what is left of a channel that nobody can read any more
    small.depthwise.bias.data[3] = 0.0  # type: ignore[index]
    done = refit(original, capture(small, example), _images(48))
    others = _images(32, seed=9)
    right = _answers(net, others)
    lost = (_answers(small, others) - right).norm()
    left = (run(done.graph, [others])[0] - right).norm()
    assert left < 0.7 * lost
    assert {layer.name for layer in done.layers} >= {"depthwise", "project", "head"}
