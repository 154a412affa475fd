"""Simulated boards: a kind for tests and benchmarks of the farm, found like anyone's plugin.

Put this folder on PYTHONPATH. The work directory, the locks and the pushes are real (transport local); only
the measuring is made up. A made-up model is a file that holds its own name. The environment of a board in the
inventory says how it behaves:

    SIM_MS      how long a process takes, milliseconds; default 5
    SIM_P50_MS  the median it reports; default from the board's id and the model's bytes
    SIM_LOG     a file that gets "BOARD MODEL start|end NANOSECONDS PROCESS" lines: who used it when
    SIM_FAULT   a JSON file {"BOARD MODEL": [fault, ...]}: one fault is used up by each process that is
                started; link (lost), job (the work fails), hot (throttled), bug (an error of ours), kill
                (its worker dies); "*" stands for any model
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import time
from pathlib import Path

import numpy as np

from edgekit.device.harness import Board, FileRun, Harness, Runtime, Task
from edgekit.device.kinds import Kind
from edgekit.device.probe import Probe, Sample
from edgekit.device.transport import Transport
from edgekit.errors import DeviceJobError, InfrastructureError

_hot: set[str] = set()


class _Silent:
    def stop(self) -> str:
        return ""


class SimulatedProbe(Probe):
    """Facts and telemetry without a process."""

    def fingerprint(self, transport: Transport) -> dict[str, str]:
        return {"machine": "simulated", "model": "Simulated board 1", "cores": "4", "load": "0.0"}

    def now(self, transport: Transport) -> Sample:
        throttled = 0x4 if transport.device in _hot else 0
        return Sample(time.monotonic(), {"soc": 71.0 if throttled else 42.0}, throttled=throttled)

    def start(self, transport: Transport, limit_s: float) -> _Silent:  # type: ignore[override]
        return _Silent()


class SimulatedHarness(Harness):
    """Samples around a median that a board and a model always give."""

    name = "simulated"
    formats = (".tflite",)
    delegates = ("none",)

    def check(self, board: Board, delegate: str | None = None) -> Runtime:
        return Runtime("simulated", "1")

    def measure(self, board: Board, task: Task) -> dict[str, FileRun]:
        env = board.device.env
        runs = {}
        for name, path in task.files.items():
            model = _model(Path(path))
            _note(env, f"{board.device.id} {model} start")
            try:
                _fault(board, model)
                time.sleep(float(env.get("SIM_MS", "5")) / 1e3)
                runs[name] = _run(board, Path(path), task)
            finally:
                _note(env, f"{board.device.id} {model} end")
        return runs


def _model(path: Path) -> str:
    """The name in the file: on a board a file may be called by its digest alone."""
    data = path.read_bytes()
    return data.decode() if data.isascii() else path.name


def _run(board: Board, path: Path, task: Task) -> FileRun:
    seed = hashlib.sha256(board.device.id.encode() + path.read_bytes()).digest()
    fixed = board.device.env.get("SIM_P50_MS")
    median = float(fixed) * 1e6 if fixed else 2e6 + int.from_bytes(seed[:3], "big") / 2
    rng = np.random.default_rng([*seed[:4], time.monotonic_ns() & 0xFFFFFFFF])
    count = max(task.profile.samples, 4)
    samples = (median * np.exp(0.01 * np.abs(rng.standard_normal(count)))).astype(int).tolist()
    return FileRun(10_000_000, int(1.5 * median), samples, count=count, partitions=0)


def _note(env: object, line: str) -> None:
    if path := env.get("SIM_LOG"):  # type: ignore[attr-defined]
        with open(path, "a") as file:
            file.write(f"{line} {time.monotonic_ns()} {os.getpid()}\n")


def _fault(board: Board, model: str) -> None:
    _hot.discard(board.device.id)
    fault = _next_fault(board.device.env.get("SIM_FAULT"), board.device.id, model)
    if fault == "link":
        raise InfrastructureError(
            f"{board.device.id}: the link was lost (simulated): its cable", device=board.device.id
        )
    if fault == "job":
        raise DeviceJobError(
            f"{board.device.id}: the model does not load (simulated): another model",
            device=board.device.id,
            command="simulated",
            exit_code=3,
            stderr="does not load",
        )
    if fault == "bug":
        raise ZeroDivisionError("simulated")
    if fault == "hot":
        _hot.add(board.device.id)
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)


def _next_fault(path: str | None, board: str, model: str) -> str | None:
    """The next fault planned for a board and model; it is crossed out in the file, under a lock."""
    if path is None:
        return None
    with open(path, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        planned = json.load(file)
        for key in (f"{board} {model}", f"{board} *"):
            if planned.get(key):
                fault = planned[key].pop(0)
                file.seek(0)
                file.truncate()
                json.dump(planned, file)
                return str(fault)
    return None


KIND = Kind(
    name="simulated",
    title="simulated board",
    transports=("local",),
    harnesses=(SimulatedHarness(),),
    probe=SimulatedProbe(facts=(), sample=()),
)
