"""What a name or a file stands for, as something to time and to predict: its file and its units."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgekit.cost.measure import Model
from edgekit.cost.shapes import operators_of
from edgekit.cost.units import units_of
from edgekit.graph.ir import Graph
from edgekit.lower.tflite.copies import side_by_side
from edgekit.lower.tflite.unpack import unpack
from edgekit.targets import get_target


def of_graph(name: str, graph: Graph, target: str) -> Model:
    """A captured graph, built for a target with weights and scales that stand in for real ones."""
    operators, signature, _ = operators_of(graph, get_target(target))
    inputs, outputs = ([tensor for _, tensor in ends] for ends in (signature.inputs, signature.outputs))
    data = side_by_side(operators, inputs, outputs, 1, whole=True)
    return Model(name, target, data, tuple(units_of(operators, signature)))


def of_file(path: Path, target: str) -> Model:
    """A .tflite file as it is. Raises: ArtifactError for a damaged one."""
    data = path.read_bytes()
    operators, signature = unpack(data, str(path))
    name = f"{path.stem}-{hashlib.sha256(data).hexdigest()[:8]}"
    return Model(name, target, data, tuple(units_of(operators, signature)))
