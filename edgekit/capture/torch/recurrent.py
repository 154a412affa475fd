"""Importers of GRU, LSTM and plain recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from edgekit.capture.builder import Unsupported
from edgekit.capture.recurrence import GRU, LSTM, RELU, TANH, Kind, State, one_way, stacked
from edgekit.capture.torch.registry import aten, importer
from edgekit.graph.ir import Value

if TYPE_CHECKING:
    from edgekit.capture.builder import Builder


def _layers(
    imp: Builder,
    x: Value,
    initial: Sequence[Any],
    params: Sequence[torch.Tensor],
    has_biases: bool,
    layers: int,
    both_ways: bool,
    batch_first: bool,
    kind: Kind,
    dropout: float,
) -> tuple[Value, ...]:
    """(outputs, last state of every kind); initial states are (layers * directions, N, H)."""
    time, ways = (1 if batch_first else 0), 2 if both_ways else 1
    each = 4 if has_biases else 2
    if len(params) != each * layers * ways:
        raise Unsupported("an LSTM with a projection (proj_size=0)")
    last: list[list[Value]] = [[] for _ in initial]
    for layer in range(layers):
        found = []
        for way in range(ways):
            row = layer * ways + way
            state: State = [_initial(imp, h, row) for h in initial]
            weights = params[each * row : each * (row + 1)]
            steps, state = one_way(imp, x, state, weights, kind, time, bool(way))
            found.append(stacked(imp, steps, time))
            for states, h in zip(last, state, strict=True):
                states.append(h)
        x = imp.emit("concat", found, dim=2) if ways == 2 else found[0]
        if imp.training and dropout > 0 and layer + 1 < layers:
            x = imp.emit("dropout", (x,), x.shape, p=float(dropout), mode="element")
    return (x, *(stacked(imp, states, 0) for states in last))


def _initial(imp: Builder, states: Any, row: int) -> Any:
    if isinstance(states, torch.Tensor):
        return states[row]
    piece = imp.emit("slice", (states,), dim=0, start=row, end=row + 1, step=1)
    return imp.reshape(piece, states.shape[1:])


def _recurrent(overload: Any, kind: Kind) -> None:
    def fn(imp: Builder, x, hx, params, has_biases, layers, dropout, train, both_ways, batch_first):
        initial = hx if isinstance(hx, list | tuple) else [hx]
        return _layers(imp, x, initial, params, has_biases, layers, both_ways, batch_first, kind, dropout)

    importer(overload)(fn)


_recurrent(aten.gru.input, GRU)
_recurrent(aten.lstm.input, LSTM)
_recurrent(aten.rnn_tanh.input, TANH)
_recurrent(aten.rnn_relu.input, RELU)
