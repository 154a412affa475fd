"""A host with boards: a dask worker for each board, which measures one job at a time.

A dask worker looks only at the first of its queued tasks: one whose board is busy holds up all behind it. So
every board has a worker of its own, with one thread and the resource {board: 1}; all of a host live in one
process. A job is plain data in and out, so that client and worker may be of different Python versions.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import edgekit
from edgekit.bundle.names import inside
from edgekit.device.drift import Evaluation, golden_evaluation
from edgekit.device.evaluation import slice_evaluation
from edgekit.device.inventory import Device
from edgekit.device.kinds import find_kind
from edgekit.device.measure import measure
from edgekit.device.reservation import bad_reason, look
from edgekit.device.transport import parse_owner
from edgekit.errors import (
    DataError,
    DeviceBusyError,
    DeviceError,
    DeviceRefusedError,
    EdgekitError,
    InfrastructureError,
    UsageError,
)
from edgekit.files import default_root, sha256_file, write_atomic

MEASURED, JOB, LINK, REFUSED, BUSY, FILES = "measured", "job", "link", "refused", "busy", "files"
STOPPED = "stopped"
LOOPBACK = "127.0.0.1:0"  # where dask must open a port, nobody else reaches it
_CONNECT_S = 20.0


@dataclass
class _Activity:
    """What a board is doing: job, since when (UTC), the last thing it said; what its lock is called."""

    job: str
    since: str
    doing: str
    lock: str


class _StoppedError(Exception):
    """The run of this job was interrupted."""


class _Machine:
    """This machine as a board is measured alone; boards at the end of a wire do not disturb each other."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._users, self._alone = 0, False

    @contextmanager
    def use(self, alone: bool) -> Iterator[None]:
        with self._free:
            self._free.wait_for(lambda: not self._alone and not (alone and self._users))
            self._users, self._alone = self._users + 1, alone
        try:
            yield
        finally:
            with self._free:
                self._users, self._alone = self._users - 1, False
                self._free.notify_all()


# Of this process: tasks find their board here by its id.
_boards: dict[str, Device] = {}
_running: dict[str, _Activity] = {}
_stopped: set[str] = set()  # runs whose client was interrupted
_machine = _Machine()
_slicing = threading.Lock()


def describe() -> dict[str, Any]:
    """What the boards of this process are and do; called on every worker by the client."""
    return {
        "edgekit": edgekit.__version__,
        "host": socket.gethostname(),
        "process": os.getpid(),
        "boards": {device.id: _about(device) for device in _boards.values()},
        "running": {
            board: {"job": activity.job, "since": activity.since, "doing": activity.doing}
            for board, activity in list(_running.items())
        },
    }


def run_job(order: Mapping[str, Any]) -> dict[str, Any]:
    """Measure one job; whatever goes wrong is in the answer.

    Args:
        order: job, run, label, device, name, digest, files (name -> path on the client's machine) and the
            settings of edgekit.farm.plan.
    Returns: "outcome": measured (with content and samples), job (failed by itself), link, refused, busy,
        stopped, or files (they are not here yet: `receive` takes them); times on this machine's monotonic
        clock.
    """
    device = _boards[order["device"]]
    answer: dict[str, Any] = {
        "worker": f"{socket.gethostname()}:{os.getpid()}",
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "notes": [],
    }
    folder = _folder(order)
    if folder is None:
        return answer | {"outcome": FILES}
    lock = f"{order['run']}-{order['job'][:8]}"
    activity = _running[device.id] = _Activity(order["label"], _now(), "waits for its machine", lock)

    def say(text: str) -> None:
        if order["run"] in _stopped:
            raise _StoppedError
        activity.doing = text
        if text.startswith("attempt "):
            answer["notes"].append(text)

    try:
        with _machine.use(alone=device.local and not device.emulated):
            activity.since = answer["started"] = _now()
            answer["start_ns"] = time.monotonic_ns()
            try:
                answer |= _measured(order, device, folder, lock, say)
            finally:
                answer["end_ns"] = time.monotonic_ns()
    finally:
        del _running[device.id]
    return answer


def receive(digest: str, files: Mapping[str, bytes]) -> str | None:
    """Keep the files of an artifact; the last one in place says that all are there.

    Returns: why they cannot be kept, or None.
    """
    folder = _kept(digest)
    try:
        for name, data in files.items():
            write_atomic(inside(folder, name), data)
        write_atomic(folder / "whole", "")
    except (EdgekitError, OSError) as error:
        return f"{socket.gethostname()} cannot keep its files: {' '.join(str(error).split())}"
    return None


def stop(run: str) -> None:
    """End the jobs of a run here, at once where a board listens; they answer when their board is free."""
    if run in _stopped:  # by the dask worker of another board
        return
    _stopped.add(run)
    for board, activity in list(_running.items()):
        if activity.lock.startswith(f"{run}-"):
            threading.Thread(target=_end, args=(_boards[board], activity.lock), daemon=True).start()


def _end(device: Device, lock: str) -> None:
    """End the keeper that holds a board under this lock: it kills what it started and frees the board."""
    with suppress(EdgekitError), look(device, f"stop-{os.getpid()}") as transport:
        owner = parse_owner(transport.run(["readlink", f"{transport.base}/edgekit-lock"]).out.strip())
        if owner is not None and owner.run == lock:
            transport.run(["kill", "-TERM", str(owner.process)])


def _measured(order: Mapping[str, Any], device: Device, folder: Path, lock: str, say: Any) -> dict[str, Any]:
    name, settings = order["name"], order["settings"]
    model = inside(folder, order["files"][0])
    try:
        say("waits for its board")
        evaluation = _evaluation(folder, order["digest"], settings["images"]) if settings["images"] else None
        result = measure(
            device,
            {name: model},
            settings["profile"],
            runtime=settings["runtime"],
            delegate=settings["delegate"],
            threads=settings["threads"],
            minutes=settings["minutes"],
            evaluations={name: evaluation} if evaluation is not None else {},
            run=lock,
            wait_s=settings["wait_s"],
            progress=say,
        )
        return {"outcome": MEASURED, "content": result.content, "samples": dict(result.samples)}
    except _StoppedError:
        return {"outcome": STOPPED}
    except (EdgekitError, OSError) as error:
        return {"outcome": _outcome(error)} | _said(error)
    except Exception as error:  # a fault of one kind of board must not cost the others' results
        return {"outcome": JOB, "error": f"{device.id}: {type(error).__name__}: {error}", "command": ""} | {
            "exit_code": None,
            "stderr": traceback.format_exc(),
        }


def _outcome(error: Exception) -> str:
    if isinstance(error, DeviceBusyError):
        return BUSY
    if isinstance(error, DeviceRefusedError):
        return REFUSED
    return LINK if isinstance(error, InfrastructureError) else JOB


def _said(error: Exception) -> dict[str, Any]:
    known = isinstance(error, DeviceError)
    return {
        "error": " ".join(str(error).split()),
        "command": error.command if isinstance(error, DeviceError) else "",
        "exit_code": error.exit_code if isinstance(error, DeviceError) else None,
        "stderr": error.stderr[-4000:] if known and isinstance(error, DeviceError) else "",
    }


def _about(device: Device) -> dict[str, Any]:
    kind = find_kind(device.kind)
    harnesses = [kind.harness(name) for name in device.runtimes] or list(kind.harnesses)
    return {
        "kind": device.kind,
        "title": kind.title,
        "transport": device.transport["type"],
        "tags": list(device.tags),
        "emulated": device.emulated,
        "formats": sorted({suffix for harness in harnesses for suffix in harness.formats}),
        "bad": bad_reason(device),
    }


def _folder(order: Mapping[str, Any]) -> Path | None:
    """Where the artifact's files lie: at the client's own place, or where `receive` kept them."""
    given = Path(order["folder"])
    with suppress(OSError):
        if all(_hash(given / name) == digest for name, digest in order["hashes"].items()):
            return given
    kept = _kept(order["digest"])
    return kept if (kept / "whole").exists() else None


def _hash(path: Path) -> str:
    about = path.stat()
    return _hash_of(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=4096)
def _hash_of(path: Path, changed_ns: int, size_bytes: int) -> str:
    return sha256_file(path)


def _kept(digest: str) -> Path:
    return default_root() / "farm" / digest


def _evaluation(folder: Path, digest: str, count: int) -> Evaluation | None:
    if not (folder / "manifest.json").is_file():
        return None
    with _slicing:  # boards begin together: one of them computes it
        return _evaluation_of(folder, digest, count)


@lru_cache(maxsize=8)
def _evaluation_of(folder: Path, digest: str, count: int) -> Evaluation | None:
    """A slice of the evaluation set the bundle was judged on, or its golden vectors where that is not."""
    from edgekit.bundle.check import read_manifest

    manifest = read_manifest(folder)
    try:
        found = slice_evaluation(manifest, count, folder)
    except DataError:  # imagefolder:PATH of another host
        if not manifest["golden"]:
            raise
        found = None
    return found or golden_evaluation(folder)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def check_scheduler(address: str) -> None:
    """Raises: UsageError for an address that is none, or at which nobody answers."""
    where = urlsplit(address)
    try:
        if not where.scheme or not where.hostname or not where.port:
            raise ValueError("not an address")
        socket.create_connection((where.hostname, where.port), _CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"farm: scheduler {address}: not reached ({error}): tcp://HOST:PORT of a `dask scheduler`"
        ) from None


async def start_workers(scheduler: str, devices: Sequence[Device]) -> list[Any]:
    """A running dask worker for each board, in this event loop."""
    from distributed import Worker

    _boards.update({device.id: device for device in devices})
    protocol = scheduler.partition("://")[0]
    workers = [
        Worker(
            scheduler,
            protocol=protocol,
            name=f"{device.id}@{socket.gethostname()}:{os.getpid()}",
            nthreads=1,
            resources={device.id: 1},
            memory_limit=0,
            dashboard=False,
            dashboard_address=LOOPBACK,
        )
        for device in devices
    ]
    await asyncio.gather(*workers)
    return workers


async def stop_workers(workers: Sequence[Any]) -> None:
    """Leave the scheduler; jobs that run are not waited for."""
    await asyncio.gather(*(worker.close(timeout=1, executor_wait=False) for worker in workers))
    for worker in workers:
        for board in worker.state.total_resources:
            _boards.pop(board, None)


def serve(scheduler: str, devices: Sequence[Device], say: Any = print) -> list[str]:
    """Offer the healthy boards to a scheduler until it ends or we are told to stop.

    Returns: nothing but the boards that were refused, as "id: why".
    Raises: UsageError when no board is healthy or the scheduler is not reached.
    """
    refused = {device.id: reason for device in devices if (reason := bad_reason(device))}
    healthy = [device for device in devices if device.id not in refused]
    lines = [f"{board}: not offered: {reason}" for board, reason in refused.items()]
    for line in lines:
        say(line)
    check_scheduler(scheduler)
    if not healthy:
        raise UsageError("farm worker: no board to offer: `edgekit devices doctor` says what is missing")
    import distributed  # noqa: F401  (it sets its loggers' levels when it is imported)

    logging.getLogger("distributed").setLevel(logging.WARNING)
    asyncio.run(_serve(scheduler, healthy, say))
    return lines


async def _serve(scheduler: str, devices: Sequence[Device], say: Any) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    workers = await start_workers(scheduler, devices)
    say(f"{', '.join(device.id for device in devices)}: offered to {scheduler}")
    told: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
    gone: asyncio.Future[Any] = asyncio.gather(*(worker.finished() for worker in workers))
    await asyncio.wait([told, gone], return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if not stop.is_set():
        raise UsageError(f"farm worker: scheduler {scheduler} has gone: start the worker again with it")
    await stop_workers(workers)
