"""`edgekit.prune`: a module in, a smaller module out.

Enters: an nn.Module and an example of its inputs. Leaves: an nn.Module of the same inputs and outputs that
trains, saves and exports, parameters under the original's paths.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from edgekit.capture import capture, parameters
from edgekit.data.arrays import array_images
from edgekit.graph.module import GraphModule, as_module
from edgekit.prune.prune import prune_graph


def prune_module(
    module: nn.Module,
    example: Any,
    *,
    latency_ms: float | None = None,
    device: str = "host",
    calibration: Any = None,
    **settings: Any,
) -> GraphModule:
    """See edgekit.prune; further budgets and settings are prune_graph's."""
    graph = capture(module, example, training=True)
    images = None
    if calibration is not None:
        given = array_images("calibration", calibration, parameters=parameters(module))
        images = [torch.from_numpy(array) for array in given.arrays]
    if latency_ms is not None:
        from edgekit.cost.predict import cost_for

        settings.setdefault("cost", cost_for(device))
    done = prune_graph(graph, latency_ms=latency_ms, images=images, **settings)
    made = as_module(done.graph)
    made.pruning = done.record
    return made.eval()
