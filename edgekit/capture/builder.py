"""A graph being built: names, shared constants, appended nodes. What importers are given."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.shapes import infer_shapes


class Unsupported(Exception):
    """An operator whose arguments the graph cannot express; the importers collect them all."""


class Builder:
    """Appends nodes to `graph`.

    source: path of the module whose operator is being imported. leaf: whether that module is one torch.nn
    layer, whose path alone names the result. meta: what the export knows of the operator's result, a meta
    tensor or a tuple of them. args: the operator's own arguments, tensors as the export's nodes.
    stochastic: what each layer of stochastic depth leaves out, by its path.
    """

    def __init__(self, name: str, training: bool = False) -> None:
        self.training = training
        self.graph = Graph([], [], [], name)
        self.names: set[str] = set()
        self.constants: dict[int, Value] = {}
        self.constant_names: dict[int, str] = {}
        self.kinds: dict[int, str] = {}
        self.keep_alive: list[Any] = []
        self.source = ""
        self.leaf = False
        self.meta: Any = None
        self.args: tuple[Any, ...] = ()
        self.stochastic: dict[str, str] = {}

    def name(self, stem: str) -> str:
        stem = stem or "model"
        name, i = stem, 0
        while name in self.names:
            i += 1
            name = f"{stem}_{i}"
        self.names.add(name)
        return name

    def value(self, x: Any) -> Value:
        """A Value for a Value, tensor or number; the same tensor gives the same constant.

        Numbers of the graph are float32, whole ones too; booleans stay what they are.
        """
        if isinstance(x, Value):
            return x
        if not isinstance(x, torch.Tensor):
            x = torch.tensor(x, dtype=torch.float32)
        if id(x) not in self.constants:
            name = self.name(self.constant_names.get(id(x), f"{self.source or 'model'}/constant"))
            data = x.detach()
            data = data if data.dtype == torch.bool else data.float()
            dtype = str(data.dtype).removeprefix("torch.")
            self.constants[id(x)] = Value(name, tuple(x.shape), dtype, data, kind=self.kind_of(x))
            self.keep_alive.append(x)
        return self.constants[id(x)]

    def kind_of(self, constant: torch.Tensor) -> str:
        """What a constant was in its module; nothing where the graph is not to be trained."""
        return self.kinds.get(id(constant), "constant") if self.training else ""

    def norm_facts(self, mean: torch.Tensor | None, momentum: float) -> dict[str, Any]:
        """How a batch norm trains; nothing where the graph is not to be trained."""
        return {}

    def derived(self, origin: torch.Tensor, made: torch.Tensor, suffix: str = "") -> torch.Tensor:
        """`made` out of the constant `origin`, under its name."""
        name = self.constant_names.get(id(origin), f"{self.source or 'model'}/constant")
        self.constant_names[id(made)] = f"{name}{suffix}"
        self.keep_alive += [origin, made]
        return made

    def emit(
        self, op: str, inputs: Iterable[Any], dims: Iterable[int] | None = None, /, **attrs: Any
    ) -> Value:
        """Append a node with one output; its shape comes from running it on meta tensors."""
        return self.emit_many(op, inputs, None if dims is None else [dims], **attrs)[0]

    def emit_many(
        self, op: str, inputs: Iterable[Any], shapes: Iterable[Iterable[int]] | None = None, /, **attrs: Any
    ) -> list[Value]:
        """The same with all outputs."""
        values = [None if x is None else self.value(x) for x in inputs]
        stem = self.source if self.leaf and self.source else "/".join(filter(None, (self.source, op)))
        node = Node(op, values, [], attrs, self.source)
        found = infer_shapes(node) if shapes is None else shapes
        node.outputs = [Value(self.name(stem), tuple(int(d) for d in shape)) for shape in found]
        self.graph.nodes.append(node)
        return node.outputs

    def reshape(self, x: Value, sizes: Iterable[int]) -> Value:
        """To `sizes`, recorded so that the leading dimension stays the batch's."""
        wanted = tuple(int(d) for d in sizes)
        if wanted == tuple(x.shape):
            return x
        return self.emit("reshape", (x,), wanted, shape=(-1, *wanted[1:]) if wanted else ())
