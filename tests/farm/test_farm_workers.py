"""Real worker processes behind a scheduler: a killed one loses nothing; the client killed is resumed."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from boards_shelf import Shelf

from edgekit.data import Preprocessing
from edgekit.errors import DataError
from edgekit.farm import plan
from edgekit.farm.scheduler import connect, find_boards
from edgekit.farm.worker import _evaluation_of

Make = Callable[..., Shelf]
BUNDLE = Path(__file__).parents[1] / "device" / "models" / "tflite-int8"
MAIN = "from edgekit.cli.main import main; main()"


def edgekit(*words: str | Path, environment: dict[str, str], **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", MAIN, *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(command, env=environment, text=True, **pipes)


@contextmanager
def scheduler() -> Iterator[str]:
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=0, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster.scheduler_address


@contextmanager
def worker(address: str, inventory: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    words = ["farm", "worker", "--scheduler", address, "--inventory", inventory]
    process = edgekit(*words, environment=environment, stdout=subprocess.DEVNULL)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert f"offered to {address}" in line, line
        yield process
    finally:
        process.terminate()
        process.wait(20)
        assert process.stderr is not None
        process.stderr.close()


def until(what: Callable[[], Any], seconds: float = 30.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)
    return found


def test_a_killed_worker_loses_nothing(shelf: Make, environment: dict[str, str]) -> None:
    """Both workers have sim-1; the one that serves it is killed in the middle of a job."""
    made = shelf(2, 6, ms=150.0)
    both = made.inventory(name="both.toml")
    only = made.inventory(["sim-1"], name="only.toml")
    with scheduler() as address, ExitStack() as stack:
        first = stack.enter_context(worker(address, both, environment))
        client = stack.enter_context(connect(address, ()))
        threading.Thread(target=lambda: until(lambda: len(made.used()) > 4) and first.kill()).start()
        spare: list[Any] = []

        def come_back(row: dict[str, Any]) -> None:
            if not spare:  # both boards come back on other workers
                spare.append(stack.enter_context(worker(address, only, environment)))
                spare.append(stack.enter_context(worker(address, both, environment)))

        report = made.run_with(client, on_row=come_back)
    assert first.returncode == -signal.SIGKILL
    assert [job["reasons"] for job in report["jobs"] if job["status"] != "valid"] == [] and report[
        "exclusive"
    ]
    assert len({job["worker"] for job in report["jobs"]}) > 1


def test_a_board_without_a_worker_is_given_up(shelf: Make, environment: dict[str, str]) -> None:
    made = shelf(2, 3, ms=100.0)
    one, two = made.inventory(["sim-0"], "one.toml"), made.inventory(["sim-1"], "two.toml")
    with (
        scheduler() as address,
        worker(address, one, environment),
        worker(address, two, environment) as lost,
        connect(address, ()) as client,
    ):
        until(lambda: len(find_boards(client, [])) == 2)
        report = made.run_with(client, patience_s=1.5, on_row=lambda _: lost.kill())
    assert all(job["status"] == "valid" for job in report["jobs"] if job["device"] == "sim-0")
    left = [job for job in report["jobs"] if job["device"] == "sim-1" and job["status"] == "not run"]
    assert left and left[0]["reasons"] == ["no worker has had sim-1 for 1.5 s"]


def test_a_worker_that_lacks_the_files_is_sent_them(
    shelf: Make, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's folder means nothing to the worker: it is relative to where the client runs."""
    made = shelf(1, 2)
    inventory = made.inventory()
    found = [replace(one, folder=Path(made.folder.name)) for one in plan.find_artifacts(made.models)]
    monkeypatch.setattr(plan, "find_artifacts", lambda _: found)
    with scheduler() as address, worker(address, inventory, environment), connect(address, ()) as client:
        monkeypatch.chdir(made.folder.parent)
        report = made.run_with(client)
    assert report["counts"]["valid"] == 2
    kept = sorted(path.name for path in (tmp_path / "cache" / "farm").glob("*/*"))
    assert kept == ["model0.tflite", "model1.tflite", "whole", "whole"]


def test_a_worker_that_cannot_keep_the_files_costs_its_jobs_only(
    shelf: Make, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = shelf(1, 2)
    inventory = made.inventory()
    found = [replace(one, folder=Path(made.folder.name)) for one in plan.find_artifacts(made.models)]
    monkeypatch.setattr(plan, "find_artifacts", lambda _: found)
    with scheduler() as address, worker(address, inventory, environment), connect(address, ()) as client:
        (tmp_path / "cache" / "farm").write_text("a file where a folder would be")
        monkeypatch.chdir(made.folder.parent)
        report = made.run_with(client)
    assert report["counts"]["unreached"] == 2
    assert "cannot keep its files" in report["jobs"][0]["reasons"][0]


def test_status_asks_the_workers(shelf: Make, environment: dict[str, str]) -> None:
    made = shelf(2, 3, ms=400.0)
    said: list[dict[str, Any]] = []

    def ask(address: str) -> None:
        until(lambda: len(made.used()) > 2)
        words = ["farm", "status", "--scheduler", address, "--json"]
        said.append(json.loads(edgekit(*words, environment=environment).communicate(timeout=30)[0]))

    with (
        scheduler() as address,
        worker(address, made.inventory(), environment),
        connect(address, ()) as client,
    ):
        asker = threading.Thread(target=ask, args=(address,))
        asker.start()
        made.run_with(client)
        asker.join()
    assert set(said[0]["boards"]) == {"sim-0", "sim-1"}
    busy = [row for row in said[0]["boards"].values() if row["job"]]
    assert busy and busy[0]["job"].startswith("model") and busy[0]["since"] and "process" in busy[0]["doing"]
    assert "jobs ended" in said[0]["runs"][0]


def test_pictures_of_another_host_are_not_needed(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(BUNDLE, bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    pictures = Preprocessing(32, 32, "bilinear", (0.5,) * 3, (0.25,) * 3)
    manifest["preprocessing"]["settings"] = asdict(pictures)
    manifest["recipe"] = {"data": {"source": f"imagefolder:{tmp_path / 'elsewhere'}"}}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    found = _evaluation_of(bundle, "1", 8)
    assert found is not None and found.source == "3 golden vectors" and found.expected is not None
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"golden": []}))
    with pytest.raises(DataError, match="elsewhere"):
        _evaluation_of(bundle, "2", 8)
