"""A graph imported from an ONNX file against a runtime's answers to that file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from edgekit.capture.onnx.file import OnnxFile
from edgekit.capture.prove import (
    QUANTIZED_TOLERANCE,
    RELATIVE_TOLERANCE,
    find_batchable,
    is_quantized,
    relative_error,
    rms_error,
)
from edgekit.capture.quantized import fake_quantize
from edgekit.errors import CaptureError
from edgekit.graph.ir import Graph
from edgekit.graph.run import run

HALF_TOLERANCE = 0.02  # the file computes in eleven bits

Reference = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]


def prove(graph: Graph, file: OnnxFile, reference: Reference | None = None) -> float:
    """Hold the graph against a runtime on one seeded picture; sets `graph.batchable`.

    Args:
        reference: one array per input -> one per output; onnx's own reference evaluator when None.
    Returns: the largest error relative to the largest output (of a quantized graph: root mean square).
    Raises: CaptureError when it is above 1e-4 (quantized or float16: 2e-2).
    """
    generator = torch.Generator().manual_seed(0)
    examples = []
    for value, dtype in zip(graph.inputs, file.dtypes.values(), strict=True):
        if "float" in dtype:
            examples.append(torch.randn(value.shape, generator=generator).half().float())
        else:
            top = 256 if dtype == "uint8" else 128
            examples.append(torch.randint(0, top, value.shape, generator=generator).float())
    fed = [file.fed(name, x.numpy()) for name, x in zip(file.inputs, examples, strict=True)]
    expected = (reference or _evaluator(file))(fed)
    quantized = is_quantized(graph)
    worst, limit = 0.0, QUANTIZED_TOLERANCE if quantized else RELATIVE_TOLERANCE
    if any(array.dtype == np.float16 for array in file.initializers.values()):
        limit = max(limit, HALF_TOLERANCE)
    with torch.no_grad():
        got = run(graph, examples, fake_quantize if quantized else None)
        for value, a, b in zip(graph.outputs, got, expected, strict=True):
            wanted = torch.from_numpy(np.array(b, dtype=np.float32))
            error = rms_error(a, wanted) if quantized else relative_error(a, wanted)
            if not error <= limit:
                raise CaptureError(
                    f"[capture] {graph.name}: output {value.name} differs from the file's own "
                    f"by {error:.1e}: at most {limit:.0e} relative"
                )
            worst = max(worst, error)
        graph.batchable = find_batchable(graph, examples, got if not quantized else run(graph, examples))
    return worst


def _evaluator(file: OnnxFile) -> Reference:
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.ops.op_dequantize_linear import DequantizeLinear_19
    from onnx.reference.ops.op_quantize_linear import QuantizeLinear_19

    def of_any_opset(name: str, kind: type) -> type:
        """The evaluator knows these two from opset 19 only; 13's are the same, with fewer dtypes."""

        def compute(self: Any, *args: Any, axis: int | None = None, **_newer: Any) -> Any:
            return kind._run(self, *args, axis=axis)  # type: ignore[attr-defined]

        return type(name, (kind,), {"op_domain": "", "_run": compute})

    old = [
        of_any_opset("DequantizeLinear", DequantizeLinear_19),
        of_any_opset("QuantizeLinear", QuantizeLinear_19),
    ]
    session = ReferenceEvaluator(file.model, new_ops=old if file.opset < 19 else None)
    return lambda arrays: session.run(None, dict(zip(file.inputs, arrays, strict=True)))  # type: ignore[return-value]
