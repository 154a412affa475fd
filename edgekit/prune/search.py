"""Widths of all groups under one budget.

Every group has a ladder: widths that kernels like, and the error that narrowing to each brings. From the full
network down, always the step that brings least error for what it saves at the widths that are now (a
layer's price depends on its input and its output: what one step saves changes with every other), until the
budget is met; then steps are traded for each other as long as the error falls.

Enters: ladders, a price of widths, a budget. Leaves: the width of every group.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Widths = dict[str, int]
Price = Callable[[Mapping[str, float]], float]  # group -> share of it that stays


@dataclass(frozen=True)
class Ladder:
    """widths: units that stay, from all of them down. errors: what each brings, from 0 up."""

    widths: tuple[int, ...]
    errors: tuple[float, ...]

    @property
    def full(self) -> int:
        return self.widths[0]


def ladder(scores: list[float], step: int, least: int, relative: float = 0.0) -> Ladder:
    """The ladder of a group whose units have these scores, in multiples of `step`, at least `least` of them.

    Units leave in the order of their scores, each with its score as error. What is not judged (an infinite
    score) stays. relative, above 0: scores compare within the group alone; the error is that many times -log
    of the share of their sum that stays, since shares of layers behind each other multiply.
    """
    full, ordered = len(scores), sorted(scores)
    finite = sum(score < float("inf") for score in ordered)
    least = max(1, least, full - finite)
    down = [width for width in range(full - 1, least - 1, -1) if width % step == 0]
    widths = (full, *down)
    sums = [0.0]
    for score in ordered[:finite]:
        sums.append(sums[-1] + score)
    if relative > 0 and sums[-1] > 0:
        sums = [-relative * math.log(max(1 - lost / sums[-1], 1e-12)) for lost in sums]
    return Ladder(widths, tuple(sums[full - width] for width in widths))


def search(ladders: Mapping[str, Ladder], price: Price, budget: float) -> tuple[Widths, float]:
    """The widths of least error that cost at most `budget`, and what they cost.

    The cheapest widths there are where even those cost more.
    """
    state = _State(dict(ladders), price)
    while state.now > budget:
        step = state.best_step(budget)
        if step is None:
            break
        state.take(*step)
    if state.now <= budget:
        _trade(state, budget)
    return state.widths(), state.now


class _State:
    def __init__(self, ladders: dict[str, Ladder], price: Price) -> None:
        self.ladders, self.price = ladders, price
        self.at = dict.fromkeys(ladders, 0)
        self.now = price(self.shares())

    def shares(self, **_: int) -> dict[str, float]:
        return {name: one.widths[self.at[name]] / one.full for name, one in self.ladders.items()}

    def widths(self) -> Widths:
        return {name: one.widths[self.at[name]] for name, one in self.ladders.items()}

    def error(self, name: str, rung: int) -> float:
        return self.ladders[name].errors[rung]

    def price_at(self, changed: Mapping[str, int]) -> float:
        shares = self.shares()
        for name, rung in changed.items():
            one = self.ladders[name]
            shares[name] = one.widths[rung] / one.full
        return self.price(shares)

    def best_step(self, budget: float) -> tuple[str, int] | None:
        """The narrower rung of any group that brings least error for each unit of price; none where nothing
        saves anything. What is saved beyond the budget is worth nothing.
        """
        best: tuple[float, float, str, int] | None = None
        for name, rung in self.at.items():
            for further in range(rung + 1, min(rung + 4, len(self.ladders[name].widths))):
                saved = self.now - max(budget, self.price_at({name: further}))
                if saved <= 1e-9 * self.now:
                    continue
                brought = self.error(name, further) - self.error(name, rung)
                key = (brought / saved, -saved, name, further)
                best = key if best is None or key < best else best
        return None if best is None else (best[2], best[3])

    def take(self, name: str, rung: int) -> None:
        self.at[name] = rung
        self.now = self.price_at({})


def _trade(state: _State, budget: float) -> None:
    """Widen one group where another's narrowing pays for it, while the error falls."""
    for _ in range(200):
        best: tuple[float, dict[str, int]] | None = None
        for wide, rung in state.at.items():
            if rung == 0:
                continue
            won = state.error(wide, rung) - state.error(wide, rung - 1)
            over = state.price_at({wide: rung - 1}) - budget
            if over <= 0:
                best = max(best or (0.0, {}), (won, {wide: rung - 1}), key=lambda pair: pair[0])
                continue
            for narrow, other in state.at.items():
                if narrow == wide or other + 1 >= len(state.ladders[narrow].widths):
                    continue
                lost = state.error(narrow, other + 1) - state.error(narrow, other)
                if won - lost <= 1e-12 or (best is not None and won - lost <= best[0]):
                    continue
                change = {wide: rung - 1, narrow: other + 1}
                if state.price_at(change) <= budget:
                    best = (won - lost, change)
        if best is None or best[0] <= 0:
            return
        for name, rung in best[1].items():
            state.take(name, rung)
