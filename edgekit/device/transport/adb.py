"""A board over adb: the real client, a serial number of `adb devices` or HOST:PORT for adb over TCP.

`adb connect` exits 0 when it fails and calls a device that is offline "already connected", so the state is
asked for afterwards, and a device that is offline is disconnected first.
"""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit.device.transport.connection import Completed, Transport
from edgekit.errors import DeviceRefusedError, InfrastructureError

_CALL_S = 20.0
_SETTLE_S = 3.0
_PASSING = ("offline", "connecting", "authenticating")


class AdbTransport(Transport):
    """Args: serial: as `adb -s` takes it; HOST:PORT is connected to."""

    default_base = "/data/local/tmp"

    def __init__(self, device: str, base: str | None = None, *, serial: str) -> None:
        super().__init__(device, base)
        self.serial = serial

    def prepare(self) -> None:
        state = self._state()
        if state != "device" and ":" in self.serial:
            self._adb("disconnect", self.serial)
            said = self._adb("connect", self.serial).out.strip()
            until = time.monotonic() + _SETTLE_S
            while (state := self._state()) in _PASSING and time.monotonic() < until:
                time.sleep(0.2)
            if state != "device" and state != "unauthorized":
                state = f"{state}; {said}"
        if state != "device":
            raise self._refusal(state)
        features = self._adb("-s", self.serial, "features").out.split()
        if "shell_v2" not in features:
            raise DeviceRefusedError(
                f"{self.device}: its adb has no shell_v2, so exit codes are lost: Android 7 or later",
                device=self.device,
            )

    def argv(self, words: Sequence[str]) -> list[str]:
        return ["adb", "-s", self.serial, "shell", "-T", shlex.join(words)]

    def copy_in(self, local: Path, remote: str) -> Completed:
        return self._local(["adb", "-s", self.serial, "push", str(local), remote])

    def copy_out(self, remote: str, local: Path) -> Completed:
        return self._local(["adb", "-s", self.serial, "pull", remote, str(local)])

    def explain(self, exit_code: int, stderr: str) -> InfrastructureError | None:
        last = (stderr.strip() or "").splitlines()[-1:] or [""]
        if not last[0].startswith(("error: ", "adb: ")) or exit_code == 0:
            return None
        if "unauthorized" in stderr:
            return self._refusal("unauthorized")
        return InfrastructureError(
            f"{self.device}: {last[0]}: a device that `adb devices` lists",
            device=self.device,
            command=f"adb -s {self.serial}",
            exit_code=exit_code,
            stderr=stderr,
        )

    def _state(self) -> str:
        """ "device" when it can be used; otherwise what adb says, in a word where it has one."""
        done = self._adb("-s", self.serial, "get-state")
        said = f"{done.out}\n{done.err}".strip()
        for word in ("unauthorized", "authenticating", "offline", "connecting"):
            if word in said:
                return word
        return said.splitlines()[-1] if said else "no answer"

    def _refusal(self, state: str) -> InfrastructureError:
        known: dict[str, Any] = {
            "device": self.device,
            "command": f"adb -s {self.serial} get-state",
            "stderr": state,
        }
        if "unauthorized" in state or "authenticat" in state:
            return DeviceRefusedError(
                f"{self.device}: unauthorized: accept this computer's key on the device's screen", **known
            )
        return InfrastructureError(
            f"{self.device}: adb says {state!r}: a device that `adb devices` lists as 'device'", **known
        )

    def _adb(self, *words: str) -> Completed:
        argv = ["adb", *words]
        start = time.monotonic()
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_CALL_S, check=False
            )
        except FileNotFoundError as error:
            raise DeviceRefusedError(
                f"{self.device}: there is no adb on this machine: apt install adb, or platform-tools",
                device=self.device,
            ) from error
        except subprocess.TimeoutExpired as error:
            raise InfrastructureError(
                f"{self.device}: {shlex.join(argv)}: no answer in {_CALL_S:g} s: an adb server that answers",
                device=self.device,
                command=argv,
            ) from error
        return Completed(
            shlex.join(argv), done.returncode, done.stdout, done.stderr, time.monotonic() - start
        )
