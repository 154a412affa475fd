"""The wheel as a user gets it: everything that is read at run time is in it; it works without the tree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHIPPED = {"edgekit": "edgekit", "recipes": "edgekit_recipes", "devices": "edgekit_devices"}
MODEL = ROOT / "tests" / "device" / "models" / "tflite-int8"
MAIN = """
import sys
from importlib.metadata import entry_points
(script,) = entry_points(group="console_scripts", name="edgekit")
script.load()()
"""
KINDS = """
import json
from importlib.metadata import entry_points
found = {e.name: e.load() for e in entry_points(group="edgekit.devices")}
modules = [sys.modules[e.module].__file__ for e in entry_points(group="edgekit.devices")]
print(json.dumps([{name: kind.name for name, kind in found.items()}, modules]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools writes into the tree it builds."""
    there = {distribution.name for distribution in distributions()}
    if missing := {"pip", "setuptools"} - there:
        said = f"{' and '.join(sorted(missing))} not installed: python -m ensurepip; pip install setuptools"
        (pytest.fail if os.environ.get("EDGEKIT_CI") == "1" else pytest.skip)(said)
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in SHIPPED:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip("wheel", "--no-build-isolation", "-w", str(folder), str(source))
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    target = wheel.parent / "site"
    pip("install", "--no-index", "--target", str(target), str(wheel))
    return target


def pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words, "--no-deps", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def python(installed: Path, place: Path, code: str, *words: str) -> str:
    """What a program prints that sees the wheel and the libraries, and no editable install (-S)."""
    place.mkdir(exist_ok=True)
    path = [str(installed), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    own = {"PYTHONPATH": os.pathsep.join(path), "EDGEKIT_CACHE": str(place / "cache"), "COLUMNS": "160"}
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys\n{code}", *words],
        cwd=place,
        env=os.environ | own | {"EDGEKIT_HISTORY": str(place / "history.sqlite")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_file_of_the_packages_is_in_it(wheel: Path) -> None:
    wanted = {
        str(Path(package, path.relative_to(wheel.parent / "source" / name)))
        for name, package in SHIPPED.items()
        for path in (wheel.parent / "source" / name).rglob("*")
        if path.is_file() and path.suffix != ".md"  # words for those who read the code
    }
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert found == wanted
    endings = {Path(name).suffix for name in found}
    assert endings == {".py", ".sh", ".json", ".j2", ".css", ".toml", ".safetensors"}


def test_the_kinds_of_boards_are_found(installed: Path, tmp_path: Path) -> None:
    kinds, modules = json.loads(python(installed, tmp_path, KINDS))
    assert kinds == {name: name for name in ("host", "raspberry_pi", "jetson", "android", "coral")}
    assert all(Path(module).is_relative_to(installed) for module in modules)


def test_the_command_works(installed: Path, tmp_path: Path) -> None:
    """From a first inventory to a report: keeper, guard, runner, schemas and templates are all used."""
    assert "Compile PyTorch vision models" in python(installed, tmp_path, MAIN, "--help")
    python(installed, tmp_path, MAIN, "devices", "init", "--inventory", "devices.toml")
    assert "host" in python(installed, tmp_path, MAIN, "devices", "list", "--inventory", "devices.toml")
    shown = python(
        installed, tmp_path, MAIN, "farm", "run", str(MODEL), "--inventory", "devices.toml", "--out", "farm"
    )
    assert "All measured." in shown and (tmp_path / "farm" / "report.html").is_file()


def test_the_shipped_recipes_and_checkpoints_are_found(installed: Path, tmp_path: Path) -> None:
    code = (
        "from edgekit import zoo\nfrom edgekit.pipeline import recipe\n"
        "print(recipe.shipped_for('mobilenet_v3_small'), zoo.__file__)"
    )
    found = python(installed, tmp_path, code).split()
    assert all(Path(path).is_relative_to(installed) and Path(path).is_file() for path in found)
    assert "reference" in python(installed, tmp_path, MAIN, "models", "mobilenet_v3_small")
