"""The way to a board: a transport entry of the inventory in, a Transport out.

    connect()                 takes the board (lock), makes a work directory, keeps both while we live
    run(argv, timeout)        rc, stdout, stderr; the process group there dies with the connection
    push(file), pull(name)    verified by sha256, whole or not at all
    close()                   nothing of ours is left on the board

The real `ssh` and `adb` programs carry it, so the user's configuration, keys and jump hosts hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.device.transport.adb import AdbTransport
from edgekit.device.transport.connection import Completed, Stream, Transport
from edgekit.device.transport.keeper import Owner, parse_owner
from edgekit.device.transport.local import LocalTransport
from edgekit.device.transport.ssh import SshTransport

__all__ = ["Completed", "Owner", "Stream", "Transport", "open_transport", "parse_owner"]

_KINDS: dict[str, type[Transport]] = {"local": LocalTransport, "ssh": SshTransport, "adb": AdbTransport}


def open_transport(device: str, settings: Mapping[str, Any], base: str | None = None) -> Transport:
    """A transport that is not connected yet.

    Args:
        device: the board's id, for messages.
        settings: {"type": "local" | "ssh" | "adb", ...} as in the inventory.
        base: directory on the board; default the transport's own.
    """
    given = {key.replace("-", "_"): value for key, value in settings.items() if key != "type"}
    return _KINDS[settings["type"]](device, base, **given)
