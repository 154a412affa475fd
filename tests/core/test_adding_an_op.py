"""What an op costs: its row, its importer, its case and one lowering a format, and nothing silent."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest
from test_ops import CASES

import edgekit
from edgekit.graph.ops import ACTIVATIONS, OPS
from tests.cases import OP_CASES

PACKAGE = Path(edgekit.__file__).parent
FORMATS = ("tflite", "onnx", "openvino")


def _named() -> dict[str, set[str]]:
    """op -> files that name it, as a string or as a registered function."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = None
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                name = node.value
            elif isinstance(node, ast.FunctionDef) and node.decorator_list:
                name = node.name.rstrip("_")
            if name in OPS:
                found[name].add(path.relative_to(PACKAGE).as_posix())
    return found


@pytest.fixture(scope="module")
def named() -> dict[str, set[str]]:
    return _named()


@pytest.mark.parametrize("op", OPS)
def test_every_op_has_all_its_parts(op: str, named: dict[str, set[str]]) -> None:
    files = named[op]
    assert op in {name for name, *_ in CASES.values()}, "its row in tests/core/test_ops.py"
    assert any(file.startswith("graph/ops/") for file in files), "its row"
    assert any(file.startswith("capture/") for file in files), "its importer"
    if OPS[op].composite:
        return
    assert any(key.split("-")[0] == op for key in OP_CASES), "its case in tests/cases.py"
    for form in FORMATS:
        assert any(f.startswith(f"lower/{form}/") and "/prepare/" not in f for f in files), "its lowering"


@pytest.mark.parametrize("op", [op for op, row in OPS.items() if row.channels == "pass"])
def test_a_function_of_one_number_is_named_nowhere_else(op: str, named: dict[str, set[str]]) -> None:
    """Nothing in quantization, proofs and reports knows it by name, but for the second opinion."""
    parts = ("graph/ops/", "capture/", "passes/", "lower/")
    elsewhere = {file for file in named[op] if not file.startswith(parts)} - {"verify/integers.py"}
    # the two that others take in; a clamp, whose bounds are its attributes; dropout, that no target sees
    assert not elsewhere or op in {*ACTIVATIONS, "clamp", "dropout"}, elsewhere
