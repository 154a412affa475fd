"""The ladder of lite surgery: what is priced, in which order it is taken, where it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from edgekit.capture import capture
from edgekit.errors import UsageError
from edgekit.graph.ir import Graph
from edgekit.graph.run import run
from edgekit.surgery import Lite, ladder

Tensor = torch.Tensor
IMAGES = torch.randn(20, 3, 16, 16, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """A 5x5 depthwise layer, an expansion, two smooth activations."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 8, 3, 1, 1), nn.SiLU()
        self.wide = nn.Conv2d(8, 8, 5, 1, 2, groups=8)
        self.expand, self.second = nn.Conv2d(8, 16, 1), nn.SiLU()
        self.deep, self.last = nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.wide(self.first(self.stem(x)))
        return self.last(self.deep(self.second(self.expand(x))).mean((2, 3), keepdim=True)).flatten(1)


def _graph() -> Graph:
    torch.manual_seed(0)
    return capture(Net().eval(), torch.zeros(1, 3, 16, 16))


@dataclass
class Counted:
    """Milliseconds by what is in a graph."""

    prices: dict[str, float]
    large: float = 1.0  # of a 5x5 layer
    asked: int = field(default=0)

    def graph_ms(self, graph: Graph) -> float:
        self.asked += 1
        kernels = sum(self.large for n in graph.nodes if n.op == "conv2d" and n.inputs[1].shape[2] == 5)  # type: ignore[union-attr]
        return 10.0 + kernels + sum(self.prices.get(node.op, 0.0) for node in graph.nodes)


def _judge(losses: Callable[[Graph], float]) -> Callable[[Graph], float]:
    return lambda graph: 0.9 - losses(graph)


def _replaced(graph: Graph) -> int:
    return 2 - [node.op for node in graph.nodes].count("silu")


def _shrunk(graph: Graph) -> bool:
    return all(n.inputs[1].shape[2] != 5 for n in graph.nodes if n.op == "conv2d")  # type: ignore[union-attr]


def _climb(found: Lite) -> list[tuple[str, tuple[str, ...], str]]:
    assert found.climb is not None
    return [(rung.step, rung.modules, rung.outcome) for rung in found.climb.rungs]


def test_rungs_are_taken_by_price_until_the_budget_is_spent() -> None:
    graph = _graph()
    found = ladder(
        graph,
        IMAGES,
        cost=Counted({"silu": 0.4}, large=3.0),
        judge=_judge(lambda g: 0.006 * _replaced(g) + 0.004 * _shrunk(g)),
        steps=("3x3", "relu6"),
        max_drop=0.011,
    )
    assert _climb(found) == [
        ("3x3", ("wide",), "taken"),
        ("relu6", ("first",), "taken"),
        ("relu6", ("second",), "loses more than is left of the budget"),
    ]
    climb = found.climb
    assert climb is not None
    assert [rung.price for rung in climb.rungs] == pytest.approx([3.0 / 0.4, 0.4 / 0.6, 0.4 / 0.6])
    assert (climb.ms_before, climb.ms_after) == pytest.approx((13.8, 10.4))
    assert (climb.accuracy_before, climb.accuracy_after) == pytest.approx((0.9, 0.89))
    assert [record.step for record in found.record] == ["3x3", "relu6"]
    assert _shrunk(found.graph) and _replaced(found.graph) == 1
    assert _replaced(graph) == 0 and not _shrunk(graph)  # the graph that was given stays as it was


def test_what_follows_the_first_that_cannot_be_afforded_is_left() -> None:
    found = ladder(
        _graph(),
        IMAGES,
        cost=Counted({"silu": 0.4}, large=3.0),
        judge=_judge(lambda g: {0: 0.0, 1: 0.009, 2: 0.02}[_replaced(g)] + 0.004 * _shrunk(g)),
        steps=("3x3", "relu6"),
        max_drop=0.01,
    )
    assert [outcome for _, _, outcome in _climb(found)] == [
        "taken",
        "loses more than is left of the budget",
        "dearer than what could not be afforded",
    ]


def test_what_wins_no_time_is_not_even_judged() -> None:
    judged = []

    def judge(graph: Graph) -> float:
        judged.append(graph)
        return 0.9

    found = ladder(_graph(), IMAGES, cost=Counted({}, large=0.0), judge=judge)
    assert {outcome for _, _, outcome in _climb(found)} == {"wins no time"}
    assert len(judged) == 1 and found.record == ()
    torch.testing.assert_close(run(found.graph, [IMAGES])[0], run(_graph(), [IMAGES])[0])


def test_fuse_asks_for_each_pair_by_itself() -> None:
    found = ladder(_graph(), IMAGES, cost=Counted({"conv2d": 1.0}), judge=lambda _: 0.9, steps=("fuse",))
    assert _climb(found) == [("fuse", ("deep",), "taken")]
    assert [node.op for node in found.graph.nodes].count("conv2d") == 4
    none = ladder(_graph(), IMAGES, cost=Counted({"conv2d": -1.0}), judge=lambda _: 0.9, steps=("fuse",))
    assert _climb(none) == [("fuse", ("deep",), "wins no time")]


def test_a_rung_beyond_the_budget_has_its_share_of_recovery_and_the_end_the_rest() -> None:
    asked: list[tuple[int, float]] = []

    def recover(graph: Graph, share: float) -> Graph:
        asked.append((_replaced(graph), share))
        better = graph.copy()
        better.nodes[0].source = "recovered"
        return better

    def judge(graph: Graph) -> float:
        lost = 0.008 * _replaced(graph) + 0.02 * _shrunk(graph)
        return 0.9 - (lost / 2 if graph.nodes[0].source == "recovered" else lost)

    found = ladder(
        _graph(),
        IMAGES,
        cost=Counted({"silu": 1.0}, large=0.5),
        judge=judge,
        recover=recover,
        steps=("relu6", "3x3"),
    )
    climb = found.climb
    assert climb is not None
    # One of three thirds for each that exceeds the budget as fitted; all that is left for what was taken.
    assert asked == [(2, pytest.approx(1 / 3)), (2, pytest.approx(1 / 3)), (2, pytest.approx(1 / 3))]
    assert [(rung.step, rung.taken, rung.recovered) for rung in climb.rungs] == [
        ("relu6", True, False),
        ("relu6", True, True),
        ("3x3", False, True),
    ]
    assert climb.accuracy_after == pytest.approx(0.892)
    assert found.graph.nodes[0].source == "recovered" and not _shrunk(found.graph)


def test_what_was_recovered_is_built_upon() -> None:
    """The second rung keeps what training gave the first: it is fitted to the recovered network's answers."""

    def recover(graph: Graph, share: float) -> Graph:
        better = graph.copy()
        (bias,) = {n.inputs[2] for n in better.nodes if n.source == "last"}
        bias.data = bias.data + 7.0  # type: ignore[union-attr]
        return better

    def judge(graph: Graph) -> float:
        trained = float(run(graph, [IMAGES])[0].mean()) > 5.0
        return 0.9 - 0.02 * _replaced(graph) * (0.1 if trained else 1.0)

    found = ladder(
        _graph(), IMAGES, cost=Counted({"silu": 1.0}), judge=judge, recover=recover, steps=("relu6",)
    )
    assert found.climb is not None and all(rung.taken for rung in found.climb.rungs)
    assert [record.step for record in found.record] == ["relu6", "relu6"]
    assert float(run(found.graph, [IMAGES])[0].mean()) > 5.0


def test_alone_beyond_the_budget_and_nothing_recovers_it_the_next_is_tried() -> None:
    found = ladder(
        _graph(),
        IMAGES,
        cost=Counted({"silu": 0.1}, large=30.0),
        judge=_judge(lambda g: 0.001 * _replaced(g) + 0.2 * _shrunk(g)),
        steps=("3x3", "relu6"),
        parts=1,
    )
    assert _climb(found) == [
        ("3x3", ("wide",), "loses more than is allowed by itself"),
        ("relu6", ("first", "second"), "taken"),
    ]


def test_fixed_modules_are_on_no_rung_and_the_order_leaves_no_trace() -> None:
    cost, judge = Counted({"silu": 1.0}, large=1.0), lambda _: 0.9
    found = ladder(_graph(), IMAGES, cost=cost, judge=judge, steps=("relu6", "3x3"), fixed=("first",))
    assert {module for _, modules, _ in _climb(found) for module in modules} == {"wide", "second"}
    dear = ladder(_graph(), IMAGES, cost=Counted({"silu": 5.0}), judge=judge, steps=("3x3", "relu6"))
    cheap = ladder(_graph(), IMAGES, cost=Counted({"silu": 0.5}), judge=judge, steps=("3x3", "relu6"))
    assert _climb(dear)[0][0] == "relu6" and _climb(cheap)[0][0] == "3x3"
    assert torch.equal(run(dear.graph, [IMAGES])[0], run(cheap.graph, [IMAGES])[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": ("fuze",)}, "'fuze' is no step"),
        ({"max_drop": 1.0}, "max_drop = 1: a fraction"),
        ({"fixed": ("stme",)}, "fixed 'stme': no module of that path"),
    ],
)
def test_settings_out_of_range_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ladder(_graph(), IMAGES, cost=Counted({}), judge=lambda _: 0.9, **arguments)  # type: ignore[arg-type]
