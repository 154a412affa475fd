"""A graph, a file of it and where the graph's values lie in it -> those values as the runtime has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from edgekit.graph.ir import Graph
from edgekit.runtimes.runtime import read_values
from edgekit.runtimes.sources import ModelFile, Source
from edgekit.verify.fidelity import batch_dims
from edgekit.verify.integers import quantize_reals


@dataclass(frozen=True)
class Placed:
    """A prepared graph, the file it became, and where its values lie there.

    tensors, layouts: those of the lowering; formats that keep torch's layout have no layouts.
    """

    graph: Graph
    file: Source | ModelFile
    tensors: Mapping[str, str]
    layouts: Mapping[str, Sequence[int]] = field(default_factory=dict)


def placed_values(placed: Placed, names: Sequence[str], images: np.ndarray) -> dict[str, np.ndarray]:
    """Values by name, float32 (N, *the value's recorded shape): one entry an image, in the graph's layout."""
    read = read_values(placed.file, list(dict.fromkeys(placed.tensors[name] for name in names)), images)
    shapes = {value.name: value.shape for value in placed.graph.values()}
    found = {}
    for name in names:
        array, shape = read[placed.tensors[name]], shapes[name]
        if (layout := placed.layouts.get(name)) is not None:
            array = array.reshape(len(array), *(shape[dim] for dim in layout))
            array = array.transpose(0, *(1 + list(layout).index(dim) for dim in range(len(layout))))
        found[name] = array.reshape(len(array), *shape)
    return found


def placed_codes(placed: Placed, images: np.ndarray) -> dict[str, torch.Tensor]:
    """Every quantized value's codes (integer - zero point) in the runtime, (N, ...), for `layer_errors`."""
    held = {v.name: v for v in placed.graph.values() if v.quant is not None and not v.is_constant}
    names = [name for name in held if name in placed.tensors]
    along = batch_dims(placed.graph)
    found = {}
    for name, array in placed_values(placed, names, images).items():
        quant = held[name].quant
        assert quant is not None
        reals = torch.cat(list(torch.from_numpy(array)), along.get(name, 0))
        found[name] = quantize_reals(reals, quant)
    return found
