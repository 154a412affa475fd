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


def graph_hash(graph: Graph) -> str:
    """sha256 over structure, attributes, quantization and constant bytes; stable across machines."""
    digest = hashlib.sha256(json.dumps(_to_json(graph), sort_keys=True).encode())
    for value in graph.constants():
        digest.update(value.name.encode())
        digest.update(_bytes_of(value.data))
    return digest.hexdigest()


def save(graph: Graph, path: str | os.PathLike[str]) -> None:
    """One safetensors file: the constants, with the structure as JSON metadata. Nothing is pickled."""
    tensors = {v.name: v.data.detach().contiguous().clone() for v in graph.constants() if v.data is not None}
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
    index = {value: i for i, value in enumerate(graph.values())}
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
        "nodes": [
            {
                "op": n.op,
                "inputs": [None if v is None else index[v] for v in n.inputs],
                "outputs": [index[v] for v in n.outputs],
                "attrs": n.attrs,
                "source": n.source,
            }
            for n in graph.nodes
        ],
    }


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
                entry.get("kind", ""),
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


def _bytes_of(data: torch.Tensor | None) -> bytes:
    assert data is not None
    return data.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _tuples(value: Any) -> Any:
    """JSON has no tuples; attributes do."""
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
