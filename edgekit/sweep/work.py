"""What a worker does with a point: a process that builds it, and what came of it as plain data.

Nothing but the network is shared with the client: a recipe travels here, the build's directory back.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

_running: set[subprocess.Popen[str]] = set()


def build_point(request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """Build one point in a process of its own.

    Args:
        request: see edgekit.sweep.point, less "out".
    Returns: "status": "done", "failed", "timeout" or "crashed", "reason", "seconds", and "archive", a tar of
        the build's directory, where there is one.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="edgekit-sweep-") as folder:
        out = Path(folder, "build")
        status, reason = _build(request | {"out": str(out)}, timeout_s)
        found: dict[str, Any] = {"status": status, "reason": reason}
        if status == "done":
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as archive:
                archive.add(out, arcname=".")
            found["archive"] = buffer.getvalue()
    return found | {"seconds": round(time.monotonic() - began, 1)}


def stop() -> None:
    """End the processes of this worker's points."""
    for process in list(_running):
        _kill(process)


def _build(request: dict[str, Any], timeout_s: float) -> tuple[str, str]:
    with subprocess.Popen(
        [sys.executable, "-m", "edgekit.sweep.point"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        _running.add(process)
        try:
            _, error = process.communicate(json.dumps(request), timeout=timeout_s)
        except subprocess.TimeoutExpired:
            _kill(process)
            return "timeout", f"not done after {timeout_s / 60:g} minutes"
        finally:
            _running.discard(process)
    last = (error.strip().splitlines() or [""])[-1][:400]
    if process.returncode == 0:
        return "done", ""
    if process.returncode == 2:
        return "failed", last
    if process.returncode < 0:
        return "crashed", f"its process was ended by {signal.Signals(-process.returncode).name}"
    return "crashed", f"its process ended with {process.returncode}: {last}"


def _kill(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
