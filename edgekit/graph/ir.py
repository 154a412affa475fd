"""The graph every stage works on: Value, Node, Graph.

PyTorch semantics, NCHW, batch 1 in the recorded shapes. What an op means stands in ops.py; this file only
holds, edits and prints graphs: check.py, run.py and file.py beside it do the rest.

Enters: nodes from `edgekit.capture` or from `file.load`. Leaves: the same Graph, rewritten in
place by passes.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from edgekit.errors import GraphError


@dataclass(frozen=True)
class QuantParams:
    """real = scale * (integer - zero_point). One scale, or one per slice along `axis`.

    dtype: "int8" | "int16" | "uint8" | "int32".
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    dtype: str = "int8"
    axis: int | None = None

    def __post_init__(self) -> None:
        if len(self.scale) != len(self.zero_point):
            raise GraphError(f"[quant] {len(self.scale)} scales but {len(self.zero_point)} zero points")
        if not all(0.0 < s < float("inf") for s in self.scale):
            raise GraphError(f"[quant] scales must be positive and finite, got {self.scale[:4]}")

    def __deepcopy__(self, memo: dict[int, Any]) -> QuantParams:
        """Itself: nothing in it changes, and its thousands of numbers need not be visited one by one."""
        return self


@dataclass(eq=False)
class Value:
    """A tensor in the graph; a constant when `data` is set.

    `range` is the calibrated (low, high) in real units, the truth every target derives its parameters from;
    `quant` is what the current target made of it (None: stays float). `kind` is what a constant was in the
    module it was captured from, where it is to be trained: "parameter", "frozen" (a parameter without
    gradient), "buffer", or "constant" (a tensor of the code, or a buffer that is not saved).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    data: torch.Tensor | None = None
    range: tuple[float, float] | None = None
    quant: QuantParams | None = None
    kind: str = ""

    @property
    def is_constant(self) -> bool:
        return self.data is not None

    def __repr__(self) -> str:
        return f"%{self.name}"


@dataclass(eq=False)
class Node:
    """One operator. `source` is the path of the nn.Module it came from; every message names it."""

    op: str
    inputs: list[Value | None]
    outputs: list[Value]
    attrs: dict[str, Any] = field(default_factory=dict)
    source: str = ""

    @property
    def output(self) -> Value:
        return self.outputs[0]

    @property
    def operands(self) -> list[Value]:
        """The inputs that are there (an absent bias is None)."""
        return [value for value in self.inputs if value is not None]

    def __repr__(self) -> str:
        attrs = ", ".join(f"{k}={v}" for k, v in sorted(self.attrs.items()))
        args = ", ".join("-" if v is None else f"%{v.name}" for v in self.inputs)
        outs = ", ".join(f"%{v.name}: {v.dtype}{list(v.shape)}" for v in self.outputs)
        return f"{outs} = {self.op}({args}){'{' + attrs + '}' if attrs else ''}  # {self.source}"


def unused_name(stem: str, taken: Collection[str]) -> str:
    """`stem`, with a number behind it where it is taken."""
    if stem not in taken:
        return stem
    return next(f"{stem}_{i}" for i in range(1, len(taken) + 2) if f"{stem}_{i}" not in taken)


@dataclass(eq=False)
class Graph:
    """A straight-line program in topological order.

    `batchable`: nodes that bake the batch of 1 into their shapes do not exist, so any N runs in one go;
    otherwise `run` goes image by image. `derivations`: nodes that compute constants of the program from
    parameters, for training; whoever changes such a constant need not know of them (derivations.py).
    """

    inputs: list[Value]
    outputs: list[Value]
    nodes: list[Node]
    name: str = "model"
    batchable: bool = True
    derivations: list[Node] = field(default_factory=list)

    # queries
    def values(self) -> Iterator[Value]:
        """Every value once: inputs, then constants and results in program order."""
        seen: set[int] = set()
        for value in (
            *self.inputs,
            *(v for n in self.nodes for v in (*n.operands, *n.outputs)),
            *self.outputs,
        ):
            if id(value) not in seen:
                seen.add(id(value))
                yield value

    def constants(self) -> list[Value]:
        return [v for v in self.values() if v.is_constant]

    def underived(self) -> list[Value]:
        """The values that only derivations know, parameters among them."""
        seen = set(self.values())
        every = (value for node in self.derivations for value in (*node.operands, *node.outputs))
        return [value for value in dict.fromkeys(every) if value not in seen]

    def value(self, name: str) -> Value:
        for candidate in self.values():
            if candidate.name == name:
                return candidate
        raise GraphError(f"[graph] no value named {name!r}")

    def producers(self) -> dict[Value, Node]:
        return {out: node for node in self.nodes for out in node.outputs}

    def users(self) -> dict[Value, list[Node]]:
        """Nodes that read each value; a graph output is not a node, see `use_counts`."""
        table: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for value in dict.fromkeys(node.operands):
                table.setdefault(value, []).append(node)
        return table

    def use_counts(self) -> Counter[Value]:
        """How often each value is read, graph outputs counted as reads."""
        counts: Counter[Value] = Counter(v for n in self.nodes for v in n.operands)
        counts.update(self.outputs)
        return counts

    def fresh_name(self, stem: str) -> str:
        return unused_name(stem, {v.name for v in self.values()})

    # edits
    def replace_uses(self, old: Value, new: Value) -> None:
        """Every reader of `old`, graph outputs included, reads `new`."""
        for node in self.nodes:
            node.inputs = [new if v is old else v for v in node.inputs]
        self.outputs = [new if v is old else v for v in self.outputs]

    def remove_dead(self) -> int:
        """Drop nodes nobody reads; returns how many."""
        needed = set(self.outputs)
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if any(out in needed for out in node.outputs):
                kept.append(node)
                needed.update(node.operands)
        removed = len(self.nodes) - len(kept)
        self.nodes = kept[::-1]
        return removed

    # identity
    def __str__(self) -> str:
        head = ", ".join(f"%{v.name}: {v.dtype}{list(v.shape)}" for v in self.inputs)
        body = "\n".join(f"  {node!r}" for node in self.nodes)
        return f"graph {self.name}({head}):\n{body}\n  return {', '.join(map(repr, self.outputs))}"

    def copy(self) -> Graph:
        """A deep copy whose constants are separate tensors."""
        return copy.deepcopy(self)
