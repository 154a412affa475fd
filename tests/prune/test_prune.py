"""Budgets, dead channels, recovery and the public function, on small networks."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from prune_nets import NETS, Siamese, conv
from torch import nn

import edgekit
from edgekit.capture import capture
from edgekit.cost.static import count
from edgekit.errors import PruneError
from edgekit.graph.ir import Graph
from edgekit.graph.run import run
from edgekit.prune import Pruned, analyse, prune_graph
from edgekit.prune.dead import dead_units

Tensor = torch.Tensor


def images(count: int = 16, size: int = 16, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def captured(net: nn.Module) -> Graph:
    return capture(net.eval(), images(1), training=True)


def seeded(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return NETS[name]()


@pytest.mark.parametrize("budget", ["keep", "macs", "params"])
@pytest.mark.parametrize("name", ["Residual", "SqueezeExcite", "Concat", "ShuffleTwo", "UNet"])
def test_budgets_are_met(name: str, budget: str) -> None:
    graph = captured(seeded(name))
    before = [value.data.clone() for value in graph.constants() if value.data is not None]
    done = prune_graph(graph, **{budget: 0.7}, score="l2", step=1)  # type: ignore[arg-type]
    numbers = {
        "keep": [sum(len(group.units) for group in analyse(g).groups) for g in (graph, done.graph)],
        "macs": [count(g).macs for g in (graph, done.graph)],
        "params": [count(g).params for g in (graph, done.graph)],
    }
    assert 0.58 < numbers[budget][1] / numbers[budget][0] <= 0.7  # small networks have few widths
    assert done.record["macs"] == numbers["macs"]
    assert json.loads(json.dumps(done.record)) == done.record
    after = [value.data for value in graph.constants() if value.data is not None]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert run(done.graph, [images()])[0].shape == run(graph, [images()])[0].shape


@pytest.mark.parametrize("name", [*sorted(NETS), "Siamese"])
def test_every_kind_of_network_is_cut_and_fitted(name: str) -> None:
    """Weights used several times, layers over positions, what is fused otherwise once it is cut."""
    net = (Siamese() if name == "Siamese" else seeded(name)).eval()
    count_of = 2 if name == "Siamese" else 1
    graph = capture(net, [images(1)] * count_of, training=True)
    given = [images(32, seed=1 + i) for i in range(count_of)]
    done = prune_graph(graph, macs=0.85, images=given, step=1)
    assert done.record["macs"][1] <= 0.85 * done.record["macs"][0]
    bare = prune_graph(graph, macs=0.85, images=given, step=1, refit=False)
    others = [images(32, seed=8 + i) for i in range(count_of)]
    right, fitted, lost = (run(g, others) for g in (graph, done.graph, bare.graph))
    error, plain = (
        sum(float((a - b).square().sum()) for a, b in zip(right, x, strict=True)) for x in (fitted, lost)
    )
    assert error <= plain * 1.02


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 96), conv(96, 64), conv(64, 96, 1)
        self.head = nn.Linear(96, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.c(F.relu(self.b(F.relu(self.a(x)))))).mean((2, 3)))


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_a_wide_network_comes_within_a_hundredth(scope: str) -> None:
    graph = captured(Wide())
    done = prune_graph(graph, macs=0.5, score="l1", scope=scope, step=1)
    assert 0.49 <= count(done.graph).macs / count(graph).macs <= 0.505
    multiples = prune_graph(graph, macs=0.5, score="l1", scope=scope)
    assert {group["kept"] % 8 for group in multiples.record["groups"]} == {0}


def test_what_is_dead_goes_and_nothing_else_changes() -> None:
    """A negative bias before a ReLU, a batch norm with scale 0, and what only a dead channel reads."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = conv(3, 8), conv(8, 8, 1), nn.Conv2d(8, 6, 1)
            self.head = nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.b(F.relu(self.a(x))))
            return self.head(F.relu(self.c(x)).mean((2, 3)))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Net()
        nn.init.normal_(net.a[1].bias), nn.init.normal_(net.b[1].bias)
    with torch.no_grad():
        net.a[1].weight[[2, 5]], net.a[1].bias[[2, 5]] = (
            0.0,
            torch.tensor([-1.0, 0.0]),
        )  # zero behind the ReLU
        net.b[1].weight[1], net.b[1].bias[1] = 0.0, 0.5  # constant, not zero
        net.b[0].weight[3], net.b[1].running_mean[3], net.b[1].bias[3] = 0.0, 4.0, 1.0  # below zero
        net.c.weight[:, 6] = 0.0  # read by nobody
        net.b[0].weight[:, 7], net.b[0].weight[6, 7] = (
            0.0,
            1.0,
        )  # so that 7 of `a` is read by the unread alone
    graph = captured(net)
    done = prune_graph(graph, dead=True)
    assert {group["name"]: group["kept"] for group in done.record["groups"]} == {"a.0": 5, "b.0": 6, "c": 6}
    assert done.record["dead"] == 5
    expected, got = run(graph, [images()])[0], run(done.graph, [images()])[0]
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    mine = {value.name: value.data for value in done.graph.constants()}
    a, b = [0, 1, 3, 4, 6], [0, 1, 2, 4, 5, 7]
    assert torch.equal(mine["b.0.weight"], net.b[0].weight[b][:, a])  # the bytes of what stays
    assert torch.equal(mine["b.1.running_mean"], net.b[1].running_mean[b])


def test_nothing_is_dead_where_everything_is_read() -> None:
    for name in NETS:
        assert not dead_units(analyse(captured(seeded(name)), exact=True)), name


def _trained() -> tuple[nn.Module, Tensor, Tensor]:
    """Which quarter of the picture is brightest, learned in a few seconds."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.uniform(size=(768, 3, 16, 16))).float()
    y = torch.from_numpy(rng.integers(0, 4, 768))
    for i, k in enumerate(y.tolist()):
        x[i, :, 8 * (k // 2) : 8 * (k // 2) + 8, 8 * (k % 2) : 8 * (k % 2) + 8] += 0.15
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            *(conv(3, 16), nn.ReLU(), nn.MaxPool2d(2), conv(16, 24), nn.ReLU(), conv(24, 24), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(96, 4)),
        )
        rule = torch.optim.Adam(net.parameters(), 5e-3)
        for step in range(120):
            at = slice(64 * (step % 8), 64 * (step % 8) + 64)
            rule.zero_grad()
            F.cross_entropy(net(x[at]), y[at]).backward()
            rule.step()
    return net.eval(), x[512:], y[512:]


def test_what_images_say_is_worth_more_than_chance_and_the_fit_wins_back() -> None:
    net, x, y = _trained()
    graph, given = capture(net, x[:1], training=True), x[:128]
    whole = run(graph, [x])[0]
    assert (whole.argmax(1) == y).float().mean() > 0.95

    def error(done: Pruned) -> float:
        return float((run(done.graph, [x[128:]])[0] - whole[128:]).square().mean() / whole.var())

    def chance(**settings: object) -> list[float]:
        found = [
            prune_graph(graph, macs=0.5, score="random", seed=seed, scope="layer", **settings)  # type: ignore[arg-type]
            for seed in range(3)
        ]
        return [error(one) for one in found]

    fitted = error(prune_graph(graph, macs=0.5, images=given))
    assert fitted < 0.01
    assert fitted < min(chance(images=given))
    assert error(prune_graph(graph, macs=0.5, images=given, score="taylor", refit=False)) < min(chance())


def test_a_measured_budget_is_corrected() -> None:
    """The device takes a tenth longer than predicted, and half a millisecond each time."""

    class Costs:
        def graph_ms(self, graph: Graph) -> float:
            return count(graph).macs / 1e5

        def units(self, graph: Graph) -> list[object]:
            return [_Unit(node.macs / 1e5, (node.output,), node.module) for node in count(graph).nodes]

    graph = captured(Wide())
    costs = Costs()
    asked = 0.7 * costs.graph_ms(graph)
    seen: list[Graph] = []

    def measure(found: Graph) -> float:
        seen.append(found)
        return 1.1 * costs.graph_ms(found) + 5

    given = {"latency_ms": asked, "cost": costs, "score": "l2", "step": 1}
    done = prune_graph(graph, **given, measure=measure)  # type: ignore[arg-type]
    budget = done.record["budget"]
    assert abs(budget["measured"] / asked - 1) <= 0.03
    assert 1.1 * costs.graph_ms(done.graph) + 5 == pytest.approx(budget["measured"])
    assert len(seen) == len(budget["tries"]) > 1
    assert prune_graph(graph, **given).record["budget"]["predicted"] <= asked  # type: ignore[arg-type]


class _Unit:
    def __init__(self, ms: float, outputs: tuple[str, ...], source: str) -> None:
        self.ms, self.outputs, self.source = ms, outputs, source


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "no budget"),
        ({"macs": 0.5, "params": 0.5}, "macs and params: one of"),
        ({"macs": 1.5}, "a share"),
        ({"latency_ms": 3.0}, "costs of a device"),
        ({"macs": 0.5, "scope": "local"}, "one of global, layer"),
        ({"macs": 0.5, "rounds": 0}, "at least 1"),
        ({"macs": 0.5, "refit": True}, "calibration images"),
        ({"macs": 0.5, "score": "obs"}, "calibration images"),
        ({"macs": 0.5, "protect": ["stemm"]}, "no group is called 'stemm'"),
        ({"macs": 0.001}, "narrowest form"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict, said: str) -> None:
    with pytest.raises(PruneError, match=said):
        prune_graph(captured(seeded("Residual")), **settings)


def test_protected_groups_stay_whole() -> None:
    graph = captured(seeded("Residual"))
    done = prune_graph(graph, macs=0.6, protect=["b.0"], step=1)
    kept = {group["name"]: (group["units"], group["kept"]) for group in done.record["groups"]}
    assert kept["b.0"][0] == kept["b.0"][1]


def test_a_module_in_a_module_out() -> None:
    """Called twice: the package of the same name is loaded by then."""
    net, x, y = _trained()
    for calibration in (x[:64].numpy(), None):
        smaller = edgekit.prune(net, x[:1], macs=0.6, calibration=calibration)
        assert isinstance(smaller, nn.Module) and not smaller.training
        assert set(smaller.state_dict()) == set(net.state_dict())
        assert smaller.pruning["macs"][1] < 0.6 * smaller.pruning["macs"][0]
        assert smaller.pruning["closed"][0]["name"] == "9"  # the classifier's outputs
        smaller.train()(x[:8]).sum().backward()
        if calibration is not None:
            assert (smaller.eval()(x).argmax(1) == y).float().mean() > 0.9
