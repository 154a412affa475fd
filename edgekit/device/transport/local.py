"""This machine as a board: the same keeper and guard, without a wire."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

from edgekit.device.transport.connection import Transport


class LocalTransport(Transport):
    """Runs on this machine."""

    def __init__(self, device: str, base: str | None = None) -> None:
        super().__init__(device, base or tempfile.gettempdir())

    def argv(self, words: Sequence[str]) -> list[str]:
        return list(words)
