"""No test of the zoo reaches a network or the user's own caches."""

from __future__ import annotations

import socket

import pytest


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """Empty caches in the test's folder; opening a connection fails as it does without a network."""

    def refuse(*_args, **_settings):
        raise OSError("no network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path
