"""The coverage table: every op of the graph against every TensorFlow Lite and ONNX target.

python -m tests.lower.coverage        prints it as Markdown
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import litert
import onnx_runs

from edgekit.errors import UnsupportedError
from edgekit.graph.ops import OPS
from edgekit.targets import TARGETS
from tests.cases import OP_CASES

_RANK = {"-": 0, "runs": 1, "partly": 2, "integer": 3, "delegated": 3}


def coverage(targets: tuple[str, ...] | None = None) -> dict[str, dict[str, str]]:
    """op -> target -> state of all its cases, "partly" where they differ.

    "delegated": runs whole in LiteRT's delegate. "integer": ONNX Runtime converts at the borders only.
    "runs": runs, but not so. "-": is refused.
    """
    names = targets or tuple(name for name, target in TARGETS.items() if target.format in ("tflite", "onnx"))
    table: dict[str, dict[str, str]] = {}
    for op in OPS:
        rows = [case for key, case in OP_CASES.items() if key.split("-")[0] == op]
        if rows:
            table[op] = {name: _state([_case_state(case, name) for case in rows]) for name in names}
    return table


def _case_state(case, target: str) -> str:
    try:
        if TARGETS[target].format == "tflite":
            _, lowered = litert.lowered_case(case, target)
            return "runs" if litert.undelegated(lowered.data) else "delegated"
        _, lowered = onnx_runs.lowered_case(case, target, stem=False)
    except UnsupportedError:
        return "-"
    if target != "onnx-int8":  # float kernels, or a runtime that is not on this machine
        return "runs"
    with tempfile.TemporaryDirectory() as folder:
        return "integer" if onnx_runs.runs_in_integers(lowered, Path(folder)) else "runs"


def _state(states: list[str]) -> str:
    if len(set(states)) == 1:
        return states[0]
    return "partly" if {"delegated", "integer"} & set(states) else min(states, key=_RANK.__getitem__)


def markdown(table: dict[str, dict[str, str]]) -> str:
    """The table with one row an op."""
    names = list(next(iter(table.values())))
    lines = ["| op | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    lines += [f"| {op} | " + " | ".join(row[name] for name in names) + " |" for op, row in table.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown(coverage()))
