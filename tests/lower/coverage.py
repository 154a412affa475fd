"""The coverage table: every op of the graph against every TensorFlow Lite target.

python -m tests.lower.coverage        prints it as Markdown
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from litert import lowered_case, undelegated

from edgekit.errors import UnsupportedError
from edgekit.ops import OPS
from edgekit.targets import TARGETS
from tests.cases import OP_CASES

_RANK = {"-": 0, "runs": 1, "partly": 2, "delegated": 3}


def coverage(targets: tuple[str, ...] | None = None) -> dict[str, dict[str, str]]:
    """op -> target -> "delegated" (all its cases run whole in the delegate), "partly", "runs" or "-"."""
    names = targets or tuple(name for name, target in TARGETS.items() if target.format == "tflite")
    table: dict[str, dict[str, str]] = {}
    for op in OPS:
        rows = [case for key, case in OP_CASES.items() if key.split("-")[0] == op]
        if rows:
            table[op] = {name: _state([_case_state(case, name) for case in rows]) for name in names}
    return table


def _case_state(case, target: str) -> str:
    try:
        _, lowered = lowered_case(case, target)
    except UnsupportedError:
        return "-"
    return "runs" if undelegated(lowered.data) else "delegated"


def _state(states: list[str]) -> str:
    if len(set(states)) == 1:
        return states[0]
    return "partly" if "delegated" in states else min(states, key=_RANK.__getitem__)


def markdown(table: dict[str, dict[str, str]]) -> str:
    """The table with one row an op."""
    names = list(next(iter(table.values())))
    lines = ["| op | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    lines += [f"| {op} | " + " | ".join(row[name] for name in names) + " |" for op, row in table.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown(coverage()))
