"""Who may import whom, over every form of import: the table is the architecture."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "edgekit"

CORE = {"edgekit.errors", "edgekit.graph"}
# Part -> what it may import of edgekit besides itself. The longest matching prefix counts.
MAY_IMPORT: dict[str, set[str]] = {
    "edgekit.errors": set(),
    "edgekit.files": {"edgekit.errors"},
    "edgekit.graph": {"edgekit.errors"},
    "edgekit.graph.ir": {"edgekit.errors"},
    "edgekit.graph.ops": {"edgekit.errors"},
    "edgekit.capture": CORE,
    "edgekit.capture.onnx": CORE | {"edgekit.capture"},
    "edgekit.passes": CORE,
    "edgekit.quantize": CORE,
    "edgekit.targets": {"edgekit.errors"},
    "edgekit.lower": CORE | {"edgekit.targets"},
    "edgekit.data": {"edgekit.errors", "edgekit.files"},
    "edgekit.zoo": CORE | {"edgekit.files", "edgekit.data.preprocessing"},
    "edgekit.zoo.onnx_file": CORE
    | {
        "edgekit.files",
        "edgekit.data.preprocessing",
        "edgekit.zoo",
        "edgekit.capture.onnx",
    },  # a file is its graph
    "edgekit.train": CORE | {"edgekit.data", "edgekit.files", "edgekit.zoo"},
    "edgekit.mixed": CORE | {"edgekit.cost.units", "edgekit.quantize", "edgekit.lower", "edgekit.targets"},
    "edgekit.surgery": CORE | {"edgekit.passes"},
    "edgekit.qat": CORE | {"edgekit.quantize", "edgekit.train"},
    "edgekit.qat.prepare": CORE
    | {"edgekit.qat", "edgekit.capture", "edgekit.passes", "edgekit.quantize", "edgekit.data.arrays"},
    "edgekit.prune": CORE | {"edgekit.cost.static"},
    "edgekit.prune.module": CORE
    | {"edgekit.prune", "edgekit.capture", "edgekit.cost.predict", "edgekit.data.arrays"},
    "edgekit.runtimes": CORE | {"edgekit.lower"},
    "edgekit.cost": CORE
    | {"edgekit.files", "edgekit.passes", "edgekit.quantize", "edgekit.targets", "edgekit.lower"}
    | {"edgekit.runtimes", "edgekit.device"},
    "edgekit.cost.static": CORE,
    "edgekit.runtimes.registry": set(),  # names and where they lead, imported by whoever asks
    "edgekit.tasks": {"edgekit.errors"},
    "edgekit.verify": CORE | {"edgekit.tasks", "edgekit.targets", "edgekit.lower", "edgekit.runtimes"},
    "edgekit.pipeline.store": {"edgekit.errors", "edgekit.files"},
    "edgekit.pipeline.cache_limit": {"edgekit.errors"},
    "edgekit.pipeline.threads": {"edgekit.errors"},
    "edgekit.pipeline.recipe": {
        "edgekit.errors",
        "edgekit.files",
        "edgekit.targets",
        "edgekit.pipeline.step_settings",
    },
    "edgekit.pipeline.step_settings": {"edgekit.errors", "edgekit.train.settings"},
    "edgekit.bundle": {"edgekit.errors", "edgekit.files"},
    "edgekit.device": {"edgekit.errors", "edgekit.bundle", "edgekit.files"},
    # a slice of the evaluation set as a model's input tensors
    "edgekit.device.evaluation": {"edgekit.errors", "edgekit.device", "edgekit.data", "edgekit.bundle"},
    "edgekit.farm": {
        "edgekit.errors",
        "edgekit.bundle",
        "edgekit.files",
        "edgekit.device",
        "edgekit.report",
        "edgekit.history",
    },
    "edgekit.sweep": {
        "edgekit.errors",
        "edgekit.files",
        "edgekit.pipeline",
        "edgekit.farm",
        "edgekit.report",
        "edgekit.runtimes.registry",
        "edgekit.targets",
    },
    "edgekit.history": {"edgekit.errors", "edgekit.files"},
    "edgekit.report": {"edgekit.errors", "edgekit.targets"},
    # a build's data, record and progress; the other files of the pipeline see every stage
    "edgekit.pipeline.job": {"edgekit.errors"},
    "edgekit.pipeline.session": {
        "edgekit.errors",
        "edgekit.pipeline.store",
        "edgekit.pipeline.code_hash",
        "edgekit.pipeline.records",
    },
    "edgekit.pipeline.code_hash": {"edgekit.errors", "edgekit.files", "edgekit.pipeline.store"},
    # those that see everything
    "edgekit.pipeline": {"edgekit"},
    "edgekit.cli": {"edgekit"},
    "edgekit.__main__": {"edgekit.cli"},
    "edgekit.cli.main": {"edgekit"},
    "edgekit": {"edgekit"},
}
GAPS: set[str] = set()
CIRCLES = {"edgekit.capture.onnx"}  # its importers name the class of the package itself
LAZY = {"edgekit", "edgekit.cli.main"}  # these import stages only inside functions, for types, or by name
# Third-party module -> the parts that may import it.
ONLY_IN: dict[str, set[str]] = {
    "flatbuffers": {"edgekit.lower.tflite"},
    "ai_edge_litert.schema_py_generated": {"edgekit.lower.tflite"},
    "ai_edge_litert.interpreter": {"edgekit.runtimes", "edgekit.verify", "edgekit.device.harness"},
    "tflite_runtime": {"edgekit.runtimes", "edgekit.verify", "edgekit.device.harness"},
    "tensorflow": {"edgekit.runtimes", "edgekit.lower.savedmodel"},
    "onnxruntime": {"edgekit.runtimes", "edgekit.verify", "edgekit.device.harness"},
    "onnx": {"edgekit.lower.onnx", "edgekit.capture.onnx"},
    "onnxsim": {"edgekit.lower.onnx"},
    "openvino": {
        "edgekit.lower.openvino",
        "edgekit.runtimes",
        "edgekit.device.harness",
    },
    "nncf": {"edgekit.lower.openvino"},
    "distributed": {"edgekit.farm", "edgekit.sweep"},
    "dask": {"edgekit.farm", "edgekit.sweep"},
    "typer": {"edgekit.cli"},
    "jinja2": {"edgekit.report"},
}
NO_TORCH = {
    "edgekit.errors",
    "edgekit.files",
    "edgekit.report",
    "edgekit.bundle",
    "edgekit.pipeline.recipe",
    "edgekit.pipeline.step_settings",
    "edgekit.train.settings",
    "edgekit.targets",
    "edgekit.pipeline.store",
    "edgekit.history",
}


@dataclass(frozen=True)
class Import:
    importer: str
    imported: str
    line: int
    lazy: bool  # inside a function

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _literal(call: ast.Call) -> str | None:
    """The module that importlib.import_module("...") or __import__("...") names."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name not in ("import_module", "__import__") or not call.args:
        return None
    first = call.args[0]
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None


def _names(node: ast.AST, module: str, is_package: bool, known: set[str]) -> Iterator[str]:
    package = module if is_package else module.rpartition(".")[0]
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parts = package.split(".")
            parts = parts[: len(parts) - node.level + 1]
            base = ".".join([*parts, base] if base else parts)
        for alias in node.names:
            whole = f"{base}.{alias.name}"
            inside = whole in known or not base.startswith("edgekit")
            yield whole if inside else base
    elif isinstance(node, ast.Call) and (name := _literal(node)):
        yield f"{package}{name}" if name.startswith(".") else name


def imports_of(source: str, module: str, is_package: bool, known: set[str]) -> list[Import]:
    found: list[Import] = []

    def walk(node: ast.AST, lazy: bool) -> None:
        for name in _names(node, module, is_package, known):
            found.append(Import(module, name, getattr(node, "lineno", 0), lazy))
        if isinstance(node, ast.If) and _is_type_checking(node.test):
            for child in node.orelse:
                walk(child, lazy)
            return
        inner = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            walk(child, inner)

    walk(ast.parse(source), False)
    return found


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _all_imports() -> list[Import]:
    files = sorted(PACKAGE.rglob("*.py"))
    known = {_module(path) for path in files}
    return [
        found
        for path in files
        for found in imports_of(path.read_text(), _module(path), path.name == "__init__.py", known)
    ]


def _within(module: str, parts: set[str]) -> bool:
    return any(module == part or module.startswith(f"{part}.") for part in parts)


def _part(module: str) -> str | None:
    """The row of MAY_IMPORT that covers a module: the root package's row covers only its __init__."""
    rows = [row for row in MAY_IMPORT if module == row or (row != "edgekit" and module.startswith(f"{row}."))]
    return max(rows, key=len, default=None)


def violations(found: list[Import]) -> list[str]:
    broken: list[str] = []
    for item in found:
        part = _part(item.importer)
        if part is None:
            broken.append(f"{item.importer} has no row in MAY_IMPORT")
            continue
        if item.imported.split(".")[0] == "edgekit":
            if item.imported == "edgekit":  # __version__: importing the package loads nothing
                continue
            if part in LAZY and not item.lazy and not _within(item.imported, {"edgekit.errors", part}):
                broken.append(f"{item} at import time")
            elif not _within(item.imported, MAY_IMPORT[part] | {part}):
                broken.append(str(item))
        owners = [home for name, home in ONLY_IN.items() if _within(item.imported, {name})]
        if owners and not any(_within(item.importer, home) for home in owners):
            broken.append(f"{item}: only {', '.join(sorted(owners[0]))} may")
        if _within(item.imported, {"torch", "torchvision", "timm"}) and _within(item.importer, NO_TORCH):
            broken.append(f"{item}: it must work without torch")
    return sorted(set(broken))


def test_every_import_is_in_the_table() -> None:
    """Equality, so that a gap that is closed leaves the list too."""
    assert {re.sub(r":\d+ ", " ", message) for message in violations(_all_imports())} == GAPS


def test_core_modules_exist() -> None:
    assert {item.importer for item in _all_imports()} >= {"edgekit.graph.ir", "edgekit.graph.ops"}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("edgekit.passes.rewrite", "import edgekit.quantize"),
        ("edgekit.passes.rewrite", "import edgekit.quantize.rules as r"),
        ("edgekit.passes.rewrite", "from edgekit import quantize"),
        ("edgekit.passes.rewrite", "from edgekit.quantize.rules import x"),
        ("edgekit.passes.rewrite", "from .. import quantize"),
        ("edgekit.passes.rewrite", "from ..quantize import rules"),
        ("edgekit.passes.rewrite", "def f():\n    from edgekit import quantize"),
        ("edgekit.passes.rewrite", "import importlib\nimportlib.import_module('edgekit.quantize')"),
        ("edgekit.passes.rewrite", "from importlib import import_module\nimport_module('edgekit.quantize')"),
        ("edgekit.passes.rewrite", "__import__('edgekit.quantize')"),
        ("edgekit.graph.ops", "from edgekit.graph.shapes import infer_shapes"),
        ("edgekit.graph.ir", "def f():\n    import edgekit.capture"),
        ("edgekit.errors", "import edgekit.graph.ir"),
        ("edgekit.zoo.names", "from edgekit.data import shapes"),
        ("edgekit.zoo.names", "import flatbuffers"),
        ("edgekit.runtimes.audit", "from ai_edge_litert import schema_py_generated"),
        ("edgekit.lower.tflite.builder", "from ai_edge_litert.interpreter import Interpreter"),
        ("edgekit.report.charts", "def f():\n    import torch.nn"),
        ("edgekit.bundle.write", "from torchvision import models"),
        ("edgekit.cli.main", "from edgekit import pipeline"),
        ("edgekit.surprise", "import edgekit.errors"),
    ],
)
def test_the_table_catches(module: str, source: str) -> None:
    known = {*MAY_IMPORT, "edgekit.quantize.rules", "edgekit.data.shapes"}
    assert violations(imports_of(source, module, False, known))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "edgekit.passes.rewrite",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import edgekit.quantize",
        ),
        ("edgekit.passes.rewrite", "from edgekit.graph.ir import Graph\nfrom . import fold_scale"),
        ("edgekit.zoo.names", "from edgekit.data.preprocessing import Preprocessing"),
        ("edgekit.runtimes.audit", "from edgekit.lower.tflite.reader import read"),
        ("edgekit.pipeline.pipeline", "from edgekit import capture, quantize"),
        ("edgekit.cli.main", "def build():\n    from edgekit import pipeline"),
        ("edgekit.cli.main", "from edgekit.errors import EdgekitError"),
    ],
)
def test_the_table_allows(module: str, source: str) -> None:
    known = {
        *MAY_IMPORT,
        "edgekit.passes.fold_scale",
        "edgekit.data.preprocessing",
        "edgekit.lower.tflite.reader",
    }
    assert violations(imports_of(source, module, False, known)) == []


LIGHT = ["edgekit", "edgekit.cli.main", "edgekit.pipeline.recipe"]


@pytest.mark.parametrize("module", LIGHT)
def test_importing_loads_neither_torch_nor_numpy(module: str) -> None:
    check = f"import sys, {module}; print(sorted({{'torch', 'numpy', 'ai_edge_litert'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_no_circle_between_files() -> None:
    """Every import counts, for types and inside functions too; the root, which has the version, aside."""
    files = sorted(PACKAGE.rglob("*.py"))
    known = {_module(path) for path in files}
    arrows: dict[str, set[str]] = {}
    for path in files:
        module, is_package = _module(path), path.name == "__init__.py"
        names = {
            name
            for node in ast.walk(ast.parse(path.read_text()))
            for name in _names(node, module, is_package, known)
        }
        arrows[module] = (names & known) - {module, "edgekit", *CIRCLES}
    graph = graphlib.TopologicalSorter(arrows)
    try:
        graph.prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
