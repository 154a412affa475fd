"""Ctrl-C: boards are free, the report says what is missing, the run goes on later; twice stops at once."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from boards import leftovers, local_board, ssh_board
from boards_shelf import Shelf

from edgekit.device.reservation import host_owner
from edgekit.farm import state

Make = Callable[..., Shelf]
MAIN = "from edgekit.cli.main import main; main()"
MODEL = Path(__file__).parents[1] / "device" / "models" / "tflite-int8" / "model.tflite"


def start(made: Shelf, environment: dict[str, str], *more: str) -> subprocess.Popen[str]:
    """A client in a process group of its own, as a shell starts it."""
    place = ["--inventory", str(made.inventory()), "--out", str(made.out), "--device", made.boards[0]]
    words = [*map(str, made.models), *place, *(w for board in made.boards[1:] for w in ("--device", board))]
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, "farm", "run", *words, *more],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
    )


def wait(client: subprocess.Popen[str], what: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not what():
        assert time.monotonic() < until
        assert client.poll() is None, client.communicate()
        time.sleep(0.05)


def measuring(base: Path) -> bool:
    """A process of a board under `base` is at work on the model."""
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            program, _, words = place.read_bytes().partition(b"\0")
            if b"python" in program and bytes(base) in words and b'"mode": "measure"' in words:
                return True
    return False


def test_what_is_finished_is_reported_and_the_rest_goes_on(shelf: Make, environment: dict[str, str]) -> None:
    """The inventory, the models and the boards need not be given again."""
    made = shelf(2, 5, ms=200.0)
    client = start(made, environment)
    assert client.stderr is not None and "valid" in client.stderr.readline()
    client.send_signal(signal.SIGINT)
    shown, said = client.communicate(timeout=60)
    assert client.returncode == 130 and "Traceback" not in said
    kept = state.read(made.out)[1]
    report = json.loads((made.out / "report.json").read_text())
    missing = 10 - len(kept)
    assert 1 <= len(kept) < 10 and report["interrupted"] and report["unfinished"]["jobs"] == missing
    assert report["counts"]["valid"] == len(kept) and report["counts"]["not run"] == missing
    last = said.splitlines()[-1]
    assert f"{missing} of 10 jobs are missing" in last
    page = re.sub("<.*?>", "", (made.out / "report.html").read_text())
    assert f"{missing} of 10 jobs are missing: {report['unfinished']['command']} goes on" in page
    assert f"Interrupted. {len(kept)} of 10 jobs gave valid figures, {missing} not run." in shown
    words = [sys.executable, "-c", MAIN, "farm", "status", "--out", str(made.out)]
    status = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60).stdout
    assert f"{len(kept)} jobs ended, {missing} left, over: `edgekit farm run --resume" in status
    command = shlex.split(re.findall("`edgekit (.*)`", last)[0])
    again = [sys.executable, "-c", MAIN, *command]
    done = subprocess.run(again, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    report = json.loads((made.out / "report.json").read_text())
    assert report["counts"]["valid"] == 10 and report["unfinished"] is None and not report["interrupted"]
    rows = state.read(made.out)[1]
    assert all(rows[job] == row for job, row in kept.items())


@pytest.fixture(params=["local", "ssh"])
def bench(request: pytest.FixtureRequest, shelf: Make) -> Iterator[tuple[Shelf, Path]]:
    """A shelf with one real board, and where that board's side of things lies."""
    with ssh_board() if request.param == "ssh" else local_board() as board:
        way = ", ".join(f"{key} = '{value}'" for key, value in board.transport.items())
        text = f"""
            schema_version = 1
            [devices.bench]
            kind = "{"raspberry_pi" if request.param == "ssh" else "host"}"
            transport = {{ {way} }}
            base = "{board.base}"
            emulated = true
            python = "{sys.executable}"
            env = {{ OMP_NUM_THREADS = "1" }}
        """
        made = shelf(1, 0)
        made.models, made.boards = [MODEL], ["bench"]
        made.written = text
        yield made, board.base


@pytest.mark.parametrize("whole_group", [False, True])
def test_a_board_is_freed_in_the_middle_of_a_job(
    bench: tuple[Shelf, Path], environment: dict[str, str], whole_group: bool
) -> None:
    """A terminal's Ctrl-C reaches the board's own processes as well; `kill -INT` does not."""
    made, base = bench
    client = start(made, environment, "--profile", "sustained", "--minutes", "10")
    wait(client, lambda: measuring(base))
    os.killpg(client.pid, signal.SIGINT) if whole_group else client.send_signal(signal.SIGINT)
    shown, said = client.communicate(timeout=60)
    assert client.returncode == 130 and "Traceback" not in said and "not free yet" not in said
    assert leftovers(base, 2) == [] and not list(base.iterdir()) and host_owner("bench") is None
    assert "1 of 1 jobs are missing" in said and "Interrupted. 0 of 1 job" in shown
    assert state.read(made.out)[1] == {}  # what Ctrl-C broke did not fail by itself


def test_twice_stops_at_once(shelf: Make, environment: dict[str, str]) -> None:
    """A job that does not listen is not waited for; there is no report then."""
    made = shelf(1, 2, ms=600_000.0)
    client = start(made, environment)
    wait(client, made.used)
    client.send_signal(signal.SIGINT)
    assert client.stderr is not None and "Ctrl-C again stops at once" in client.stderr.readline()
    client.send_signal(signal.SIGINT)
    _, said = client.communicate(timeout=60)
    assert client.returncode == 130 and "Traceback" not in said
    assert not (made.out / "report.html").exists()
    assert leftovers(made.folder / "base-sim-0") == []
