"""Recurrent layers, unrolled: the runtimes' own GRU and LSTM differ in every format, and none is integer.

What reads the input is one product for all steps; a step is the product with the state and the gates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from edgekit.capture.builder import Builder, Unsupported
from edgekit.graph.ir import Value

_STEPS = 256  # of one layer; each is a dozen nodes
State = list[Any]  # (N, H) a state; a tensor of zeros before the first step
Cell = Callable[[Builder, Sequence[Value], State, Sequence["_Part"]], State]


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
    return _blended(imp, n, z, h)


def _blended(imp: Builder, n: Value, z: Value, h: Any) -> State:
    """n + z * (h - n)."""
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


def _reset_first_cell(imp: Builder, x: Sequence[Value], state: State, parts: Sequence[_Part]) -> State:
    """A GRU that resets the state before its product: n = tanh(x_n + W (r * h))."""
    (h,), (gates, new) = state, parts
    both = imp.emit("sigmoid", (_plus(imp, x[0], gates.recur(imp, h)),))
    half = both.shape[-1] // 2
    r, z = imp.emit_many("split", (both,), sizes=(half, half), dim=1)
    kept = h if _is_zero(h) else imp.emit("mul", (r, h))
    n = imp.emit("tanh", (_plus(imp, x[1], new.recur(imp, kept)),))
    return _blended(imp, n, z, h)


def _plain_cell(activation: str) -> Cell:
    def cell(imp: Builder, x: Sequence[Value], state: State, parts: Sequence[_Part]) -> State:
        return [imp.emit(activation, (_plus(imp, x[0], parts[0].recur(imp, state[0])),))]

    return cell


@dataclass(frozen=True)
class Kind:
    """A recurrent layer: its cell, the blocks of the weights' rows that serve each part, `joined` of it."""

    cell: Cell
    blocks: tuple[tuple[int, ...], ...]
    joined: tuple[bool, ...]


GRU = Kind(_gru_cell, ((0, 1), (2,)), (True, False))  # rows r, z, n
RESET_FIRST_GRU = Kind(_reset_first_cell, ((0, 1), (2,)), (True, True))
LSTM = Kind(_lstm_cell, ((0, 1, 3), (2,)), (True, True))  # rows i, f, g, o
TANH = Kind(_plain_cell("tanh"), ((0,),), (True,))
RELU = Kind(_plain_cell("relu"), ((0,),), (True,))


def one_way(
    imp: Builder,
    x: Value,
    state: State,
    weights: Sequence[torch.Tensor],
    kind: Kind,
    time: int,
    backwards: bool,
) -> tuple[list[Value], State]:
    """One layer in one direction.

    Args:
        x: (N, T, I), or (T, N, I) for a `time` of 0.
        weights: of the input (G * H, I) and the state (G * H, H), then both biases or none.
    Returns: the hidden state (N, H) of every step, in the order of time, and all states after the last.
    """
    if x.shape[time] > _STEPS:
        raise Unsupported(f"a recurrent layer over {x.shape[time]} steps (unrolled: at most {_STEPS})")
    size = weights[1].shape[1]
    parts = []
    for i, (blocks, joined) in enumerate(zip(kind.blocks, kind.joined, strict=True)):
        rows = [slice(block * size, (block + 1) * size) for block in blocks]
        parts.append(_Part(imp, weights, rows, f"gates{i}", joined))
    steps = [_steps(imp, part.project(imp, x), time) for part in parts]
    made: dict[int, Value] = {}
    for t in range(x.shape[time])[:: -1 if backwards else 1]:
        state = kind.cell(imp, [step[t] for step in steps], state, parts)
        made[t] = state[0]
    return [made[t] for t in range(x.shape[time])], state


def _steps(imp: Builder, x: Value, time: int) -> list[Value]:
    """(N, T, G) or (T, N, G) as T times (N, G)."""
    count, batch = x.shape[time], x.shape[1 - time]
    pieces = imp.emit_many("split", (x,), sizes=(1,) * count, dim=time) if count > 1 else [x]
    return [imp.reshape(piece, (batch, x.shape[2])) for piece in pieces]


def stacked(imp: Builder, states: Sequence[Value], dim: int) -> Value:
    """(N, H) each -> (N, T, H), or (T, N, H) by turning that: the batch stays in front while it can."""
    rows = [imp.reshape(h, (h.shape[0], 1, h.shape[1])) for h in map(imp.value, states)]
    joined = imp.emit("concat", rows, dim=1) if len(rows) > 1 else rows[0]
    return joined if dim == 1 else imp.emit("permute", (joined,), dims=(1, 0, 2))
