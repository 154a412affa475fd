"""Boards for the tests of this folder, one of each transport a session."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from boards import Board, adb_board, leftovers, local_board, pi_files, pi_tools, ssh_board  # noqa: E402


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks and health of boards lie in the user's cache, runs in their history: tests have their own."""
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EDGEKIT_HISTORY", str(tmp_path / "history.sqlite"))


@pytest.fixture(scope="session")
def ssh() -> Iterator[Board]:
    with ssh_board() as board:
        yield board


@pytest.fixture(scope="session")
def local() -> Iterator[Board]:
    with local_board() as board:
        yield board


@pytest.fixture(scope="session")
def pi() -> Iterator[Board]:
    """An sshd whose /sys and vcgencmd are a Raspberry Pi's."""
    with ssh_board(pi_files) as board:
        pi_tools(board)
        yield board


@pytest.fixture
def models() -> dict[str, Path]:
    """target -> model file of a small classifier's bundles, written by `edgekit build`."""
    return {path.parent.name: path for path in sorted((HERE / "models").glob("*/model.tflite"))}


@pytest.fixture(scope="session")
def adb_session() -> Iterator[Board]:
    with adb_board() as board:
        yield board


@pytest.fixture
def adb(adb_session: Board, monkeypatch: pytest.MonkeyPatch) -> Board:
    for name, value in adb_session.env.items():
        monkeypatch.setenv(name, value)
    return adb_session


@pytest.fixture(params=["local", "ssh", "adb"])
def board(request: pytest.FixtureRequest) -> Iterator[Board]:
    """Every transport in turn; nothing may be left on the board afterwards."""
    found: Board = request.getfixturevalue(request.param)
    yield found
    assert leftovers(found.base) == []
