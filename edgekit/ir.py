"""The graph every stage works on: Value, Node, Graph.

PyTorch semantics, NCHW, batch 1 in the recorded shapes. What an op means stands in `edgekit.ops`; this file
only holds, checks, prints, hashes, saves, loads, runs and trains graphs.

Enters: nodes from `edgekit.capture` or from `load`. Leaves: the same Graph, rewritten in place by passes.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from edgekit.errors import ArtifactError, GraphError

FORMAT_VERSION = 1


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


@dataclass(eq=False)
class Value:
    """A tensor in the graph; a constant when `data` is set.

    `range` is the calibrated (low, high) in real units, the truth every target derives its parameters from;
    `quant` is what the current target made of it (None: stays float).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    data: torch.Tensor | None = None
    range: tuple[float, float] | None = None
    quant: QuantParams | None = None

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


@dataclass(eq=False)
class Graph:
    """A straight-line program in topological order.

    `batchable`: nodes that bake the batch of 1 into their shapes do not exist, so any N runs in one go;
    otherwise `run` goes image by image.
    """

    inputs: list[Value]
    outputs: list[Value]
    nodes: list[Node]
    name: str = "model"
    batchable: bool = True

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
        taken = {v.name for v in self.values()}
        if stem not in taken:
            return stem
        return next(f"{stem}_{i}" for i in range(1, len(taken) + 2) if f"{stem}_{i}" not in taken)

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

    def check(self) -> None:
        """Topological order, single producers, unique names, known ops, shapes as torch computes them."""
        from edgekit.infer_shapes import infer_shapes
        from edgekit.ops import OPS

        known: set[Value] = set(self.inputs)
        names: set[str] = set()
        for value in self.values():
            if value.name in names:
                raise GraphError(f"[graph] two values are named {value.name!r}")
            names.add(value.name)
            if value.data is not None and tuple(value.data.shape) != value.shape:
                raise GraphError(
                    f"[graph] constant {value} holds {tuple(value.data.shape)}: recorded as {value.shape}"
                )
        for node in self.nodes:
            where = node.source or "top level"
            if node.op not in OPS:
                raise GraphError(f"[graph] unknown op {node.op!r} at {where}")
            for value in node.operands:
                if value not in known and not value.is_constant:
                    raise GraphError(f"[graph] {node.op} at {where} reads {value} before it is computed")
            computed, recorded = infer_shapes(node), tuple(v.shape for v in node.outputs)
            if computed != recorded:
                raise GraphError(f"[graph] {node.op} at {where} computes {computed}: recorded as {recorded}")
            for out in node.outputs:
                if out in known or out.is_constant:
                    raise GraphError(f"[graph] {out} is produced twice")
                known.add(out)
        for value in self.outputs:
            if value not in known and not value.is_constant:
                raise GraphError(f"[graph] output {value} is never computed")

    # identity
    def __str__(self) -> str:
        head = ", ".join(f"%{v.name}: {v.dtype}{list(v.shape)}" for v in self.inputs)
        body = "\n".join(f"  {node!r}" for node in self.nodes)
        return f"graph {self.name}({head}):\n{body}\n  return {', '.join(map(repr, self.outputs))}"

    def hash(self) -> str:
        """sha256 over structure, attributes, quantization and constant bytes; stable across machines."""
        digest = hashlib.sha256(json.dumps(self._to_json(), sort_keys=True).encode())
        for value in self.constants():
            digest.update(value.name.encode())
            digest.update(_bytes_of(value.data))
        return digest.hexdigest()

    def copy(self) -> Graph:
        """A deep copy whose constants are separate tensors."""
        return copy.deepcopy(self)

    # files
    def _to_json(self) -> dict[str, Any]:
        index = {value: i for i, value in enumerate(self.values())}
        return {
            "format": FORMAT_VERSION,
            "name": self.name,
            "batchable": self.batchable,
            "values": [
                {
                    "name": v.name,
                    "shape": list(v.shape),
                    "dtype": v.dtype,
                    "constant": v.is_constant,
                    "range": v.range and list(v.range),
                    "quant": v.quant and [v.quant.scale, v.quant.zero_point, v.quant.dtype, v.quant.axis],
                }
                for v in index
            ],
            "inputs": [index[v] for v in self.inputs],
            "outputs": [index[v] for v in self.outputs],
            "nodes": [
                {
                    "op": n.op,
                    "inputs": [None if v is None else index[v] for v in n.inputs],
                    "outputs": [index[v] for v in n.outputs],
                    "attrs": n.attrs,
                    "source": n.source,
                }
                for n in self.nodes
            ],
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """One safetensors file: the constants, with the structure as JSON metadata. Nothing is pickled."""
        from safetensors.torch import save_file

        tensors = {
            v.name: v.data.detach().contiguous().clone() for v in self.constants() if v.data is not None
        }
        save_file(tensors, path, metadata={"edgekit_graph": json.dumps(self._to_json(), sort_keys=True)})

    # execution
    def module(self) -> torch.nn.Module:
        """An nn.Module whose floating constants are parameters, shared with this graph: training edits it."""
        return _GraphModule(self)


class _GraphModule(torch.nn.Module):
    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        for value in graph.constants():
            assert value.data is not None
            if value.data.is_floating_point():
                value.data = torch.nn.Parameter(value.data.detach().clone())
                name = value.name.replace(".", "/")
                while hasattr(self, name):  # "a.b" beside "a/b", or a constant called "graph"
                    name += "_"
                self.register_parameter(name, value.data)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        results = run(self.graph, inputs)
        return results[0] if len(results) == 1 else results


def _bytes_of(data: torch.Tensor | None) -> bytes:
    assert data is not None
    return data.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _tuples(value: Any) -> Any:
    """JSON has no tuples; attributes do."""
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def load(path: str | os.PathLike[str]) -> Graph:
    """Read what `Graph.save` wrote. Raises ArtifactError for anything else."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        content = json.loads(metadata["edgekit_graph"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ArtifactError(f"{path}: not a saved graph ({error}): a file written by Graph.save") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT_VERSION:
        found = content.get("format") if isinstance(content, dict) else None
        raise ArtifactError(f"{path}: graph format {found}: this version reads {FORMAT_VERSION}")
    try:
        graph = _from_json(content, tensors)
        graph.check()
    except (GraphError, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{path}: an inconsistent graph ({error}): save it again") from error
    return graph


def _from_json(content: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Graph:
    values = []
    for entry in content["values"]:
        quant = entry["quant"] and QuantParams(*map(_tuples, entry["quant"]))
        values.append(
            Value(
                entry["name"],
                tuple(entry["shape"]),
                entry["dtype"],
                tensors[entry["name"]] if entry["constant"] else None,
                entry["range"] and tuple(entry["range"]),
                quant,
            )
        )
    nodes = [
        Node(
            n["op"],
            [None if i is None else values[i] for i in n["inputs"]],
            [values[i] for i in n["outputs"]],
            {k: _tuples(v) for k, v in n["attrs"].items()},
            n["source"],
        )
        for n in content["nodes"]
    ]
    return Graph(
        [values[i] for i in content["inputs"]],
        [values[i] for i in content["outputs"]],
        nodes,
        content["name"],
        content["batchable"],
    )


def run_node(node: Node, args: Sequence[torch.Tensor | None]) -> tuple[torch.Tensor, ...]:
    """Apply one node's torch function; always a tuple, one tensor per output."""
    from edgekit.ops import OPS

    result = OPS[node.op].fn(*args, **node.attrs)
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def run(
    graph: Graph,
    inputs: Sequence[torch.Tensor],
    on_value: Callable[[Value, torch.Tensor], torch.Tensor] | None = None,
    before_node: Callable[[Node, list[torch.Tensor | None]], None] | None = None,
) -> list[torch.Tensor]:
    """Execute the graph in torch.

    Args:
        inputs: one tensor per graph input, (N, ...); N may differ from the recorded batch of 1.
        on_value: called with every value, constants and inputs included, as it is first read or produced; its
            result is what the readers see (fake-quantization, observers).
        before_node: called with a node and its arguments just before it runs.
    Returns: one tensor per graph output. Intermediates are freed after their last use.
    """
    if not graph.batchable and inputs and len(inputs[0]) > 1:
        images = zip(*(x.split(1) for x in inputs), strict=True)
        each = [run(graph, image, on_value, before_node) for image in images]
        return [torch.cat(parts) for parts in zip(*each, strict=True)]
    hook = on_value or (lambda _value, tensor: tensor)
    if len(inputs) != len(graph.inputs):
        raise GraphError(f"[run] {len(inputs)} inputs given: the graph takes {len(graph.inputs)}")
    env: dict[Value, torch.Tensor] = {}
    for value, tensor in zip(graph.inputs, inputs, strict=True):
        if tuple(tensor.shape[1:]) != value.shape[1:]:
            raise GraphError(
                f"[run] input {value.name} has shape {tuple(tensor.shape)}: expected (N, "
                f"{', '.join(map(str, value.shape[1:]))})"
            )
        env[value] = hook(value, tensor)
    last_use = {value: i for i, node in enumerate(graph.nodes) for value in node.operands}
    keep = set(graph.outputs)
    for i, node in enumerate(graph.nodes):
        args: list[torch.Tensor | None] = []
        for operand in node.inputs:
            if operand is None:
                args.append(None)
                continue
            if operand not in env:
                assert operand.data is not None, operand
                env[operand] = hook(operand, operand.data)
            args.append(env[operand])
        if before_node:
            before_node(node, args)
        for value, tensor in zip(node.outputs, run_node(node, args), strict=True):
            env[value] = hook(value, tensor)
        for spent in node.operands:
            if last_use[spent] == i and spent not in keep:
                env.pop(spent, None)
    for value in graph.outputs:
        if value not in env and value.data is not None:
            env[value] = hook(value, value.data)
    return [env[value] for value in graph.outputs]
