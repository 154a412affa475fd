"""A stage's function -> sha256 over the sources it can reach, so that editing a page of the report quantizes
nothing again, and editing what quantizes does.

Reached is what static imports reach, read from the syntax without importing anything. Outside the pipeline
the unit is a file: all of its imports count, those inside functions too, and every package above it. In the
pipeline, whose files see every stage, the unit is a top-level definition: the names it uses, and for an
attribute that a class of the pipeline declares (`job.calibration`) the types of that field. Names of modules
and of files beside the source count where they stand in a string ("edgekit.lower.savedmodel.worker",
"runner.py"), and a string that ends with a dot stands for a whole package (f"edgekit.lower.{format}").

Too much may be reached, never too little. What keeps results (session, store) makes none and is left out.
"""

from __future__ import annotations

import ast
import gc
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard

from edgekit.files import write_atomic
from edgekit.pipeline.store import Store, key_of

PACKAGE = Path(__file__).parents[1]
_STAGE, _FILE = "sources", "units.json"
_KEEPERS = ("session", "store", "code_hash")
_TEXT = (".py", ".json", ".sh", ".css", ".j2")
Units = Mapping[str, tuple[str, list[str]]]  # unit -> sha256 of its source, the units it names
_known: dict[str, tuple[str, list[str]]] = {}


def code_hash(make: Callable[..., Any], store: Store) -> str:
    """sha256 over what `make` can reach; over the whole package for a function from elsewhere.

    Args:
        store: keeps the graph of imports, since reading all syntax takes a second.
    """
    units = _units(store)
    name = getattr(make, "__qualname__", "").split(".")[0]
    module = getattr(make, "__module__", "")
    entry = next((unit for unit in (f"{module}:{name}", module) if unit in units), None)
    return _known_digest(entry)


def digest(entry: str | None, units: Units) -> str:
    """sha256 over what `entry` reaches; None reaches everything."""
    names = sorted(units if entry is None else reached(entry, units))
    return _sha256(json.dumps([[name, units[name][0]] for name in names]).encode())


def reached(entry: str, units: Units) -> set[str]:
    """The units that `entry` reaches, itself included."""
    found: set[str] = set()
    left = [entry]
    while left:
        if (unit := left.pop()) not in found:
            found.add(unit)
            left += units[unit][1]
    return found


def read_units(package: Path = PACKAGE) -> Units:
    """Every unit of a package: "a.module", "a.pipeline.module:definition", "a/folder/file.json"."""
    paths = {_module(path, package): path for path in _files(package) if path.suffix == ".py"}
    with _no_collection():
        return _units_of(package, paths)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Half of the time of reading a quarter of a million nodes is the garbage collector's."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _units_of(package: Path, paths: Mapping[str, Path]) -> Units:
    trees = {name: ast.parse(path.read_bytes()) for name, path in paths.items()}
    within = f"{package.name}.pipeline"
    keepers = {f"{within}.{name}" for name in _KEEPERS}
    readers = {
        name: _Reader(name, path, trees, frozenset(n for n in trees if n.startswith(f"{within}.")))
        for name, path in paths.items()
        if name not in keepers
    }
    fields: dict[str, set[str]] = defaultdict(set)
    for reader in readers.values():
        reader.collect_fields(fields)
    units: dict[str, tuple[str, list[str]]] = {name: ("", []) for name in keepers}
    for reader in readers.values():
        units |= reader.units(fields)
    for edge in {edge for _, edges in units.values() for edge in edges} - set(units):
        part = edge.split(":")[0]  # a keeper's definition, or a file that is no module
        units[edge] = ("" if part in keepers else _sha256((package.parent / edge).read_bytes()), [])
    return units


def _units(store: Store) -> Units:
    """The package's units as this process found them first, whatever its store."""
    if not _known:
        text = b"".join(str(path).encode() + path.read_bytes() for path in _files(PACKAGE))
        key = key_of(sources=hashlib.sha256(text).hexdigest())
        found = store.find(_STAGE, key) or store.put(
            _STAGE, key, lambda folder: write_atomic(folder / _FILE, json.dumps(read_units()))
        )
        _known.update(json.loads((found / _FILE).read_text()))
    return _known


@cache
def _known_digest(entry: str | None) -> str:
    return digest(entry, _known)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _files(package: Path) -> list[Path]:
    return sorted(path for path in package.rglob("*") if path.suffix in _TEXT)


def _module(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


class _Reader:
    """One file. fine: the modules that are read by definition."""

    def __init__(self, name: str, path: Path, trees: Mapping[str, ast.Module], fine: frozenset[str]) -> None:
        self.name, self.path, self.trees, self.fine = name, path, trees, fine
        self.tree = trees[name]
        self.root = name.split(".")[0]
        self.by_name = b"import_module" in path.read_bytes()  # else "." begins a file's name, not a module's
        self.package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        self.bound: dict[str, set[str]] = defaultdict(set)
        if name in fine:
            for node in ast.walk(self.tree):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    for alias, unit in self._imported(node):
                        self.bound[alias].add(unit)
            self.defined: dict[str, list[ast.stmt]] = defaultdict(list)
            self.prelude: list[ast.stmt] = []
            for statement in self.tree.body:
                self._sort_in(statement)

    def units(self, fields: Mapping[str, set[str]]) -> dict[str, tuple[str, list[str]]]:
        """The file's own unit, and in the pipeline one a definition."""
        source = self.path.read_bytes()
        whole = set(self._named(self.tree))
        parent = self.name.rpartition(".")[0]
        whole |= {parent} if parent else set()
        if self.name == self.root:  # nobody that a stage reaches calls the package's own functions
            whole = set()
        found = {self.name: (_sha256(source), sorted(whole - {self.name}))}
        if self.name not in self.fine:
            return found
        lines = source.splitlines()
        for name, statements in self.defined.items():
            parts, edges = [], {self.root}
            for node in (*self.prelude, *statements):
                first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
                parts += lines[first - 1 : node.end_lineno]
                edges |= set(self._used(node, fields))
            found[f"{self.name}:{name}"] = (_sha256(b"\n".join(parts)), sorted(edges))
        return found

    def collect_fields(self, fields: dict[str, set[str]]) -> None:
        """Adds attribute -> units of its type, for every field and method of the file's classes."""
        for node in self.tree.body if self.name in self.fine else ():
            if not isinstance(node, ast.ClassDef):
                continue
            for item in node.body:
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                    fields[item.target.id] |= set(self._used(item.annotation, {}))
                elif isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
                    fields[item.name].add(f"{self.name}:{node.name}")

    def _sort_in(self, node: ast.stmt) -> None:
        """A definition by its name; what else runs at import belongs to every definition."""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
        elif isinstance(node, ast.Import | ast.ImportFrom) or _only_for_types(node) or _only_text(node):
            return
        else:
            names = []
            self.prelude.append(node)
        for name in names:
            self.defined[name].append(node)

    def _used(self, node: ast.AST, fields: Mapping[str, set[str]]) -> Iterator[str]:
        """Units that a definition's syntax names; a class's annotated fields count where they are read."""
        if isinstance(node, ast.Attribute):
            yield from fields.get(node.attr, ())
            if isinstance(node.value, ast.Name) and node.value.id in self.bound:
                for unit in self.bound[node.value.id]:
                    exact = f"{unit}:{node.attr}"
                    yield exact if unit in self.fine and self._defines(unit, node.attr) else unit
                return
        if isinstance(node, ast.Name):
            yield from self.bound.get(node.id, ())
            if node.id in self.defined:
                yield f"{self.name}:{node.id}"
        yield from self._own(node)
        for child in ast.iter_child_nodes(node):
            if isinstance(node, ast.ClassDef) and isinstance(child, ast.AnnAssign):
                if child.value is not None:
                    yield from self._used(child.value, fields)
            else:
                yield from self._used(child, fields)

    def _named(self, tree: ast.AST) -> Iterator[str]:
        """Units that a whole file imports or names; imports for types alone do not run."""
        left = [tree]
        while left:
            node = left.pop()
            yield from self._own(node)
            left += node.orelse if _only_for_types(node) else ast.iter_child_nodes(node)

    def _own(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (unit for _, unit in self._imported(node))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 200:
            yield from self._in_text(node.value)

    def _in_text(self, text: str) -> Iterator[str]:
        name = f"{self.package}{text}" if text.startswith(".") and self.by_name else text
        if name in self.trees:
            yield name
        elif name.endswith(".") and name[:-1] in self.trees and name[:-1] != self.root:
            yield from (module for module in self.trees if module.startswith(name))
        elif (
            Path(text).suffix in _TEXT and "/" not in text and (beside := self.path.with_name(text)).exists()
        ):
            module = f"{self.package}.{beside.stem}"
            package = self.path.parents[len(self.package.split(".")) - 1]
            yield module if beside.suffix == ".py" else beside.relative_to(package.parent).as_posix()

    def _imported(self, node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
        """(name it is bound to, unit) of each import of the package itself."""
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in self.trees:
                    yield alias.asname or alias.name.split(".")[0], alias.name
            return
        base = node.module or ""
        if node.level:
            above = self.package.split(".")
            base = ".".join([*above[: len(above) - node.level + 1], *([base] if base else [])])
        if base not in self.trees:
            return
        for alias in node.names:
            whole, bound = f"{base}.{alias.name}", alias.asname or alias.name
            if whole in self.trees:
                yield bound, whole
            elif base in self.fine and self.name in self.fine and self._defines(base, alias.name):
                yield bound, f"{base}:{alias.name}"
            else:
                yield bound, base

    def _defines(self, module: str, name: str) -> bool:
        return any(
            getattr(node, "name", None) == name
            or (isinstance(node, ast.Assign) and any(getattr(t, "id", "") == name for t in node.targets))
            or (isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == name)
            for node in self.trees[module].body
        )


def _only_for_types(node: ast.AST) -> TypeGuard[ast.If]:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in (
        getattr(node.test, "id", ""),
        getattr(node.test, "attr", ""),
    )


def _only_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
