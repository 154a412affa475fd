"""The options of a .tflite file's operators, of which the checked reader takes few: bytes -> one dict each.

For files this package wrote: offsets are followed without checking. A foreign file goes through
`reader.read_model` first.
"""

from __future__ import annotations

from typing import Any

from ai_edge_litert import schema_py_generated as schema


def read_options(data: bytes) -> list[dict[str, Any]]:
    """Option name -> value for each operator of the main subgraph, in order; {} where there are none."""
    graph = schema.Model.GetRootAs(data, 0).Subgraphs(0)
    operators = (schema.OperatorT.InitFromObj(graph.Operators(i)) for i in range(graph.OperatorsLength()))
    return [dict(vars(op.builtinOptions)) if op.builtinOptions else {} for op in operators]
