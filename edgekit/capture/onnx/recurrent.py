"""Importers of GRU, LSTM and RNN, unrolled."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from edgekit.capture.builder import Unsupported
from edgekit.capture.onnx.registry import OnnxNode, constant, importer
from edgekit.capture.recurrence import GRU, LSTM, RELU, RESET_FIRST_GRU, TANH, Kind, State, one_way, stacked
from edgekit.graph.ir import Value

if TYPE_CHECKING:
    from edgekit.capture.onnx.builder import Builder


def _recurrent(
    imp: Builder,
    node: OnnxNode,
    x: Any,
    weights: Any,
    recurrence: Any,
    bias: Any,
    initial: list[Any],
    kind: Kind,
) -> tuple[Value, ...]:
    """(Y, last states). x (T, N, I), weights (D, G * H, I), recurrence (D, G * H, H), bias (D, 2 * G * H)."""
    if node.get("layout", 0) or node.get("clip") or node.get("input_forget", 0):
        raise Unsupported(f"{node.op} with layout, clip or input_forget")
    direction = node.get("direction", "forward")
    both = direction == "bidirectional"
    weights, recurrence = (imp.tensor(constant(w, "weights")) for w in (weights, recurrence))
    bias = None if bias is None else imp.tensor(constant(bias, "biases"))
    size, batch = recurrence.shape[2], x.shape[1]
    found, last = [], []
    for way in range(2 if both else 1):
        parts = [weights[way], recurrence[way]]
        if bias is not None:
            parts += list(bias[way].chunk(2))
        state: State = [_state(imp, h, way, batch, size) for h in initial]
        backwards = direction == "reverse" or way == 1
        steps, state = one_way(imp, x, state, parts, kind, 0, backwards)
        lines = stacked(imp, steps, 1)
        found.append(imp.reshape(lines, (batch, x.shape[0], 1, size)))
        last.append(state)
    y = imp.emit("concat", found, dim=2) if both else found[0]
    ends = [stacked(imp, [state[i] for state in last], 0) for i in range(len(initial))]
    return (imp.emit("permute", (y,), dims=(1, 2, 0, 3)), *ends)


def _state(imp: Builder, h: Any, way: int, batch: int, size: int) -> Any:
    """The initial state (N, H) of a direction; zeros where none is given."""
    if h is None:
        return torch.zeros(batch, size)
    if not isinstance(h, Value):
        return imp.tensor(h)[way]
    piece = imp.emit("slice", (h,), dim=0, start=way, end=way + 1, step=1)
    return imp.reshape(piece, (batch, size))


def _functions(node: OnnxNode, usual: tuple[str, ...]) -> tuple[str, ...]:
    given = [name.lower() for name in node.get("activations") or usual]
    if given != list(usual) * (len(given) // len(usual)):
        raise Unsupported(f"{node.op} with the activations {', '.join(given)}")
    return usual


def _no_lengths(node: OnnxNode, lengths: Any, x: Any) -> None:
    if lengths is not None and (isinstance(lengths, Value) or (lengths != x.shape[0]).any()):
        raise Unsupported(f"{node.op} over sequences of several lengths")


@importer("GRU")
def gru(
    imp: Builder, node: OnnxNode, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h: Any = None
) -> tuple[Value, ...]:
    """Rows of the weights are z, r, n; the state is reset after its product where the node says so."""
    _no_lengths(node, lengths, x)
    _functions(node, ("sigmoid", "tanh"))
    kind = replace(GRU if node.get("linear_before_reset", 0) else RESET_FIRST_GRU, blocks=((1, 0), (2,)))
    return _recurrent(imp, node, x, w, r, b, [h], kind)


@importer("LSTM")
def lstm(
    imp: Builder,
    node: OnnxNode,
    x: Any,
    w: Any,
    r: Any,
    b: Any = None,
    lengths: Any = None,
    h: Any = None,
    c: Any = None,
    peepholes: Any = None,
) -> tuple[Value, ...]:
    """Rows of the weights are i, o, f, g."""
    _no_lengths(node, lengths, x)
    _functions(node, ("sigmoid", "tanh", "tanh"))
    if peepholes is not None:
        raise Unsupported("LSTM with peepholes")
    return _recurrent(imp, node, x, w, r, b, [h, c], replace(LSTM, blocks=((0, 2, 1), (3,))))


@importer("RNN")
def rnn(
    imp: Builder, node: OnnxNode, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h: Any = None
) -> tuple[Value, ...]:
    _no_lengths(node, lengths, x)
    names = {name.lower() for name in node.get("activations") or ["tanh"]}
    if names not in ({"tanh"}, {"relu"}):
        raise Unsupported(f"RNN with the activations {', '.join(sorted(names))}")
    return _recurrent(imp, node, x, w, r, b, [h], TANH if names == {"tanh"} else RELU)
