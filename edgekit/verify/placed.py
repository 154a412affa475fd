"""A graph, a file of it and where the graph's values lie in it -> those values as the runtime has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from edgekit.graph.ir import Graph
from edgekit.lower.ports import Ports
from edgekit.runtimes.layout import to_graph
from edgekit.runtimes.runtime import Inputs, read_values
from edgekit.runtimes.sources import ModelFile, Source
from edgekit.verify.fidelity import batch_dims
from edgekit.verify.integers import quantize_reals


@dataclass(frozen=True)
class Placed:
    """A prepared graph, the file it became, and where its values lie there.

    tensors, layouts, ports: those of the lowering; formats that keep torch's layout have no layouts.
    """

    graph: Graph
    file: Source | ModelFile
    tensors: Mapping[str, str]
    layouts: Mapping[str, Sequence[int]] = field(default_factory=dict)
    ports: Ports | None = None


def placed_values(placed: Placed, names: Sequence[str], inputs: Inputs) -> dict[str, np.ndarray]:
    """Values by name, float32 (N, *the value's recorded shape): one entry an image, in the graph's layout."""
    asked = list(dict.fromkeys(placed.tensors[name] for name in names))
    read = read_values(placed.file, asked, inputs, placed.ports)
    shapes = {value.name: value.shape for value in placed.graph.values()}
    found = {}
    for name in names:
        array, shape = read[placed.tensors[name]], shapes[name]
        layout = placed.layouts.get(name, range(len(shape)))
        found[name] = to_graph(array, layout, shape, stacked=True)
    return found


def placed_codes(placed: Placed, inputs: Inputs) -> dict[str, torch.Tensor]:
    """Every quantized value's codes (integer - zero point) in the runtime, (N, ...), for `layer_errors`."""
    held = {v.name: v for v in placed.graph.values() if v.quant is not None and not v.is_constant}
    names = [name for name in held if name in placed.tensors]
    along = batch_dims(placed.graph)
    found = {}
    for name, array in placed_values(placed, names, inputs).items():
        quant = held[name].quant
        assert quant is not None
        images = list(torch.from_numpy(array))
        reals = images[0] if len(images) == 1 else torch.cat(images, along.get(name, 0))
        found[name] = quantize_reals(reals, quant)
    return found
