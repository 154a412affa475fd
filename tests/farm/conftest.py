"""The plugin of simulated boards, and shelves of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
sys.path.insert(0, str(Path(__file__).parents[1] / "history"))
sys.path.insert(0, str(Path(__file__).parents[1] / "device"))

from boards_shelf import ROOT, SIMULATED, Shelf

from edgekit.device import kinds


@pytest.fixture(autouse=True)
def simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plugin is found as any is; locks, health and history are this test's own."""
    monkeypatch.syspath_prepend(str(SIMULATED))
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EDGEKIT_HISTORY", str(tmp_path / "history.sqlite"))
    monkeypatch.setattr("edgekit.device.measure._BACKOFF_S", 0.01)
    kinds.kinds.cache_clear()
    yield
    kinds.kinds.cache_clear()


@pytest.fixture
def shelf(tmp_path: Path) -> Callable[..., Shelf]:
    def make(boards: int = 2, models: int = 3, **options: Any) -> Shelf:
        folder = tmp_path / "shelf"
        folder.mkdir()
        paths = [folder / f"model{i}.tflite" for i in range(models)]
        for path in paths:
            path.write_text(path.name)  # as the simulated boards want it
        return Shelf(folder, [f"sim-{i}" for i in range(boards)], paths, **options)

    return make


@pytest.fixture
def environment() -> dict[str, str]:
    """Of a process that finds this checkout and the simulated boards."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(SIMULATED)])}
