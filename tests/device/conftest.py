"""Boards for the tests of this folder, one of each transport a session."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from boards import Board, leftovers, local_board, ssh_board


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks and health of boards lie in the user's cache: tests have their own."""
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def ssh() -> Iterator[Board]:
    with ssh_board() as board:
        yield board


@pytest.fixture(scope="session")
def local() -> Iterator[Board]:
    with local_board() as board:
        yield board


@pytest.fixture(params=["local", "ssh"])
def board(request: pytest.FixtureRequest) -> Iterator[Board]:
    """Every transport in turn; nothing may be left on the board afterwards."""
    found: Board = request.getfixturevalue(request.param)
    yield found
    assert leftovers(found.base) == []
