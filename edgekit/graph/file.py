"""A graph as a file, and its identity: one safetensors file, the structure as JSON metadata.

Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from edgekit.errors import ArtifactError, GraphError
from edgekit.graph.check import check
from edgekit.graph.ir import Graph, Node, QuantParams, Value

FORMAT_VERSION = 1
_DERIVATION = "derivation:"  # before the names of tensors that the program itself does not read


def graph_hash(graph: Graph) -> str:
    """sha256 over structure, attributes, quantization and constant bytes; stable across machines."""
    digest = hashlib.sha256(json.dumps(_to_json(graph), sort_keys=True).encode())
    for value in (*graph.constants(), *_parameters(graph)):
        digest.update(value.name.encode())
        digest.update(_bytes_of(value.data))
    return digest.hexdigest()


def save(graph: Graph, path: str | os.PathLike[str]) -> None:
    """One safetensors file: the constants, with the structure as JSON metadata. Nothing is pickled."""
    stored = [(v.name, v.data) for v in graph.constants()]
    stored += [(f"{_DERIVATION}{v.name}", v.data) for v in _parameters(graph)]
    tensors = {name: data.detach().contiguous().clone() for name, data in stored if data is not None}
    save_file(tensors, path, metadata={"edgekit_graph": json.dumps(_to_json(graph), sort_keys=True)})


def load(path: str | os.PathLike[str]) -> Graph:
    """Read what `save` wrote. Raises ArtifactError for anything else."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        content = json.loads(metadata["edgekit_graph"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ArtifactError(f"{path}: not a saved graph ({error}): a file written by save") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT_VERSION:
        found = content.get("format") if isinstance(content, dict) else None
        raise ArtifactError(f"{path}: graph format {found}: this version reads {FORMAT_VERSION}")
    try:
        graph = _from_json(content, tensors)
        check(graph)
    except (GraphError, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{path}: an inconsistent graph ({error}): save it again") from error
    return graph


def _to_json(graph: Graph) -> dict[str, Any]:
    body = list(graph.values())
    index = {value: i for i, value in enumerate((*body, *graph.underived()))}
    derivations = [len(body), _nodes_to_json(graph.derivations, index)]
    return {
        "format": FORMAT_VERSION,
        "name": graph.name,
        "batchable": graph.batchable,
        "values": [
            {
                "name": v.name,
                "shape": list(v.shape),
                "dtype": v.dtype,
                "constant": v.is_constant,
                "range": v.range and list(v.range),
                "quant": v.quant and [v.quant.scale, v.quant.zero_point, v.quant.dtype, v.quant.axis],
                **({"kind": v.kind} if v.kind else {}),
            }
            for v in index
        ],
        "inputs": [index[v] for v in graph.inputs],
        "outputs": [index[v] for v in graph.outputs],
        "nodes": _nodes_to_json(graph.nodes, index),
        **({"derivations": derivations} if graph.derivations else {}),
    }


def _nodes_to_json(nodes: list[Node], index: dict[Value, int]) -> list[dict[str, Any]]:
    return [
        {
            "op": n.op,
            "inputs": [None if v is None else index[v] for v in n.inputs],
            "outputs": [index[v] for v in n.outputs],
            "attrs": n.attrs,
            "source": n.source,
        }
        for n in nodes
    ]


def _from_json(content: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Graph:
    values: list[Value] = []
    body, derivations = content.get("derivations", (len(content["values"]), []))
    for entry in content["values"]:
        key = entry["name"] if len(values) < body else f"{_DERIVATION}{entry['name']}"
        quant = entry["quant"] and QuantParams(*map(_tuples, entry["quant"]))
        values.append(
            Value(
                entry["name"],
                tuple(entry["shape"]),
                entry["dtype"],
                tensors[key] if entry["constant"] else None,
                entry["range"] and tuple(entry["range"]),
                quant,
                entry.get("kind", ""),
            )
        )
    return Graph(
        [values[i] for i in content["inputs"]],
        [values[i] for i in content["outputs"]],
        _nodes_from_json(content["nodes"], values),
        content["name"],
        content["batchable"],
        _nodes_from_json(derivations, values),
    )


def _nodes_from_json(nodes: list[dict[str, Any]], values: list[Value]) -> list[Node]:
    return [
        Node(
            n["op"],
            [None if i is None else values[i] for i in n["inputs"]],
            [values[i] for i in n["outputs"]],
            {k: _tuples(v) for k, v in n["attrs"].items()},
            n["source"],
        )
        for n in nodes
    ]


def _parameters(graph: Graph) -> list[Value]:
    """What the program itself does not read, but constants of it follow from."""
    return [value for value in graph.underived() if value.is_constant]


def _bytes_of(data: torch.Tensor | None) -> bytes:
    assert data is not None
    return data.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _tuples(value: Any) -> Any:
    """JSON has no tuples; attributes do."""
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
