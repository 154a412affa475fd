"""Everything that breaks, on real wires: what is said, that nothing is left, and that others are measured."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from boards import (
    Board,
    leftovers,
    need,
    pi_files,
    pi_tools,
    processes_of,
    recorded,
    ssh_board,
    start_sshd,
    stop,
)

from edgekit.device import measure as measuring
from edgekit.device import reservation
from edgekit.device.bench import bench
from edgekit.device.inventory import Device, Limits
from edgekit.device.measure import measure
from edgekit.device.profiles import Profile
from edgekit.device.transport import connection, ssh
from edgekit.errors import DeviceBusyError, DeviceJobError, DeviceRefusedError, InfrastructureError

SHORT = Profile("short", 2, 20, 0.0, 2.0, 2, 0.0)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_BACKOFF_S", 0.05)
    monkeypatch.setattr(connection.Transport, "connect_timeout_s", 4.0)
    monkeypatch.setattr(connection, "_GRACE_S", 2.0)


@pytest.fixture
def one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "LINK_ATTEMPTS", 1)


def described(board: Board, kind: str, name: str) -> Device:
    """A board whose benchmark_model prints a transcript."""
    tool = recorded(board, "bm", "benchmark_model.txt")
    return Device(
        name,
        kind,
        board.transport,
        runtimes=("benchmark_model",),
        tools={"benchmark_model": tool},
        base=str(board.base),
        limits=Limits(cool_down_s=0.0),
    )


@pytest.fixture
def phone(adb: Board) -> Iterator[Device]:
    yield described(adb, "android", "pixel")
    (adb.root / "mode").unlink(missing_ok=True)
    subprocess.run(["adb", "disconnect"], capture_output=True, check=True)
    assert leftovers(adb.base) == []


@pytest.fixture
def pi4(pi: Board) -> Iterator[Device]:
    yield described(pi, "raspberry_pi", "pi4-a")
    (pi.root / "slow").unlink(missing_ok=True)
    assert leftovers(pi.base) == []


@pytest.fixture
def model(models: dict[str, Path]) -> dict[str, Path]:
    return {"a": models["tflite-int8"]}


def once(text: str, then: Callable[[], object]) -> Callable[[str], None]:
    done: list[str] = []

    def say(line: str) -> None:
        if text in line and not done:
            done.append(line)
            then()

    return say


def test_an_android_board_is_measured(phone: Device, model: dict[str, Path]) -> None:
    result = measure(phone, model, SHORT)
    assert result.valid and result.content["files"]["a"]["figures"]["p50_ms"] == 42.405


def test_unauthorized_adb(adb: Board, phone: Device, model: dict[str, Path]) -> None:
    (adb.root / "mode").write_text("unauthorized")
    with pytest.raises(DeviceRefusedError, match="pixel: unauthorized: accept this computer's key"):
        measure(phone, model, SHORT)


def test_adb_that_stays_offline(adb: Board, phone: Device, model: dict[str, Path], one_attempt: None) -> None:
    (adb.root / "mode").write_text("offline")
    with pytest.raises(InfrastructureError, match="pixel: adb says"):
        measure(phone, model, SHORT)


def test_adb_that_is_offline_after_a_restart(adb: Board, phone: Device, model: dict[str, Path]) -> None:
    """The server still says "already connected": it has to be disconnected first."""
    (adb.root / "mode").write_text("offline")
    subprocess.run(["adb", "connect", phone.transport["serial"]], capture_output=True, check=True)
    (adb.root / "mode").write_text("ok")
    assert measure(phone, model, SHORT).valid


def test_adb_without_exit_codes(adb: Board, phone: Device, model: dict[str, Path]) -> None:
    (adb.root / "mode").write_text("v1")
    with pytest.raises(DeviceRefusedError, match="no shell_v2"):
        measure(phone, model, SHORT)


def test_a_dropped_push_is_pushed_again(adb: Board, phone: Device, tmp_path: Path) -> None:
    """The connection is cut after 64 KiB, once; a part of the file lies on the board then."""
    large = tmp_path / "model.tflite"
    large.write_bytes(bytes(500_000))
    (adb.root / "mode").write_text("drop_push")
    said: list[str] = []
    result = measure(phone, {"a": large}, SHORT, progress=said.append)
    assert result.valid and any(
        line.startswith("attempt 1 of 3: pixel: push of model.tflite") for line in said
    )


def test_a_shell_that_hangs(adb: Board, phone: Device, model: dict[str, Path], one_attempt: None) -> None:
    (adb.root / "mode").write_text("hang_shell")
    with pytest.raises(InfrastructureError, match="pixel: connect: no answer in 4 s"):
        measure(phone, model, SHORT)


def test_a_wrong_host_key(pi: Board, pi4: Device, model: dict[str, Path]) -> None:
    known = (pi.root / "known").read_text()
    other = subprocess.run(
        [need("ssh-keygen", "openssh-client"), "-y", "-f", str(pi.root / "client")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    (pi.root / "known").write_text(f"{known.split()[0]} {other[0]} {other[1]}\n")
    try:
        with pytest.raises(DeviceRefusedError, match=r"pi4-a: .*ssh-keygen -R board") as caught:
            measure(pi4, model, SHORT)
    finally:
        (pi.root / "known").write_text(known)
    assert caught.value.exit_code == 255 and "Host key verification failed" in caught.value.stderr


def test_a_key_that_is_not_accepted(pi: Board, pi4: Device, model: dict[str, Path]) -> None:
    accepted = (pi.root / "client.pub").read_text()
    (pi.root / "client.pub").write_text("")
    try:
        with pytest.raises(DeviceRefusedError, match="Permission denied: the key is not accepted"):
            measure(pi4, model, SHORT)
    finally:
        (pi.root / "client.pub").write_text(accepted)


def test_a_board_that_is_off(pi4: Device, model: dict[str, Path], tmp_path: Path) -> None:
    """Three failures in a row mark it bad; then it is not tried any more."""
    config = tmp_path / "config"
    config.write_text("Host board\n  HostName 127.0.0.1\n  Port 1\n")
    off = replace(pi4, id="off", transport={**pi4.transport, "config": str(config)})
    for _ in range(reservation.FAILURES_TO_BAD):
        with pytest.raises(InfrastructureError, match="Connection refused"):
            measure(off, model, SHORT)
    with pytest.raises(DeviceRefusedError, match="off: not in use: 3 failures in a row, bad since"):
        measure(off, model, SHORT)


def test_a_full_disk(model: dict[str, Path], tmp_path: Path) -> None:
    def small_disk(root: Path) -> str:
        return f"mount -t tmpfs -o size=64k tmpfs {root}/base"

    large = tmp_path / "model.tflite"
    large.write_bytes(bytes(500_000))
    with ssh_board(small_disk) as board:
        device = described(board, "raspberry_pi", "pi-full")
        with pytest.raises(DeviceRefusedError, match=r"no space for model.tflite: 500000 bytes"):
            measure(device, {"a": large}, SHORT)
        assert board.server is not None
        assert leftovers(Path(f"/proc/{board.server.pid}/root{board.base}")) == []
        assert processes_of(board.base) == []


def test_a_board_that_reboots_in_the_middle(model: dict[str, Path]) -> None:
    """Every process of the board is gone at once; the next attempt sweeps what they left and measures."""
    with ssh_board(pi_files) as board:
        pi_tools(board)
        device = described(board, "raspberry_pi", "pi-reboot")
        port = int((board.root / "sshd_config").read_text().split("Port ")[1].split()[0])
        left: list[list[str]] = []

        def reboot() -> None:
            assert board.server is not None
            for pid in [board.server.pid, *descendants(board.server.pid)]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            board.server.wait()
            left.append(sorted(path.name for path in board.base.iterdir()))
            board.server = start_sshd(need("sshd", "openssh-server"), board.root, port, pi_files(board.root))

        said: list[str] = []
        hook = once("process 2", reboot)

        def say(line: str) -> None:
            said.append(line)
            hook(line)

        try:
            assert measure(device, model, SHORT, progress=say).valid
            assert left[0][0].startswith("edgekit-2") and left[0][-1] == "edgekit-lock"
            assert any(line.startswith("attempt 1 of 3") for line in said)
            assert leftovers(board.base) == []
        finally:
            assert board.server is not None
            stop(board.server)


def descendants(pid: int) -> list[int]:
    """Every process below `pid`, the deepest last."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


def test_a_command_that_never_ends(pi: Board, pi4: Device, model: dict[str, Path]) -> None:
    slow = replace(pi4, limits=Limits(wall_time_s=1.0, cool_down_s=0.0))
    said = once("process 1", lambda: (pi.root / "slow").write_text("600"))
    with pytest.raises(DeviceJobError, match="no end after 1 s"):
        measure(slow, model, SHORT, progress=said)


def test_two_users_of_one_board(pi4: Device, model: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """On this machine the first lock says who; from another machine the board's own lock does."""
    with reservation.reserve(pi4, "first"):
        with pytest.raises(DeviceBusyError, match=r"held on this machine by .*@.* since .*, run first"):
            measure(pi4, model, SHORT)
        monkeypatch.setenv("EDGEKIT_CACHE", os.environ["EDGEKIT_CACHE"] + "-of-another")
        with pytest.raises(DeviceBusyError, match=r"pi4-a: busy, held by .*@.* since .*, run first"):
            measure(pi4, model, SHORT)
        with pytest.raises(DeviceBusyError, match="--force to end that run"):
            reservation.unlock(pi4)
        assert "taken from" in reservation.unlock(pi4, force=True)
    assert measure(pi4, model, SHORT).valid
    assert reservation.unlock(pi4) == "pi4-a: free"


def test_one_board_fails_and_the_others_are_measured(
    adb: Board, pi4: Device, phone: Device, model: dict[str, Path], tmp_path: Path
) -> None:
    (adb.root / "mode").write_text("unauthorized")
    here = Device("host", "host", {"type": "local"}, python=sys.executable)
    found = bench([phone, pi4, here], model, tmp_path / "out", profile=SHORT)
    assert [o.device.id for o in found] == ["pixel", "pi4-a", "host"]
    assert isinstance(found[0].error, DeviceRefusedError) and found[0].result is None
    assert all(o.result is not None and o.result.valid and o.path and o.path.exists() for o in found[1:])
    names = sorted(path.name.split("-2")[0] for path in (tmp_path / "out").glob("*.json"))
    assert names == ["host", "pi4-a"]


@pytest.fixture
def wire() -> Iterator[tuple[str, str, str]]:
    """(network namespace, our end of its link, its address): a cable that can be pulled."""
    name = f"ek{os.getpid() % 10000}"
    commands = [
        f"ip netns add {name}",
        f"ip link add {name}a type veth peer name {name}b netns {name}",
        f"ip addr add 10.213.7.1/30 dev {name}a",
        f"ip link set {name}a up",
        f"ip -n {name} addr add 10.213.7.2/30 dev {name}b",
        f"ip -n {name} link set {name}b up",
        f"ip -n {name} link set lo up",
    ]
    try:
        for command in commands:
            done = subprocess.run(command.split(), capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"network namespaces are not allowed here: {done.stderr.strip()}")
        yield name, f"{name}a", "10.213.7.2"
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


def test_a_link_that_goes_down(
    wire: tuple[str, str, str], model: dict[str, Path], monkeypatch: pytest.MonkeyPatch, one_attempt: None
) -> None:
    """Nobody can tell the board that we are gone: it notices the silence."""
    namespace, ours, address = wire
    monkeypatch.setattr(connection, "BEAT_LIMIT_S", 3)
    monkeypatch.setattr(ssh.SshTransport, "alive_interval_s", 1)
    monkeypatch.setattr(ssh.SshTransport, "alive_count", 2)
    with ssh_board(prefix=["ip", "netns", "exec", namespace], address=address) as board:
        device = described(board, "raspberry_pi", "pi-wire")
        (board.root / "slow").write_text("30")
        pull = once("process 1", lambda: subprocess.run(["ip", "link", "set", ours, "down"], check=True))
        began = time.monotonic()
        with pytest.raises(InfrastructureError, match="pi-wire"):
            measure(device, model, SHORT, progress=pull)
        assert leftovers(board.base, 15.0) == []
        assert time.monotonic() - began < 60
