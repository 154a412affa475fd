"""One suite over every transport: commands, files, locks, and what is left when the client is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from boards import Board, leftovers, processes_of

from edgekit.device.transport import Transport, open_transport
from edgekit.errors import DeviceBusyError, DeviceJobError, DeviceRefusedError, InfrastructureError

WHO = "anna@bench since 14:03"


def connect(board: Board, run: str = "r1", **options: object) -> Transport:
    transport = open_transport("board-a", board.transport, str(board.base))
    return transport.connect(run, WHO, **options)  # type: ignore[arg-type]


def test_a_command_gives_its_exit_code_and_both_streams(board: Board) -> None:
    with connect(board) as transport:
        done = transport.run(["sh", "-c", 'echo "$1"; echo no >&2; exit 3', "x", "a b 'c' $d"])
    assert (done.exit_code, done.out, done.err) == (3, "a b 'c' $d\n", "no\n")


def test_a_checked_command_keeps_what_failed(board: Board) -> None:
    with (
        connect(board) as transport,
        pytest.raises(DeviceJobError, match=r"board-a: .* ended with 4") as caught,
    ):
        transport.run(["sh", "-c", "echo why >&2; exit 4"], check=True)
    assert (caught.value.exit_code, caught.value.stderr, caught.value.device) == (4, "why\n", "board-a")


def test_files_travel_whole_and_once(board: Board, tmp_path: Path) -> None:
    source = tmp_path / "model with space.tflite"
    source.write_bytes(np.random.default_rng(0).bytes(300_000))
    with connect(board) as transport:
        remote = transport.push(source)
        copies = []
        original = transport.copy_in
        transport.copy_in = lambda *a: copies.append(a) or original(*a)  # type: ignore[method-assign]
        assert transport.push(source) == remote and copies == []
        assert transport.pull(remote, tmp_path / "back").read_bytes() == source.read_bytes()
        assert remote.startswith(f"{board.base}/edgekit-r1/")
        with pytest.raises(DeviceJobError, match="there is no"):
            transport.pull("absent", tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


def test_a_full_disk_is_said(board: Board, tmp_path: Path) -> None:
    """What `cat` says on a board whose disk is full."""
    source = tmp_path / "m.bin"
    source.write_bytes(bytes(1000))
    with connect(board) as transport:
        transport.copy_in = lambda _, remote: transport._plain(
            ["sh", "-c", "cat /etc/passwd >/dev/full"], None
        )  # type: ignore[method-assign]
        with pytest.raises(DeviceRefusedError, match=r"no space for m.bin: 1000 bytes"):
            transport.push(source)


def test_a_push_that_is_cut_short_is_no_file(board: Board, tmp_path: Path) -> None:
    source = tmp_path / "m.bin"
    source.write_bytes(bytes(100_000))
    short = tmp_path / "short"
    short.write_bytes(bytes(60_000))
    with connect(board) as transport:
        original = transport.copy_in
        transport.copy_in = lambda _, remote: original(short, remote)  # type: ignore[method-assign]
        with pytest.raises(InfrastructureError, match=r"push of m.bin"):
            transport.push(source, "m.bin")
        assert transport.run(["test", "-e", f"{transport.work}/m.bin"]).exit_code == 1


def test_a_command_over_its_time_is_ended_there(board: Board) -> None:
    with connect(board) as transport:
        with pytest.raises(DeviceJobError, match=r"no end after 0.5 s"):
            transport.run(["sh", "-c", "trap '' TERM; sleep 100 & wait; sleep 100"], timeout=0.5)
        until = time.monotonic() + 8
        while time.monotonic() < until and any("sleep 100" in p for p in processes_of(board.base)):
            time.sleep(0.1)
        assert not any("sleep 100" in process for process in processes_of(board.base))


def test_a_sampler_runs_beside_a_command(board: Board) -> None:
    with connect(board) as transport:
        sampler = transport.stream(["sh", "-c", "while :; do echo tick; sleep 0.1; done"], limit_s=30)
        transport.run(["sleep", "0.5"])
        assert sampler.stop().count("tick") >= 2


def test_a_board_has_one_user_and_says_who(board: Board) -> None:
    with connect(board):
        with pytest.raises(DeviceBusyError, match="board-a: busy, held by anna@bench since 14:03, run r1"):
            connect(board, "r2")
        with connect(board, "looking", lock=False) as visitor:
            assert visitor.run(["true"]).exit_code == 0
    with connect(board, "r2"):
        pass


def test_waiting_for_a_board_gets_it_when_it_is_free(board: Board) -> None:
    import threading

    first = connect(board)
    threading.Timer(0.3, first.close).start()
    with connect(board, "r2", wait_s=20.0) as second:
        assert second.work.endswith("edgekit-r2")


def test_only_what_carries_our_sentinel_is_removed(board: Board) -> None:
    other = board.base / "edgekit-notes"
    other.mkdir()
    (other / "keep").write_text("mine")
    odd = board.base / "edgekit-odd"
    odd.mkdir()
    (odd / ".edgekit").write_text("edgekit another\n999999 1 x\n")
    try:
        with connect(board):
            pass
        assert (other / "keep").read_text() == "mine" and odd.exists()
    finally:
        for path in (other / "keep", odd / ".edgekit"):
            path.unlink()
        other.rmdir()
        odd.rmdir()


def test_what_a_power_cut_left_is_swept_by_the_next(board: Board) -> None:
    """A lock and a directory of a keeper that is no more, from another boot and from this one."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for run, owner in (("old", "1 2 other-boot"), ("new", f"999999 5 {boot}")):
        left = board.base / f"edgekit-{run}"
        (left / "groups").mkdir(parents=True)
        (left / ".edgekit").write_text(f"edgekit {run}\n{owner}\n")
    (board.base / "edgekit-lock").symlink_to("1 2 other-boot old ben@home since 09:00")
    with connect(board):
        assert sorted(p.name for p in board.base.iterdir()) == ["edgekit-lock", "edgekit-r1"]


CLIENT = """
import json, sys, time
from edgekit.device.transport import open_transport
settings, base = json.loads(sys.argv[1])
transport = open_transport("board-a", settings, base)
transport.connect("killed", "ben@home since 14:00")
stream = transport.stream(["sh", "-c", "trap '' TERM HUP; while :; do sleep 1; done"], limit_s=600)
print("up", flush=True)
transport.run(["sleep", "600"], timeout=600)
"""


def test_a_killed_client_leaves_nothing_on_the_board(board: Board) -> None:
    job = json.dumps([board.transport, str(board.base)])
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, job], stdout=subprocess.PIPE, env=dict(os.environ)
    )
    assert client.stdout is not None and client.stdout.readline() == b"up\n"
    time.sleep(0.3)
    with pytest.raises(DeviceBusyError, match="ben@home"):
        connect(board)
    client.send_signal(signal.SIGKILL)
    client.wait()
    client.stdout.close()
    assert leftovers(board.base) == []


def test_a_silent_client_loses_the_board(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client whose link is down cannot close anything: the board notices that no line comes any more."""
    transport = open_transport("board-a", board.transport, str(board.base))
    transport.beat_limit_s = 1
    monkeypatch.setattr("edgekit.device.transport.keeper.Keeper._beat", lambda _: None)
    transport.connect("silent", WHO)
    stream = transport.stream(["sleep", "600"], limit_s=600)
    assert leftovers(board.base) == []
    with pytest.raises(InfrastructureError, match="board-a"):
        transport.run(["true"])
    stream.stop()
    transport.close()


def test_clocks_are_put_back_when_a_session_ends(board: Board) -> None:
    """`undo` in the work directory runs at the end, whatever the end."""
    mark = board.root / "undone"
    transport = connect(board)
    transport.run(["sh", "-c", f"echo 'echo yes >{mark}' >undo"], check=True)
    transport.close()
    assert leftovers(board.base) == [] and mark.read_text() == "yes\n"
    mark.unlink()
