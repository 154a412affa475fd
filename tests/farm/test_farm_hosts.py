"""A real scheduler, a client and two hosts that share nothing with each other but the network.

A host has a folder, a cache and an inventory of its own; the client's folder is hidden from it, as another
machine's is.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from boards import leftovers, namespace, stop

from edgekit.farm import state

MAIN = "from edgekit.cli.main import main; main()"
MODELS = Path(__file__).parents[1] / "device" / "models"
REAL = 'kind = "host"\ntransport = { type = "local" }\nemulated = true\n'
SIMULATED = 'kind = "simulated"\ntransport = { type = "local" }\nemulated = true\nenv = { SIM_MS = "900" }\n'


@dataclass
class Network:
    """A scheduler's address, the client's folder and the environment of every process."""

    folder: Path
    address: str
    environment: dict[str, str]

    @property
    def client(self) -> Path:
        return self.folder / "client"

    def edgekit(self, *words: str) -> subprocess.Popen[str]:
        """A command of the client, in its folder."""
        return subprocess.Popen(
            [sys.executable, "-c", MAIN, *words],
            cwd=self.client,
            env=self.environment | {"EDGEKIT_CACHE": str(self.client / "cache")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
        )

    def status(self) -> dict[str, Any]:
        done = self.edgekit("farm", "status", "--scheduler", self.address, "--json")
        shown, said = done.communicate(timeout=60)
        assert done.returncode == 0, said
        found: dict[str, Any] = json.loads(shown)
        return found

    @contextmanager
    def host(self, name: str, boards: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
        """`edgekit farm worker` where the client's folder cannot be seen."""
        place = self.folder / name
        lines = ["schema_version = 1"]
        for board, text in boards.items():
            base = place / board
            base.mkdir(parents=True, exist_ok=True)
            lines.append(f'[devices.{board}]\nbase = "{base}"\nlimits = {{ cool_down_s = 0 }}\n{text}')
        (place / "devices.toml").write_text("\n".join(lines))
        hide = f"mount -t tmpfs none '{self.client}' && exec \"$@\""
        words = ["farm", "worker", "--scheduler", self.address, "--inventory", "devices.toml"]
        process = subprocess.Popen(
            [*namespace(), "sh", "-c", hide, name, sys.executable, "-c", MAIN, *words],
            cwd=place,
            env=self.environment | {"EDGEKIT_CACHE": str(place / "cache")},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert f"{', '.join(boards)}: offered to {self.address}" in line, line
            yield process
        finally:
            stop(process)
            assert process.stderr is not None
            process.stderr.close()


@contextmanager
def scheduler(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """The address of a scheduler process."""
    file = folder / "scheduler.json"
    words = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    process = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_scheduler", *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: file.is_file() and file.stat().st_size)
        yield json.loads(file.read_text())["address"]
    finally:
        stop(process)


@pytest.fixture
def network(tmp_path: Path, environment: dict[str, str]) -> Iterator[Network]:
    for name in ("tflite-int8", "tflite-float16"):
        shutil.copytree(MODELS / name, tmp_path / "client" / "build" / name)
    with scheduler(tmp_path, environment) as address:
        yield Network(tmp_path, address, environment)


def until(what: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)
    return found


def test_a_host_is_lost_in_the_middle_of_a_run(network: Network) -> None:
    shelf = {"sim-0": SIMULATED, "sim-1": SIMULATED}
    with ExitStack() as stack:
        stack.enter_context(network.host("upstairs", {"bench": REAL}))
        lost = stack.enter_context(network.host("cellar", shelf))
        until(lambda: set(network.status()["boards"]) == {"bench", "sim-0", "sim-1"})
        run = network.edgekit(
            *("farm", "run", "build/tflite-int8", "build/tflite-float16", "--scheduler", network.address),
            *("--out", "out", "--patience", "10"),
        )
        assert run.stderr is not None
        before = []
        while not any("sim-" in line for line in before):
            before.append(run.stderr.readline())
            assert before[-1], before
        lost.send_signal(signal.SIGKILL)
        said = until(
            lambda: (found := network.status()) and not found["boards"]["sim-0"]["workers"] and found
        )
        assert said["boards"]["bench"]["workers"] and "left" in said["runs"][0]
        _, after = run.communicate(timeout=60)
    assert run.returncode == 1 and "Traceback" not in after, after
    for board in shelf:
        assert leftovers(network.folder / "cellar" / board) == []
    report = json.loads((network.client / "out" / "report.json").read_text())
    of = {(job["device"], job["target"]): job for job in report["jobs"]}
    assert len(of) == 6 and report["exclusive"]
    missing = [job for job in of.values() if job["status"] != "valid"]
    assert 1 <= len(missing) < 4 and report["unfinished"]["jobs"] == len(missing)
    for job in missing:
        assert (job["status"], job["reasons"]) == ("not run", [f"no worker has had {job['device']} for 10 s"])
        assert job["device"].startswith("sim-")
    assert all(report["boards"][job["device"]]["bad"] for job in missing)
    # the real board's answers were compared with what travelled with the model, and its samples came back
    for target in ("tflite-int8", "tflite-float16"):
        job = of["bench", target]
        assert job["drift"]["source"] == "3 golden vectors" and job["drift"]["argmax_agreement"] == 1.0
        place = network.client / "out" / job["result"]
        assert place.is_file() and list(place.parent.glob("*.samples.json.gz"))
    kept = sorted(path.name for path in network.folder.glob("upstairs/cache/farm/*/*.*"))
    assert kept == ["manifest.json"] * 2 + ["model.tflite"] * 2

    rows = state.read(network.client / "out")[1]
    with network.host("upstairs", {"bench": REAL}), network.host("cellar", shelf):
        again = network.edgekit("farm", "run", "--resume", "--out", "out")  # the scheduler is known
        _, after = again.communicate(timeout=60)
    assert again.returncode == 0, after
    assert f"{len(rows)} jobs are done already" in after
    whole = state.read(network.client / "out")[1]
    assert len(whole) == 6 and all(whole[job] == row for job, row in rows.items())


def test_an_interrupted_client_frees_the_boards_of_other_hosts(network: Network) -> None:
    with network.host("cellar", {"bench": REAL}):
        run = network.edgekit(
            *("farm", "run", "build/tflite-int8", "--scheduler", network.address, "--device", "bench"),
            *("--out", "out", "--profile", "sustained", "--minutes", "10"),
        )
        until(lambda: "process 1 of 1" in (network.status()["boards"]["bench"].get("doing") or ""))
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=60)
        assert run.returncode == 130 and "1 of 1 jobs are missing" in said and "not free yet" not in said
        assert leftovers(network.folder / "cellar" / "bench", 0) == []
        assert network.status()["boards"]["bench"]["job"] is None
    assert os.listdir(network.folder / "cellar" / "bench") == []


def test_a_scheduler_without_edgekit_is_one_line(environment: dict[str, str], tmp_path: Path) -> None:
    hidden = tmp_path / "edgekit.py"
    hidden.write_text("raise ImportError('none here')\n")
    model = tmp_path / "client" / "model.tflite"
    model.parent.mkdir()
    model.write_bytes(b"model")
    with scheduler(tmp_path, environment | {"PYTHONPATH": str(tmp_path)}) as address:
        run = Network(tmp_path, address, environment).edgekit(
            *("farm", "run", "model.tflite", "--scheduler", address, "--out", "out")
        )
        _, said = run.communicate(timeout=60)
    assert run.returncode == 2 and not (model.parent / "out").exists()
    assert "the scheduler's Python lacks this edgekit (none here)" in said and len(said.splitlines()) == 1
