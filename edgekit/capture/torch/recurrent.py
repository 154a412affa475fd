"""Importers of GRU, LSTM and plain recurrent layers, unrolled: the runtimes' own ones differ in every format.

What reads the input is one product for all steps; a step is the product with the state and the gates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from edgekit.capture.torch.registry import Unsupported, aten, importer
from edgekit.graph.ir import Value

if TYPE_CHECKING:
    from edgekit.capture.builder import Builder

_STEPS = 256  # of one layer; each is a dozen nodes
State = list[Any]  # (N, H) a state; a tensor of zeros before the first step
Cell = Callable[["Builder", Sequence[Value], State, Sequence["_Part"]], State]


class _Part:
    """The rows of the weights that serve one kind of gate: what the input and the state give to it.

    Where both are only added, `joined`, the state's bias is the input's as well.
    """

    def __init__(
        self, imp: Builder, weights: Sequence[torch.Tensor], rows: Sequence[slice], name: str, joined: bool
    ) -> None:
        self.of_input, self.of_state, *biases = [
            imp.derived(w, torch.cat([w[r] for r in rows]), f"/{name}") for w in weights
        ]
        self.input_bias: Any = biases[0] if biases else None
        self.state_bias: Any = biases[1] if biases else None
        if biases and joined:
            self.input_bias, self.state_bias = imp.derived(biases[0], biases[0] + biases[1]), None

    def project(self, imp: Builder, x: Value) -> Value:
        return imp.emit("linear", (x, self.of_input, self.input_bias))

    def recur(self, imp: Builder, h: Any) -> Any:
        """The state's share; of a fixed state a constant, of zeros without a bias nothing."""
        if _is_zero(h) and self.state_bias is None:
            return None
        if isinstance(h, torch.Tensor):
            return torch.nn.functional.linear(h, self.of_state, self.state_bias)
        return imp.emit("linear", (h, self.of_state, self.state_bias))


def _is_zero(h: Any) -> bool:
    return isinstance(h, torch.Tensor) and not bool(h.any())


def _plus(imp: Builder, a: Value, b: Any) -> Value:
    return a if b is None else imp.emit("add", (a, b))


def _gru_cell(imp: Builder, x: Sequence[Value], state: State, parts: Sequence[_Part]) -> State:
    """n + z * (h - n), n = tanh(x_n + r * h_n): parts are (r, z) and n."""
    (h,), (gates, new) = state, parts
    both = imp.emit("sigmoid", (_plus(imp, x[0], gates.recur(imp, h)),))
    half = both.shape[-1] // 2
    r, z = imp.emit_many("split", (both,), sizes=(half, half), dim=1)
    share = new.recur(imp, h)
    n = x[1] if share is None else imp.emit("add", (x[1], imp.emit("mul", (r, share))))
    n = imp.emit("tanh", (n,))
    if _is_zero(h):
        return [imp.emit("sub", (n, imp.emit("mul", (z, n))))]
    return [imp.emit("add", (n, imp.emit("mul", (z, imp.emit("sub", (h, n))))))]


def _lstm_cell(imp: Builder, x: Sequence[Value], state: State, parts: Sequence[_Part]) -> State:
    """c = f * c + i * g, h = o * tanh(c): parts are (i, f, o) and g."""
    h, c = state
    gates = imp.emit("sigmoid", (_plus(imp, x[0], parts[0].recur(imp, h)),))
    new = imp.emit("tanh", (_plus(imp, x[1], parts[1].recur(imp, h)),))
    third = gates.shape[-1] // 3
    i, f, o = imp.emit_many("split", (gates,), sizes=(third,) * 3, dim=1)
    kept = imp.emit("mul", (i, new))
    c = kept if _is_zero(c) else imp.emit("add", (imp.emit("mul", (f, c)), kept))
    return [imp.emit("mul", (o, imp.emit("tanh", (c,)))), c]


def _plain_cell(activation: str) -> Cell:
    def cell(imp: Builder, x: Sequence[Value], state: State, parts: Sequence[_Part]) -> State:
        return [imp.emit(activation, (_plus(imp, x[0], parts[0].recur(imp, state[0])),))]

    return cell


def _rows(size: int, *groups: Sequence[int]) -> list[list[slice]]:
    return [[slice(i * size, (i + 1) * size) for i in group] for group in groups]


def _layers(
    imp: Builder,
    x: Value,
    initial: Sequence[Any],
    params: Sequence[torch.Tensor],
    has_biases: bool,
    layers: int,
    both_ways: bool,
    batch_first: bool,
    cell: Cell,
    groups: Sequence[Sequence[int]],
    joined: Sequence[bool],
) -> tuple[Value, ...]:
    """(outputs, last state of every kind); initial states are (layers * directions, N, H)."""
    time, ways = (1 if batch_first else 0), 2 if both_ways else 1
    if x.shape[time] > _STEPS:
        raise Unsupported(f"a recurrent layer over {x.shape[time]} steps (unrolled: at most {_STEPS})")
    each = 4 if has_biases else 2
    if len(params) != each * layers * ways:
        raise Unsupported("an LSTM with a projection (proj_size=0)")
    last: list[list[Value]] = [[] for _ in initial]
    for layer in range(layers):
        found = []
        for way in range(ways):
            row = layer * ways + way
            weights = params[each * row : each * (row + 1)]
            rows = _rows(weights[1].shape[1], *groups)
            parts = [
                _Part(imp, weights, r, f"gates{i}", j)
                for i, (r, j) in enumerate(zip(rows, joined, strict=True))
            ]
            state: State = [_initial(imp, h, row) for h in initial]
            steps = [_steps(imp, part.project(imp, x), time) for part in parts]
            order = range(x.shape[time])[:: -1 if way else 1]
            made: dict[int, Value] = {}
            for t in order:
                state = cell(imp, [step[t] for step in steps], state, parts)
                made[t] = state[0]
            found.append(_stacked(imp, [made[t] for t in range(x.shape[time])], time))
            for kind, h in zip(last, state, strict=True):
                kind.append(h)
        x = imp.emit("concat", found, dim=2) if ways == 2 else found[0]
    return (x, *(_stacked(imp, kind, 0) for kind in last))


def _initial(imp: Builder, states: Any, row: int) -> Any:
    if isinstance(states, torch.Tensor):
        return states[row]
    piece = imp.emit("slice", (states,), dim=0, start=row, end=row + 1, step=1)
    return imp.reshape(piece, states.shape[1:])


def _steps(imp: Builder, x: Value, time: int) -> list[Value]:
    """(N, T, G) or (T, N, G) as T times (N, G)."""
    count, batch = x.shape[time], x.shape[1 - time]
    pieces = imp.emit_many("split", (x,), sizes=(1,) * count, dim=time) if count > 1 else [x]
    return [imp.reshape(piece, (batch, x.shape[2])) for piece in pieces]


def _stacked(imp: Builder, states: Sequence[Value], dim: int) -> Value:
    """(N, H) each -> (N, T, H), or (T, N, H) by turning that: the batch stays in front while it can."""
    rows = [imp.reshape(h, (h.shape[0], 1, h.shape[1])) for h in map(imp.value, states)]
    joined = imp.emit("concat", rows, dim=1) if len(rows) > 1 else rows[0]
    return joined if dim == 1 else imp.emit("permute", (joined,), dims=(1, 0, 2))


@importer(aten.gru.input)
def gru(imp: Builder, x, hx, params, has_biases, layers, dropout, train, both_ways, batch_first):
    """Rows of the weights are r, z, n."""
    return _layers(
        imp,
        x,
        [hx],
        params,
        has_biases,
        layers,
        both_ways,
        batch_first,
        _gru_cell,
        ((0, 1), (2,)),
        (True, False),
    )


@importer(aten.lstm.input)
def lstm(imp: Builder, x, hx, params, has_biases, layers, dropout, train, both_ways, batch_first):
    """Rows of the weights are i, f, g, o."""
    return _layers(
        imp,
        x,
        hx,
        params,
        has_biases,
        layers,
        both_ways,
        batch_first,
        _lstm_cell,
        ((0, 1, 3), (2,)),
        (True, True),
    )


def _plain(overload: Any, activation: str) -> None:
    def fn(imp: Builder, x, hx, params, has_biases, layers, dropout, train, both_ways, batch_first):
        cell = _plain_cell(activation)
        return _layers(
            imp, x, [hx], params, has_biases, layers, both_ways, batch_first, cell, ((0,),), (True,)
        )

    importer(overload)(fn)


_plain(aten.rnn_tanh.input, "tanh")
_plain(aten.rnn_relu.input, "relu")
