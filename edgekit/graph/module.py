"""A graph as an ordinary nn.Module that trains, and back.

Enters: a graph as capture gives it, with batch norm in it; nothing of it is written. Leaves: a module whose
parameters and buffers are copies of the graph's constants under the dotted paths of the module they came
from, and `to_graph`, a new graph with the present numbers.

What a constant becomes is said by its `kind`. Of a graph that does not say (an ONNX file, a rewritten one)
every floating tensor is a parameter but for the statistics of batch norms and single numbers.
"""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from edgekit.errors import GraphError
from edgekit.graph.derivations import derive, holding
from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import WEIGHT_AXIS
from edgekit.graph.run import run, run_node
from edgekit.graph.sides import bound_to_side

Tensor = torch.Tensor
See = Callable[[str, Tensor], Tensor]
_PARAMETERS = ("weight", "bias")
_BY_MODE = {
    "element": torch.dropout,
    "channel": torch.feature_dropout,
    "alpha": torch.alpha_dropout,
    "alpha channel": torch.feature_alpha_dropout,
}
_DROPOUTS = {"dropout": ("p", "mode"), "scaled_dot_product_attention": ("dropout", "")}
_STATISTICS = ("running_mean", "running_var")


def as_module(graph: Graph) -> GraphModule:
    """A module that computes what the graph does and trains; it shares no tensor with the graph."""
    return GraphModule(graph)


class Scope(nn.Module):
    """What lies below one path of the original module."""


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """nn.BatchNorm of any rank: what is done to a model's batch norms by their class is done to it."""

    def _check_input_dim(self, input: Tensor) -> None: ...


class InstanceNorm(nn.modules.instancenorm._InstanceNorm):
    """nn.InstanceNorm, of a rank that is set."""

    rank = 4

    def _check_input_dim(self, input: Tensor) -> None: ...

    def _get_no_batch_dim(self) -> int:
        return self.rank - 1


class Dropout(nn.Dropout):
    """nn.Dropout of whatever `mode` says (see the op): what is done to those of a model is done to it."""

    def __init__(self, p: float, mode: str) -> None:
        super().__init__(p)
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if self.mode in ("row", "batch"):
            shape = (x.shape[0] if self.mode == "row" else 1, *[1] * (x.ndim - 1))
            return x * F.dropout(x.new_ones(shape), self.p, True)
        return _BY_MODE[self.mode](x, self.p, True)


class GraphModule(nn.Module):
    """A captured graph, to train, to copy, to export and to save like any other module.

    It takes one tensor for each input of the graph, (N, ...), and gives a tensor, or a list where the graph
    has several outputs.
    """

    pruning: dict[str, Any]  # what edgekit.prune did to the graph, where it did

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        graph = replace(graph, derivations=holding(graph))
        self._graph = _structure(graph)
        self._paths: dict[Value, str] = {}
        self._norms: dict[Node, str] = {}
        self._drops: dict[Node, str] = {}
        self._derived = {value for node in self._graph.derivations for value in node.outputs}
        data = {new: old.data for new, old in zip(_values(self._graph), _values(graph), strict=True)}
        self._add_norms(data)
        for value, tensor in data.items():
            if value.is_constant and value not in self._paths and value not in self._derived:
                self._add(value, tensor)
        self._add_drops()

    # construction
    def _add_norms(self, data: dict[Value, Tensor | None]) -> None:
        """A layer of its own for each pair of running statistics, where the mean's name says."""
        layers: dict[tuple[Value, ...], str] = {}
        for node in self._graph.nodes:
            statistics = _statistics(node)
            if not statistics:
                continue
            if statistics not in layers:
                mean, var = statistics
                path, _, last = mean.name.rpartition(".")
                at, part = self._place(path if last == _STATISTICS[0] and path else node.output.name)
                layer = _norm_of(node, data[mean], data[var])
                at.add_module(part, layer)
                layers[statistics] = path = self._path_of(layer)
                self._paths[mean], self._paths[var] = (f"{path}.{name}" for name in _STATISTICS)
            self._norms[node] = layers[statistics]
        for node, path in self._norms.items():
            holder = self.get_submodule(path)
            for name, value in zip(_PARAMETERS, node.inputs[1:3], strict=True):
                if value is None or not value.is_constant or value in self._derived:
                    continue
                if value not in self._paths:
                    self._add(value, data[value])
                if getattr(holder, name) is None:
                    setattr(holder, name, self._tensor(value))

    def _add_drops(self) -> None:
        """A layer for each dropout under its module's path, or one for all of the same module's."""
        made: dict[tuple[str, float, str], str] = {}
        for node in self._graph.nodes:
            p, mode = (node.attrs.get(name) for name in _DROPOUTS.get(node.op, ("", "")))
            if not p:
                continue
            own = node.output.name.partition("/")[0] == node.output.name and node.source
            key = (node.source if own else f"{node.source}.dropout", float(p), mode or "element")
            if key not in made:
                at, part = self._place(key[0].removeprefix("."))
                at.add_module(part, Dropout(key[1], key[2]))
                made[key] = self._path_of(at.get_submodule(part))
            self._drops[node] = made[key]

    def _add(self, value: Value, data: Tensor | None) -> None:
        """Register one constant under its name."""
        assert data is not None
        at, part = self._place(value.name)
        tensor = data.detach().clone()
        kind = value.kind or _kind_of(value)
        if kind in ("parameter", "frozen"):
            at.register_parameter(part, nn.Parameter(tensor, requires_grad=kind == "parameter"))
        else:
            at.register_buffer(part, tensor, persistent=kind == "buffer")
        path = self._path_of(at)
        self._paths[value] = f"{path}.{part}" if path else part

    def _place(self, name: str) -> tuple[nn.Module, str]:
        """The scope and the free name in it where `name` goes; scopes on the way are made."""
        *scopes, last = name.split(".")
        at: nn.Module = self
        for part in scopes:
            part = part or "_"
            while part not in at._modules and hasattr(at, part):
                part += "_"
            if part not in at._modules:
                at.add_module(part, Scope())
            at = at._modules[part]  # type: ignore[assignment]
        last = last or "_"
        while hasattr(at, last) and getattr(at, last) is not None:
            last += "_"
        return at, last

    def _path_of(self, module: nn.Module) -> str:
        return next(path for path, part in self.named_modules() if part is module)

    # execution
    def forward(self, *inputs: Tensor) -> Any:
        """The graph's answer; in training mode batch norms use and follow the batch."""
        results = self.watched(inputs)
        return results[0] if len(results) == 1 else results

    def watched(self, inputs: Sequence[Tensor], see: See = lambda _name, x: x) -> list[Tensor]:
        """All outputs. `see` is told every input and result by its name; what it gives is what is read.

        A graph that runs image by image tells those of one image after the other.
        """
        several = bool(inputs) and len(inputs[0]) > 1
        if several and not self._graph.batchable and any(map(self._trains, self._norms.values())):
            raise GraphError(
                f"[module] {self._graph.name} runs image by image, where its batch norms see no batch: "
                "a batch of 1, or batch norms in eval mode"
            )
        derived = derive(self._graph.derivations, self._tensor)

        def on_value(value: Value, x: Tensor) -> Tensor:
            if value in derived:
                return derived[value]
            return self._read(value, x) if value.is_constant else see(value.name, x)

        any_side = self._other_sides(inputs)
        return run(self._graph, inputs, on_value, self._run_node, any_side=any_side)

    def _other_sides(self, inputs: Sequence[Tensor]) -> bool:
        """Whether pictures of another side come in. Raises: GraphError where the graph knows its own."""
        graph = self._graph
        pairs = [(x, value) for x, value in zip(inputs, graph.inputs, strict=False) if x.ndim == 4]
        if all(x.shape[2:] == value.shape[2:] for x, value in pairs if len(value.shape) == 4):
            return False
        node = bound_to_side(graph)
        if node is None and graph.batchable:
            return True
        why = "runs image by image" if node is None else f"{node.op} at {node.source or 'top level'} is of it"
        sides = " and ".join("x".join(map(str, value.shape[2:])) for _, value in pairs)
        raise GraphError(f"[module] {graph.name} was captured at {sides} and {why}: pictures of that side")

    def ends(self) -> dict[str, tuple[int, str, tuple[int, ...]]]:
        """Every module's path, and "" -> its last result: place in the program, name, shape (1, ...).

        The last that is read outside the module, or given out.
        """
        found: dict[str, tuple[int, str, tuple[int, ...]]] = {}
        users, given = self._graph.users(), set(self._graph.outputs)
        for at, node in enumerate(self._graph.nodes):
            parts = node.source.split(".") if node.source else []
            for count in range(len(parts) + 1):
                path = ".".join(parts[:count])
                for value in node.outputs:
                    outside = any(
                        reader.source != path and not reader.source.startswith(f"{path}.")
                        for reader in users.get(value, [])
                        if path
                    )
                    if outside or value in given:
                        found[path] = (at, value.name, value.shape)
        return found

    def passages(self) -> dict[int, int]:
        """Places in the program that everything goes through -> layers with weights up to there.

        Behind such a node nothing is read but its result, and constants.
        """
        graph = self._graph
        last = {value: at for at, node in enumerate(graph.nodes) for value in node.operands}
        last |= dict.fromkeys(graph.outputs, len(graph.nodes))
        found: dict[int, int] = {}
        reach, layers = max((last.get(value, -1) for value in graph.inputs), default=-1), 0
        for at, node in enumerate(graph.nodes):
            layers += node.op in WEIGHT_AXIS
            if reach <= at and len(node.outputs) == 1:
                found[at] = layers
            reach = max(reach, *(last.get(value, -1) for value in node.outputs))
        return found

    def _trains(self, path: str) -> bool:
        return self.get_submodule(path).training

    def _norm(self, node: Node) -> Any:
        return self.get_submodule(self._norms[node])

    def _tensor(self, value: Value) -> Tensor:
        """The parameter or buffer that a constant became."""
        found: Tensor = operator.attrgetter(self._paths[value])(self)
        return found

    def _read(self, value: Value, tensor: Tensor) -> Tensor:
        return self._tensor(value) if value in self._paths else tensor

    def _run_node(self, node: Node, args: list[Tensor | None]) -> tuple[Tensor, ...]:
        if node in self._norms:
            return (self._normalize(node, args),)
        if node not in self._drops or not (layer := self.get_submodule(self._drops[node])).training:
            return run_node(node, args)
        if node.op == "dropout":
            return (layer(args[0]),)
        q, k, v, mask = args
        scale = node.attrs["scale"] or 1.0 / math.sqrt(q.shape[-1])  # type: ignore[union-attr]
        return (F.scaled_dot_product_attention(q, k, v, mask, layer.p, scale=scale),)  # type: ignore[arg-type]

    def _normalize(self, node: Node, args: list[Tensor | None]) -> Tensor:
        """Through the layer; a weight or bias that the graph computes comes after it."""
        x, *affine = args[:3]
        y: Tensor = self._norm(node)(x)
        shape = (1, -1, *[1] * (len(node.output.shape) - 2))
        weight, bias = (
            None if value is None or tensor is None or value in self._paths else tensor.reshape(shape)
            for value, tensor in zip(node.inputs[1:3], affine, strict=True)
        )
        y = y if weight is None else y * weight
        return y if bias is None else y + bias

    def readers(self) -> list[tuple[Node, tuple[str | None, ...]]]:
        """The nodes that read parameters, in program order, with each input's path where it is one.

        For those who ask what a parameter does: the nodes are not to be changed.
        """
        names = dict(self.named_parameters())
        found = []
        for node in self._in_order():
            paths = [None if value is None else self._paths.get(value) for value in node.inputs]
            if any(path in names for path in paths):
                found.append((node, tuple(path if path in names else None for path in paths)))
        return found

    def _in_order(self) -> Iterator[Node]:
        """All nodes, the derivations of a constant before its first reader."""
        waiting = list(self._graph.derivations)
        for node in self._graph.nodes:
            for value in self._derived.intersection(node.operands):
                while any(value in other.outputs for other in waiting):
                    yield waiting.pop(0)
            yield node

    def to_graph(self) -> Graph:
        """A new graph with the present weights and statistics, float32 on the CPU."""
        graph = self._graph.copy()
        with torch.no_grad():
            derived = derive(self._graph.derivations, self._tensor)
        for new, old in zip(_values(graph), _values(self._graph), strict=True):
            if old.is_constant:
                data = (derived[old] if old in derived else self._tensor(old)).detach().cpu()
                new.data = (data.float() if data.is_floating_point() else data).clone()
        for new_node, node in zip(graph.nodes, self._graph.nodes, strict=True):
            if node in self._norms and "batches" in node.attrs:
                new_node.attrs["batches"] = int(self._norm(node).num_batches_tracked)
        return graph


def _structure(graph: Graph) -> Graph:
    """A copy without numbers: its constants are there, on no device."""
    numbers = [v.data for v in _values(graph) if v.data is not None]
    copied: Graph = copy.deepcopy(
        graph, {id(data): torch.empty_like(data, device="meta") for data in numbers}
    )
    return copied


def _values(graph: Graph) -> list[Value]:
    return [*graph.values(), *graph.underived()]


def _kind_of(value: Value) -> str:
    """What a constant that does not say it becomes: floating tensors train, single numbers do not."""
    return "parameter" if value.dtype.startswith("float") and value.shape else "constant"


def _statistics(node: Node) -> tuple[Value, ...]:
    """The running mean and variance of a batch norm; none where it has none or computes them."""
    found = tuple(v for v in node.inputs[3:5] if v is not None) if node.op == "batch_norm" else ()
    return found if all(v.is_constant for v in found) else ()


def _norm_of(node: Node, mean: Tensor | None, var: Tensor | None) -> BatchNorm | InstanceNorm:
    """The layer of a batch norm's node, still without weight and bias."""
    assert mean is not None and var is not None
    kind = BatchNorm if node.attrs.get("statistics", "batch") == "batch" else InstanceNorm
    momentum = node.attrs.get("momentum", 0.1)
    layer = kind(len(mean), node.attrs["eps"], momentum, affine=False, track_running_stats=True)
    layer.running_mean, layer.running_var = mean.detach().clone(), var.detach().clone()
    if isinstance(layer, InstanceNorm):
        layer.rank = len(node.output.shape)
    assert isinstance(layer.num_batches_tracked, Tensor)
    layer.num_batches_tracked.fill_(node.attrs.get("batches", 0))
    return layer
