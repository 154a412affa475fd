"""Stand-ins for boards: a real sshd on loopback, with a Raspberry Pi's files where that is allowed."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

IN_CI = bool(os.environ.get("EDGEKIT_CI"))


def missing(what: str) -> None:
    """Skip for something this machine lacks; on the project's own machines its absence is a failure."""
    if IN_CI:
        pytest.fail(f"{what}, and EDGEKIT_CI is set: install it")
    pytest.skip(what)


def need(program: str, package: str) -> str:
    """The path of a program of a Debian package."""
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        missing(f"{program} is not installed: apt install {package}")
    assert path is not None
    return path


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def processes_of(base: Path) -> list[str]:
    """Processes that name `base` in their arguments, or run in it: what a session must not leave behind."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            where = os.readlink(entry / "cwd")
        except OSError:
            continue
        session = "edgekit-keeper" in words or "edgekit-guard" in words
        if (session and str(base) in words) or where.startswith(str(base / "edgekit-")):
            found.append(f"{entry.name} {words[-120:]}")
    return found


def leftovers(base: Path, wait_s: float = 8.0) -> list[str]:
    """What is still there of sessions in `base` once they had a moment to end: [] is what we want."""
    until = time.monotonic() + wait_s
    while True:
        left = [*processes_of(base), *sorted(p.name for p in base.glob("edgekit-*"))]
        if not left or time.monotonic() > until:
            return left
        time.sleep(0.1)


@dataclass
class Board:
    """A board to test with: how the inventory describes it and where its side of things lies."""

    transport: dict[str, Any]
    base: Path
    root: Path
    tools: Path
    env: dict[str, str] = field(default_factory=dict)
    server: subprocess.Popen[bytes] | None = None


@contextmanager
def local_board() -> Iterator[Board]:
    with tempfile.TemporaryDirectory(prefix="ek-local-") as folder:
        base = Path(folder, "base")
        base.mkdir()
        yield Board({"type": "local"}, base, Path(folder), Path(folder))


# SHLVL: bash under sshd reads ~/.bashrc at level 1, and a board has none of this machine's
_SSHD = """\
ListenAddress {address}
Port {port}
HostKey {root}/host
AuthorizedKeysFile {root}/client.pub
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PermitRootLogin yes
SetEnv PATH={tools}:{path} SHLVL=2
"""
_CLIENT = """\
Host board
    HostName {address}
    Port {port}
    User {user}
    IdentityFile {root}/client
    IdentitiesOnly yes
    UserKnownHostsFile {root}/known
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
"""


@contextmanager
def ssh_board(
    files: Callable[[Path], str] = lambda root: "",
    prefix: Sequence[str] = (),
    address: str = "127.0.0.1",
) -> Iterator[Board]:
    """A real OpenSSH server of our own, on loopback or at another address.

    `files` writes under the board's root and returns shell that runs in the server's mount namespace;
    `prefix` is a command that runs the server.
    """
    sshd, keygen = need("sshd", "openssh-server"), need("ssh-keygen", "openssh-client")
    with tempfile.TemporaryDirectory(prefix="ek-ssh-") as folder:
        root = Path(folder)
        for name in ("base", "tools"):
            (root / name).mkdir()
        for name in ("host", "client"):
            subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", root / name], check=True)
        port = free_port()
        values = {
            "port": port,
            "root": root,
            "tools": root / "tools",
            "user": getpass.getuser(),
            "path": os.environ["PATH"],
            "address": address,
        }
        (root / "sshd_config").write_text(_SSHD.format(**values))
        (root / "ssh_config").write_text(_CLIENT.format(**values))
        key = (root / "host.pub").read_text().split()
        (root / "known").write_text(f"[{address}]:{port} {key[0]} {key[1]}\n")
        server = start_sshd(sshd, root, port, files(root), prefix, address)
        board = Board(
            {"type": "ssh", "host": "board", "config": str(root / "ssh_config")},
            root / "base",
            root,
            root / "tools",
            server=server,
        )
        try:
            yield board
        finally:
            stop(server)


@contextmanager
def adb_board() -> Iterator[Board]:
    """Our device side of adb on TCP and an adb server of our own, so that the user's is left alone."""
    adb = need("adb", "adb")
    with tempfile.TemporaryDirectory(prefix="ek-adb-") as folder:
        root = Path(folder).resolve()
        for name in ("base", "tools", "home"):
            (root / name).mkdir()
        port, server_port = free_port(), free_port()
        while 5550 <= port <= 5590:  # where adb looks for emulators by itself
            port = free_port()
        # HOME: where adb keeps its keys
        env = {"ANDROID_ADB_SERVER_PORT": str(server_port), "HOME": str(root / "home")}
        board = Board(
            {"type": "adb", "serial": f"127.0.0.1:{port}"}, root / "base", root, root / "tools", env=env
        )
        board.server = start_adbd(root, port)
        try:
            yield board
        finally:
            subprocess.run([adb, "kill-server"], env=os.environ | env, capture_output=True, timeout=20)
            stop(board.server)


def start_adbd(root: Path, port: int) -> subprocess.Popen[bytes]:
    script = Path(__file__).with_name("adbd.py")
    with open(root / "adbd.log", "wb") as log:
        server = subprocess.Popen(
            [sys.executable, str(script), str(root), str(port)], stdout=subprocess.PIPE, stderr=log
        )
    assert server.stdout is not None
    assert server.stdout.readline() == b"listening\n", (root / "adbd.log").read_text()
    server.stdout.close()
    return server


def start_sshd(
    sshd: str,
    root: Path,
    port: int,
    setup: str = "",
    prefix: Sequence[str] = (),
    address: str = "127.0.0.1",
) -> subprocess.Popen[bytes]:
    command = [*prefix, sshd, "-D", "-e", "-f", str(root / "sshd_config")]
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd drops its privileges
    if setup:
        inside = f'set -e; {setup}\nexec "$@"'
        command = [*namespace(), "sh", "-c", inside, "board", *command]
    with open(root / "sshd.log", "wb") as log:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    until = time.monotonic() + 10
    while time.monotonic() < until and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((address, port)) == 0:
                return server
        time.sleep(0.05)
    stop(server)
    raise RuntimeError((root / "sshd.log").read_text())


def namespace() -> list[str]:
    """A private mount namespace, where this machine allows one."""
    command = ["unshare", "-m"] if os.getuid() == 0 else ["unshare", "-Urm"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        missing("mount namespaces are not allowed here")
    return command


def stop(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


_VCGENCMD = """\
#!/bin/sh
case $1 in
get_throttled) echo "throttled=$(cat {root}/throttled)" ;;
measure_temp) echo "temp=48.3'C" ;;
version) echo "Aug 30 2024 19:17:39"; echo "version 2808975b80149bbfe86844655fe45c7de66fc078 (release)" ;;
*) exit 1 ;;
esac
"""


def pi_files(root: Path) -> str:
    """A Raspberry Pi's /sys under `root`; the shell that binds it over a namespace's own."""
    sys_root = root / "sys"
    zone = "class/thermal/thermal_zone0"
    content = {f"{zone}/temp": "48312", f"{zone}/type": "cpu-thermal"}
    content["firmware/devicetree/base/model"] = "Raspberry Pi 4 Model B Rev 1.4\0"
    for cpu in range(4):
        folder = f"devices/system/cpu/cpu{cpu}"
        content |= {
            f"{folder}/cpufreq/scaling_governor": "ondemand",
            f"{folder}/cpufreq/scaling_cur_freq": "1800000",
            f"{folder}/cpufreq/cpuinfo_max_freq": "1800000",
            f"{folder}/cpufreq/cpuinfo_min_freq": "600000",
            f"{folder}/topology/physical_package_id": "0",
            f"{folder}/topology/core_id": str(cpu),
            f"{folder}/topology/core_siblings": "f",
            f"{folder}/topology/core_siblings_list": "0-3",
        }
    content |= {f"devices/system/cpu/{name}": "0-3" for name in ("possible", "present", "online")}
    for name, text in content.items():
        (sys_root / name).parent.mkdir(parents=True, exist_ok=True)
        (sys_root / name).write_text(text if text.endswith("\0") else f"{text}\n")
    (root / "throttled").write_text("0x0\n")
    return f"mount --bind {sys_root} /sys"


def pi_tools(board: Board) -> None:
    path = board.tools / "vcgencmd"
    path.write_text(_VCGENCMD.format(root=board.root))
    path.chmod(0o755)


def recorded(board: Board, name: str, transcript: str) -> str:
    """A tool on the board that prints a transcript, after as many seconds as the file `slow` says."""
    path = board.tools / name
    (board.root / transcript).write_text((Path(__file__).parent / "transcripts" / transcript).read_text())
    path.write_text(
        f"#!/bin/sh\nsleep $(cat {board.root}/slow 2>/dev/null || echo 0)\ncat {board.root}/{transcript}\n"
    )
    path.chmod(0o755)
    return str(path)
