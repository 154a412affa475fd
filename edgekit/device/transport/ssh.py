"""A board over OpenSSH: the user's own client, configuration, keys and jump hosts.

The keeper's ssh is the master of a multiplexed connection that the others share; it ends when the keeper
does, so no connection outlives us.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import stat
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgekit.device.transport.connection import Transport
from edgekit.errors import DeviceRefusedError, InfrastructureError, UsageError

# What ssh says -> what a person has to do about it.
_REFUSALS = {
    "Host key verification failed": "not the known host key: compare it, then `ssh-keygen -R {host}`",
    "REMOTE HOST IDENTIFICATION HAS CHANGED": "compare the new key, then `ssh-keygen -R {host}`",
    "Permission denied": "the key is not accepted: `ssh-copy-id {host}`",
    "Could not resolve hostname": "there is no host {host}: its name or address in the inventory",
    "Bad configuration option": "ssh refuses its configuration: the file named in the inventory",
    "Can't open user config file": "ssh finds no such configuration: the file named in the inventory",
}


class SshTransport(Transport):
    """Args: host, user and port as ssh takes them; config: an ssh_config(5) file instead of the user's."""

    alive_interval_s = 5
    alive_count = 3

    def __init__(
        self,
        device: str,
        base: str | None = None,
        *,
        host: str,
        user: str | None = None,
        port: int | None = None,
        config: str | None = None,
    ) -> None:
        super().__init__(device, base)
        if host.startswith("-") or (user or "").startswith("-"):
            raise UsageError(f"{device}: host {host!r}: a host name as ssh takes it")
        self.host = f"{user}@{host}" if user else host
        self._options = ["-F", os.path.expanduser(config)] if config else []
        self._options += ["-p", str(port)] if port else []
        self._socket = ""

    def prepare(self) -> None:
        if shutil.which("ssh") is None:
            raise DeviceRefusedError(
                f"{self.device}: there is no ssh on this machine: apt install openssh-client",
                device=self.device,
            )
        self._socket = str(_socket_directory() / secrets.token_hex(6))

    def argv(self, words: Sequence[str]) -> list[str]:
        return self._ssh(words, "no")

    def keeper_argv(self, words: Sequence[str]) -> list[str]:
        return self._ssh(words, "yes")

    def _ssh(self, words: Sequence[str], master: str) -> list[str]:
        options = {
            "BatchMode": "yes",
            "ControlMaster": master,
            "ControlPath": self._socket,
            "ControlPersist": "no",
            "ServerAliveInterval": self.alive_interval_s,
            "ServerAliveCountMax": self.alive_count,
            "ConnectTimeout": int(self.connect_timeout_s / 2),
            "ForwardX11": "no",
            "RequestTTY": "no",
        }
        flags = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        return ["ssh", *self._options, *flags, self.host, "--", shlex.join(words)]

    def explain(self, exit_code: int, stderr: str) -> InfrastructureError | None:
        if exit_code != 255:
            return None
        known: dict[str, Any] = {
            "device": self.device,
            "command": f"ssh {self.host}",
            "exit_code": exit_code,
            "stderr": stderr,
        }
        for sign, cure in _REFUSALS.items():
            if sign in stderr:
                return DeviceRefusedError(f"{self.device}: {sign}: {cure.format(host=self.host)}", **known)
        last = (stderr.strip() or "no message").splitlines()[-1][:200]
        return InfrastructureError(
            f"{self.device}: ssh {self.host}: {last}: a board that is reachable", **known
        )

    def close(self) -> None:
        super().close()
        with suppress(OSError):
            os.unlink(self._socket)


def _socket_directory() -> Path:
    """A directory of ours alone with a short name: a socket's path has at most 104 characters."""
    root = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    path = Path(root, f"edgekit-ssh-{os.getuid()}")
    path.mkdir(mode=0o700, exist_ok=True)
    about = path.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise UsageError(f"{path}: not a directory of yours alone: remove it")
    return path
