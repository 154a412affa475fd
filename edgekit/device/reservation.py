"""One user a board: a lock on this machine, then a lock on the board; and what is known of a board's health.

The lock here is flock(2) on a file, so it ends with its process. The lock on the board belongs to the keeper
that our connection keeps alive. Both say who, which run, since when.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgekit.bundle import safe_name
from edgekit.device.inventory import Device
from edgekit.device.kinds import find_kind
from edgekit.device.transport import Owner, Transport, open_transport, parse_owner
from edgekit.errors import DeviceBusyError, InfrastructureError
from edgekit.files import default_root, write_atomic

FAILURES_TO_BAD = 3
_FORCE_S = 5.0


def who() -> str:
    """What a lock says: user@machine since when (UTC)."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no name in the environment and no entry in passwd
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M}Z"


def transport_of(device: Device) -> Transport:
    """A transport to a board, not connected yet."""
    return open_transport(device.id, device.transport, device.base or find_kind(device.kind).base)


@contextmanager
def host_lock(device_id: str, run: str, wait_s: float = 0.0) -> Iterator[None]:
    """Hold a board against others on this machine.

    Raises: DeviceBusyError saying who holds it.
    """
    path = _place(device_id, "lock")
    until = time.monotonic() + wait_s
    with open(path, "a+") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() < until:
                    time.sleep(0.2)
                    continue
                owner = host_owner(device_id)
                held = (
                    f"{owner.who}, run {owner.run}, process {owner.process}" if owner else "another process"
                )
                raise DeviceBusyError(
                    f"{device_id}: busy, held on this machine by {held}: wait with --wait SECONDS, or "
                    f"`edgekit devices unlock {device_id} --force`",
                    device=device_id,
                ) from None
        file.truncate(0)
        file.write(f"{os.getpid()} 0 here {run} {who()}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def host_owner(device_id: str) -> Owner | None:
    """Who holds a board on this machine, or None."""
    path = _place(device_id, "lock")
    with suppress(FileNotFoundError), open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return parse_owner(file.read())
    return None


@contextmanager
def reserve(device: Device, run: str, wait_s: float = 0.0) -> Iterator[Transport]:
    """A connected transport to a board that is ours alone for the length of the block.

    Args:
        run: name of the run, part of the work directory's name.
        wait_s: how long to wait for a board that someone holds, here and there.
    Raises: DeviceBusyError, InfrastructureError.
    """
    started = time.monotonic()
    with host_lock(device.id, run, wait_s):
        left = max(0.0, wait_s - (time.monotonic() - started))
        with transport_of(device).connect(run, who(), wait_s=left) as transport:
            yield transport


@contextmanager
def look(device: Device, run: str) -> Iterator[Transport]:
    """A connected transport without the lock: to ask, not to measure."""
    with transport_of(device).connect(run, who(), lock=False) as transport:
        yield transport


def unlock(device: Device, force: bool = False) -> str:
    """Remove locks nobody holds any more; with `force` also those that are held. What was done, in words."""
    here = host_owner(device.id)
    if here and not force:
        raise DeviceBusyError(
            f"{device.id}: held on this machine by {here.who}, run {here.run}: --force to end that run",
            device=device.id,
        )
    if here:
        _end_process(here.process)
    with look(device, f"unlock-{os.getpid()}") as transport:
        lock = f"{transport.base}/edgekit-lock"
        owner = parse_owner(transport.run(["readlink", lock]).out.strip())
        if owner is None:
            return f"{device.id}: free"
        alive = transport.run(["test", "-d", f"/proc/{owner.process}"]).exit_code == 0
        if alive and not force:
            raise DeviceBusyError(
                f"{device.id}: held by {owner.who}, run {owner.run}: --force to end that run",
                device=device.id,
            )
        if alive:
            transport.run(["kill", "-TERM", str(owner.process)])
        until = time.monotonic() + _FORCE_S
        while alive and time.monotonic() < until and transport.run(["readlink", lock]).exit_code == 0:
            time.sleep(0.2)
        transport.run(["rm", "-f", lock])
        if transport.run(["readlink", lock]).exit_code == 0:
            raise InfrastructureError(
                f"{device.id}: the lock of {owner.who} cannot be removed: the same user on the board",
                device=device.id,
            )
    return f"{device.id}: taken from {owner.who}, run {owner.run}"


def _end_process(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + _FORCE_S
        while time.monotonic() < until:
            os.kill(pid, 0)
            time.sleep(0.1)


def record_failure(device_id: str, reason: str) -> None:
    """One more infrastructure failure; the third in a row marks the board bad."""
    known = _health(device_id)
    known["failures"] = known.get("failures", 0) + 1
    if known["failures"] >= FAILURES_TO_BAD and "bad_since" not in known:
        known["bad_since"] = f"{datetime.now(UTC):%Y-%m-%d %H:%M}Z"
    known["reason"] = reason
    write_atomic(_place(device_id, "health.json"), json.dumps(known) + "\n")


def record_success(device_id: str) -> None:
    """The board answered: earlier failures no longer count."""
    _place(device_id, "health.json").unlink(missing_ok=True)


def bad_reason(device: Device) -> str | None:
    """Why a board is not to be used, or None."""
    if device.health != "ok":
        return f"the inventory says {device.health}"
    known = _health(device.id)
    if "bad_since" in known:
        return f"{known['failures']} failures in a row, bad since {known['bad_since']} ({known['reason']})"
    return None


def _health(device_id: str) -> dict[str, Any]:
    try:
        return dict(json.loads(_place(device_id, "health.json").read_text()))
    except (OSError, ValueError):
        return {}


def _place(device_id: str, suffix: str) -> Path:
    folder = default_root() / "devices"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{safe_name(device_id)}.{suffix}"
