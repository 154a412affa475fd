"""Our end of a board's keeper (keeper.sh): the process that carries it, its lines, its heartbeat."""

from __future__ import annotations

import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

BEAT_LIMIT_S = 30  # silence after which the board cleans up by itself


class Keeper:
    """A running keeper. State: its process, the lines it printed, when the board was last heard."""

    def __init__(self, argv: Sequence[str], beat_limit_s: float) -> None:
        self._limit_s = beat_limit_s
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in end)
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._heard = time.monotonic()
        self._stop = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def first_line(self, timeout_s: float) -> str | None:
        """What the keeper said of the board; None when it ended, "silence" when nothing came in time."""
        try:
            return self._lines.get(timeout=timeout_s)
        except queue.Empty:
            return "silence"

    def beat(self) -> None:
        """Say from now on that we are there."""
        self._heard = time.monotonic()
        threading.Thread(target=self._beat, daemon=True).start()

    @property
    def lost(self) -> bool:
        """It ended, or the board has been silent for too long."""
        return self._process.poll() is not None or time.monotonic() - self._heard > self._limit_s

    def end(self, grace_s: float) -> tuple[str, int]:
        """Close the connection and wait for the board to clean up; standard error and exit code."""
        process = self._process
        self._stop.set()
        assert process.stdin is not None and process.stdout is not None
        with suppress(OSError, ValueError):
            process.stdin.close()
        try:
            code = process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        process.stdout.close()
        with self._errors:
            self._errors.seek(0)
            return self._errors.read().decode(errors="replace").strip(), code

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for raw in self._process.stdout:
            line = raw.decode(errors="replace").strip()
            if line.startswith("beat"):
                self._heard = time.monotonic()
            else:
                self._lines.put(line)
        self._lines.put(None)

    def _beat(self) -> None:
        assert self._process.stdin is not None
        while not self._stop.wait(self._limit_s / 5):
            try:
                self._process.stdin.write(b"\n")
                self._process.stdin.flush()
            except (OSError, ValueError):
                return


@dataclass(frozen=True)
class Owner:
    """Who holds a board: run, user@host and since when, as the lock on the board says."""

    process: int
    run: str
    who: str


def parse_owner(text: str) -> Owner | None:
    """The text of a lock: PID START BOOT RUN WHO."""
    words = text.split(" ", 4)
    if len(words) < 5 or not words[0].isdigit():
        return None
    return Owner(int(words[0]), words[3], words[4])
