"""The commands as a user meets them: exit codes, one line for what cannot be, kill -9 and --resume."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from boards_shelf import Shelf

from edgekit.farm import state

Make = Callable[..., Shelf]
MAIN = "from edgekit.cli.main import main; main()"


def words(made: Shelf, *more: str) -> list[str]:
    boards = [word for board in made.boards for word in ("--device", board)]
    place = ["--inventory", str(made.inventory()), "--out", str(made.out)]
    return [sys.executable, "-c", MAIN, "farm", "run", *map(str, made.models), *boards, *place, *more]


def call(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_a_client_that_was_killed_is_resumed(shelf: Make, environment: dict[str, str]) -> None:
    """kill -9 in the middle; what is in the journal is not measured again, and nothing is lost."""
    made = shelf(2, 5, ms=200.0)
    client = subprocess.Popen(
        words(made), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    journal = made.out / state.NAME
    until = time.monotonic() + 30
    while not journal.exists() or journal.read_bytes().count(b"\n") < 4:
        assert time.monotonic() < until and client.poll() is None
        time.sleep(0.02)
    client.send_signal(signal.SIGKILL)
    client.wait()
    kept = {job: row for job, row in state.read(made.out)[1].items() if row["status"] == "valid"}
    assert 3 <= len(kept) < 10
    refused = call(words(made), environment)
    assert refused.returncode == 2 and "--resume to go on" in refused.stderr
    said = call([sys.executable, "-c", MAIN, "farm", "status", "--out", str(made.out)], environment)
    assert "its client is gone" in said.stdout and "sim-1" in said.stdout
    before = len(made.used())
    place = ["--inventory", str(made.inventory()), "--out", str(made.out)]
    done = call([sys.executable, "-c", MAIN, "farm", "run", "--resume", *place], environment)
    assert done.returncode == 0, done.stderr
    assert f"{len(kept)} jobs are done already" in done.stderr
    header, rows = state.read(made.out)
    assert len(rows) == len(header["jobs"]) == 10 and {row["status"] for row in rows.values()} == {"valid"}
    assert all(rows[job] == row for job, row in kept.items())
    assert len(made.used()) - before == 2 * (10 - len(kept))
    report = json.loads((made.out / "report.json").read_text())
    assert report["counts"]["valid"] == 10 and (made.out / "report.html").stat().st_size > 10_000


def test_a_job_that_failed_exits_1(shelf: Make, environment: dict[str, str]) -> None:
    made = shelf(1, 2, faults={"sim-0 model1.tflite": ["job"]})
    done = call(words(made), environment)
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == "edgekit: farm run: 1 failed"
    assert "failed: model1 tflite on sim-0: sim-0: the model does not load" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--profile", "slow"], "profile 'slow' does not exist"),
        (["--device", "sim-7"], "device 'sim-7': not in"),
        (["--threads", "0"], "threads = 0: at least 1"),
        (["--resume"], "no run to resume"),
        (["--scheduler", "nowhere"], "scheduler nowhere: not reached"),
    ],
)
def test_what_cannot_be_is_one_line(
    shelf: Make, environment: dict[str, str], more: list[str], message: str
) -> None:
    made = shelf(1, 1)
    done = call(words(made, *more), environment)
    assert done.returncode == 2 and message in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (made.out / "report.html").exists()


def test_without_dask_it_says_what_to_install(
    shelf: Make, environment: dict[str, str], tmp_path: Path
) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "distributed.py").write_text("raise ImportError('none here', name='distributed')\n")
    path = f"{blocked}:{environment['PYTHONPATH']}"
    done = call(words(shelf(1, 1)), environment | {"PYTHONPATH": path})
    assert done.returncode == 2 and done.stderr.strip().endswith("pip install 'edgekit[farm]'")


def test_status_without_a_run(environment: dict[str, str], tmp_path: Path) -> None:
    done = call([sys.executable, "-c", MAIN, "farm", "status", "--out", str(tmp_path)], environment)
    assert done.returncode == 2 and "no run there" in done.stderr
