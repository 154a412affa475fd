"""What all transports share: a keeper process on the board, guarded commands, pushes that are verified.

The keeper (keeper.sh) is one process on the board whose standard input is our connection. It owns the lock
and the work directory and removes both, and kills what was started, when the connection closes or falls
silent: a client that was killed or a link that went down leaves nothing behind. Every command runs under
guard.sh in a process group of its own. A subclass says how words are run on its board and what its program's
errors mean.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import IO, Self

from edgekit.bundle import safe_name
from edgekit.device.transport.keeper import BEAT_LIMIT_S, Keeper, parse_owner
from edgekit.errors import DeviceBusyError, DeviceJobError, DeviceRefusedError, InfrastructureError

_GRACE_S = 5.0
_GUARD_MARGIN_S = 60
_POLL_S = 0.2
# Gives a file that arrived its name, if it is the one that was sent.
_PLACE = '''sum=$(sha256sum "$1") || exit; [ "${sum%% *}" = "$3" ] && mv "$1" "$2"'''
_SCRIPTS = files("edgekit.device.transport")


@dataclass(frozen=True)
class Completed:
    """A command that ended on the board."""

    command: str
    exit_code: int
    out: str
    err: str
    seconds: float


class Stream:
    """A command that runs beside others, e.g. a sampler; `stop()` ends it and returns what it printed."""

    def __init__(self, process: subprocess.Popen[bytes], stdin: int, out: IO[bytes]) -> None:
        self._process, self._stdin, self._out = process, stdin, out

    def stop(self) -> str:
        """End the command on the board; its standard output so far."""
        os.close(self._stdin)
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with self._out:
            self._out.seek(0)
            return self._out.read().decode(errors="replace")


class Transport:
    """One board's connection. State: its keeper, its work directory, what was pushed there."""

    default_base = "/tmp"
    connect_timeout_s = 30.0

    def __init__(self, device: str, base: str | None = None) -> None:
        self.device = device
        self.base = base or self.default_base
        self.beat_limit_s = BEAT_LIMIT_S
        self.work = ""
        self.boot = ""
        self._pushed: dict[str, str] = {}
        self._keeper: Keeper | None = None

    # -- what a subclass says ---------------------------------------------------------------------------

    def argv(self, words: Sequence[str]) -> list[str]:
        """The local command that runs `words` on the board, joined to our standard streams."""
        raise NotImplementedError

    def keeper_argv(self, words: Sequence[str]) -> list[str]:
        """The same for the keeper, which is the first command of a connection."""
        return self.argv(words)

    def prepare(self) -> None:
        """What has to be done before the first command."""

    def explain(self, exit_code: int, stderr: str) -> InfrastructureError | None:
        """The error when the program that carries the command failed, not the command."""
        return None

    def copy_in(self, local: Path, remote: str) -> Completed:
        """Copy a file to the board; may leave a part of it there."""
        with open(local, "rb") as file:
            return self._plain(["sh", "-c", 'cat >"$1"', "push", remote], file)

    def copy_out(self, remote: str, local: Path) -> Completed:
        """Copy a file from the board; may leave a part of it here."""
        with open(local, "wb") as file:
            return self._plain(["cat", remote], None, file)

    # -- the connection -----------------------------------------------------------------------------------

    def connect(self, run: str, who: str, *, lock: bool = True, wait_s: float = 0.0) -> Self:
        """Start the keeper: take the board, sweep what others left, make the work directory.

        Args:
            run: name of the run; the work directory is BASE/edgekit-RUN.
            who: what a lock tells others, e.g. "anna@bench since 14:03".
            lock: False for commands that only look.
            wait_s: how long to wait for a board that someone holds.
        Raises: DeviceBusyError when it is still held; InfrastructureError when the board is not reached.
        """
        until = time.monotonic() + wait_s
        while True:
            try:
                self._connect(safe_name(run, "run"), who, lock)
                return self
            except DeviceBusyError:
                if time.monotonic() >= until:
                    raise
                time.sleep(min(1.0, max(0.0, until - time.monotonic())))

    def _connect(self, run: str, who: str, lock: bool) -> None:
        self.prepare()
        self._pushed = {}
        words = [self.base, run, who, str(int(lock)), str(self.beat_limit_s)]
        command = ["sh", "-c", _script("keeper.sh"), "edgekit-keeper", *words]
        self._keeper = Keeper(self.keeper_argv(command), self.beat_limit_s)
        first = self._keeper.first_line(self.connect_timeout_s)
        kind, _, rest = (first or "end").partition(" ")
        if kind == "ready":
            self.boot, _, self.work = rest.partition(" ")
            self._keeper.beat()
            return
        stderr, code = self._drop()
        if kind == "busy":
            owner = parse_owner(rest)
            held = f"{owner.who}, run {owner.run}" if owner else rest or "unknown"
            raise DeviceBusyError(
                f"{self.device}: busy, held by {held}: wait with --wait SECONDS, or "
                f"`edgekit devices unlock {self.device} --force`",
                device=self.device,
            )
        if kind == "error":
            raise DeviceRefusedError(
                f"{self.device}: {rest}: a base directory of yours in the inventory", device=self.device
            )
        raise self._failure("connect", code, stderr or f"no answer in {self.connect_timeout_s:g} s")

    def _drop(self) -> tuple[str, int]:
        """End the keeper, waiting for it to clean up; its standard error and exit code."""
        keeper, self._keeper = self._keeper, None
        return keeper.end(_GRACE_S) if keeper is not None else ("", 0)

    @property
    def lost(self) -> bool:
        """The keeper ended, or the board has been silent for too long."""
        return self._keeper is None or self._keeper.lost

    def close(self) -> None:
        """Give the board back; what the keeper owns there is removed."""
        self._drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    # -- commands -----------------------------------------------------------------------------------------

    def run(self, argv: Sequence[str], *, timeout: float = 60.0, check: bool = False) -> Completed:
        """Run a command in the work directory.

        Raises: InfrastructureError when the link or the board failed; DeviceJobError when it took longer than
            `timeout` seconds or, with `check`, ended with another exit code than 0.
        """
        start, timed_out = time.monotonic(), False
        process, stdin = self._start(argv, timeout, subprocess.PIPE, subprocess.PIPE)
        try:
            while True:
                try:
                    out, err = process.communicate(timeout=_POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    if self.lost:
                        break
                    if time.monotonic() - start > timeout:
                        timed_out = True
                        break
        finally:
            os.close(stdin)
        if timed_out or process.returncode is None:
            try:
                out, err = process.communicate(timeout=_GRACE_S if timed_out else 1.0)
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = process.communicate()
        text, stderr = out.decode(errors="replace"), err.decode(errors="replace")
        done = Completed(shlex.join(argv), process.returncode, text, stderr, time.monotonic() - start)
        self._judge(done, timeout if timed_out else None, check)
        return done

    def stream(self, argv: Sequence[str], *, limit_s: float) -> Stream:
        """Start a command that runs beside others for at most `limit_s` seconds."""
        out = tempfile.TemporaryFile()  # noqa: SIM115 (closed by Stream.stop)
        process, stdin = self._start(argv, limit_s, out, subprocess.DEVNULL)
        return Stream(process, stdin, out)

    def push(self, local: str | os.PathLike[str], name: str | None = None) -> str:
        """Put a file into the work directory; the path there. A file with the same content stays.

        Raises: InfrastructureError when what arrived is not what was sent; DeviceRefusedError when the
            board's disk is full.
        """
        path = Path(local)
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        remote = f"{self.work}/{name or f'{digest[:16]}-{safe_name(path.name)}'}"
        if self._pushed.get(remote) == digest:
            return remote
        self._alive(f"push of {path.name}")
        copied = self.copy_in(path, f"{remote}.part")
        try:
            placed = self.run(["sh", "-c", _PLACE, "place", f"{remote}.part", remote, digest])
        except InfrastructureError as error:
            said = (copied.err.strip() or copied.out.strip() or str(error)).splitlines()[-1][:300]
            raise InfrastructureError(
                f"{self.device}: push of {path.name}: {said}: a link that lasts",
                device=self.device,
                command=copied.command,
                exit_code=copied.exit_code,
                stderr=copied.err,
            ) from error
        if placed.exit_code:
            said = copied.err.strip() or copied.out.strip() or placed.err.strip()
            if "o space left" in said:
                raise DeviceRefusedError(
                    f"{self.device}: no space for {path.name}: {path.stat().st_size} bytes in {self.base}",
                    device=self.device,
                    command=copied.command,
                    exit_code=copied.exit_code,
                    stderr=said,
                )
            raise self._failure(
                f"push of {path.name}", copied.exit_code, said or "it was cut short", copied.command
            )
        self._pushed[remote] = digest
        return remote

    def pull(self, name: str, local: str | os.PathLike[str]) -> Path:
        """Fetch a file of the work directory, verified, whole or not at all."""
        path = Path(local)
        remote = name if name.startswith("/") else f"{self.work}/{name}"
        wanted = self._sha256(remote)
        if wanted is None:
            raise DeviceJobError(
                f"{self.device}: there is no {remote}: a file that was written", device=self.device
            )
        part = path.with_name(f".{path.name}.part")
        try:
            done = self.copy_out(remote, part)
            with open(part, "rb") as file:
                arrived = hashlib.file_digest(file, "sha256").hexdigest()
            if arrived != wanted:
                raise self._failure(
                    f"pull of {name}", done.exit_code, done.err.strip() or "cut short", done.command
                )
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        return path

    def _sha256(self, remote: str) -> str | None:
        done = self.run(["sha256sum", remote])
        if done.exit_code in (126, 127):
            raise DeviceRefusedError(
                f"{self.device}: there is no sha256sum: coreutils or toybox", device=self.device
            )
        word = done.out.split(" ", 1)[0]
        return word if done.exit_code == 0 and len(word) == 64 else None

    def _start(
        self, argv: Sequence[str], limit_s: float, stdout: int | IO[bytes], stderr: int
    ) -> tuple[subprocess.Popen[bytes], int]:
        """The guarded command and the end of its standard input that keeps it alive."""
        self._alive(shlex.join(argv))
        guarded = [self.work, str(int(limit_s) + _GUARD_MARGIN_S), *argv]
        command = self.argv(["sh", "-c", _script("guard.sh"), "edgekit-guard", *guarded])
        reader, writer = os.pipe()
        try:
            return subprocess.Popen(command, stdin=reader, stdout=stdout, stderr=stderr), writer
        except BaseException:
            os.close(writer)
            raise
        finally:
            os.close(reader)

    def _plain(
        self, words: Sequence[str], stdin: IO[bytes] | None, stdout: IO[bytes] | None = None
    ) -> Completed:
        """Run words without a guard: their standard input is data. A dropped link ends them by itself."""
        return self._local(self.argv(words), stdin, stdout)

    def _local(
        self, argv: Sequence[str], stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None
    ) -> Completed:
        start = time.monotonic()
        with tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as kept:
            process = subprocess.Popen(
                argv, stdin=stdin or subprocess.DEVNULL, stdout=stdout or kept, stderr=err
            )
            while True:
                try:
                    code = process.wait(_POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    if self._keeper is not None and self.lost:
                        process.kill()
                        code = process.wait()
                        break
            err.seek(0)
            kept.seek(0)
            out, text = kept.read().decode(errors="replace"), err.read().decode(errors="replace")
        return Completed(shlex.join(argv), code, out, text, time.monotonic() - start)

    def _alive(self, doing: str) -> None:
        if self._keeper is None or self.lost:
            stderr, code = self._drop()
            raise self._failure(doing, code, stderr or "the connection was lost")

    def _judge(self, done: Completed, timeout: float | None, check: bool) -> None:
        if timeout is not None:
            error: Exception = DeviceJobError(
                f"{self.device}: {_short(done.command)}: no end after {timeout:g} s: a job that fits in it",
                device=self.device,
                command=done.command,
                exit_code=done.exit_code,
                stderr=done.err,
            )
            if self.lost:
                error = self._failure(_short(done.command), done.exit_code, "the connection was lost")
            raise error
        if self.lost or done.exit_code == 125:
            stderr, _ = self._drop()
            reason = done.err.strip() or stderr or "the connection was lost"
            raise self._failure(_short(done.command), done.exit_code, reason, done.command)
        explained = self.explain(done.exit_code, done.err)
        if explained is not None:
            raise explained
        if check and done.exit_code:
            last = (done.err.strip() or done.out.strip() or "no message").splitlines()[-1][:300]
            raise DeviceJobError(
                f"{self.device}: {_short(done.command)} ended with {done.exit_code} ({last}): 0",
                device=self.device,
                command=done.command,
                exit_code=done.exit_code,
                stderr=done.err,
            )

    def _failure(self, doing: str, exit_code: int, reason: str, command: str = "") -> InfrastructureError:
        explained = self.explain(exit_code, reason)
        if explained is not None:
            return explained
        last = (reason.strip() or "no message").splitlines()[-1][:300]
        return InfrastructureError(
            f"{self.device}: {doing}: {last}: a board that is on and reachable",
            device=self.device,
            command=command,
            exit_code=exit_code,
            stderr=reason,
        )


def _script(name: str) -> str:
    return (_SCRIPTS / name).read_text()


def _short(command: str) -> str:
    return command if len(command) <= 60 else f"{command[:57]}..."
