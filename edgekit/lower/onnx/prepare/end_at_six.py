"""A grid that reaches beyond 6 behind a ReLU6 ends at 6 instead.

No value lies there, and ONNX Runtime runs a convolution before a Clip in integers only when the grid of the
result makes the Clip superfluous.
"""

from __future__ import annotations

import numpy as np

from edgekit.graph.ir import Graph, QuantParams
from edgekit.lower.onnx.prepare.place_for_onnxruntime import moves_integers
from edgekit.targets import Target


def end_at_six(graph: Graph, target: Target) -> int:
    """Shorten every such grid that no reader shares with its result; returns how many."""
    users = graph.users()
    changed = 0
    for node in graph.nodes:
        out = node.output
        if out.quant is None or "relu6" not in (node.op, node.attrs.get("activation")):
            continue
        beyond = 127 - out.quant.zero_point[0] > round(6.0 / out.quant.scale[0])
        if beyond and not any(moves_integers(reader) for reader in users.get(out, [])):
            out.range = (0.0, 6.0)
            out.quant = QuantParams((float(np.float32(6.0 / 255.0)),), (-128,))
            changed += 1
    return changed
