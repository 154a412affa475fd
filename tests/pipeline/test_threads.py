"""How many cores a build takes, and that torch's threads sleep while they wait."""

import json
import math
import os
import subprocess
import sys

import pytest
import torch
from small_model import net

import edgekit
from edgekit.pipeline import threads
from edgekit.pipeline.threads import chosen, using, workers


@pytest.fixture(autouse=True)
def untold(monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)


def _child(script, **environment):
    kept = {k: v for k, v in os.environ.items() if k not in environment}
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**kept, **{k: v for k, v in environment.items() if v}},
    )


def test_what_is_asked_is_used_and_given_back():
    before = torch.get_num_threads(), workers()
    with using(3):
        assert (torch.get_num_threads(), workers()) == (3, 3)
        with pytest.raises(ValueError, match="stopped"), using(2):
            raise ValueError("stopped")
        assert (torch.get_num_threads(), workers()) == (3, 3)
    assert (torch.get_num_threads(), workers()) == before


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_what_the_environment_says_is_used_for_both(monkeypatch, name):
    monkeypatch.setenv(name, "5")
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    assert chosen(5) == (5, 5)


def test_torch_follows_the_variable():
    done = _child(
        "from edgekit.pipeline.threads import using, workers\nimport torch\n"
        "with using(None): print(torch.get_num_threads(), workers())",
        OMP_NUM_THREADS="1",
    )
    assert done.stdout.split() == ["1", "1"]


def test_threads_that_sleep_take_every_core_and_a_callers_own_number_is_the_most(monkeypatch):
    monkeypatch.setattr(threads, "usable_cores", lambda: 8)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    assert chosen(8) == (8, 8)
    assert chosen(16) == (8, 8)
    assert chosen(1) == (1, 8)


@pytest.mark.parametrize(("idle", "wanted"), [(7.8, 8), (5.4, 5), (0.2, 1), (-3.0, 1)])
def test_threads_that_spin_take_the_idle_cores(monkeypatch, idle, wanted):
    monkeypatch.setattr(threads, "usable_cores", lambda: 8)
    monkeypatch.setattr(threads, "idle_cores", lambda _cores: idle)
    assert chosen(8) == (wanted, 8)


def test_idle_cores_are_counted_among_those_this_process_may_use():
    assert 0 <= threads.idle_cores(2) <= 2


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
def test_cores_follow_the_affinity():
    done = _child(
        "import os; from edgekit.pipeline.threads import usable_cores\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(usable_cores())"
    )
    assert done.stdout.strip() == "1"


@pytest.mark.parametrize(
    ("own", "files", "wanted"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n"}, math.inf),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "300000 100000\n"}, 3.0),
        (
            "4:cpu,cpuacct:/x\n1:name=systemd:/\n",
            {"cpu/x/cpu.cfs_quota_us": "50000\n", "cpu/x/cpu.cfs_period_us": "100000\n"},
            0.5,
        ),
        (
            "4:cpu,cpuacct:/x\n",
            {"cpu/x/cpu.cfs_quota_us": "-1\n", "cpu/x/cpu.cfs_period_us": "100000\n"},
            math.inf,
        ),
        ("3:cpuset:/x\n", {"cpu/x/cpu.cfs_quota_us": "1\n"}, math.inf),
    ],
)
def test_the_quota_of_every_group_above_counts(tmp_path, monkeypatch, own, files, wanted):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "own").write_text(own)
    monkeypatch.setattr(threads, "_CGROUPS", tmp_path)
    monkeypatch.setattr(threads, "_OWN_GROUPS", tmp_path / "own")
    assert threads._quota() == wanted
    assert 1 <= threads.usable_cores() <= max(1, math.ceil(min(wanted, os.cpu_count())))


WAITING = "import sys; sys.argv = ['edgekit', '--version']\nfrom edgekit.cli import main\n"
WAITING += "try: main.main()\nexcept SystemExit: pass\nimport torch"


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP says what it was told")
@pytest.mark.parametrize(("told", "wanted"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_the_command_line_lets_threads_sleep_unless_told_otherwise(told, wanted):
    done = _child(WAITING, OMP_WAIT_POLICY=told, OMP_DISPLAY_ENV="TRUE")
    assert f"OMP_WAIT_POLICY = '{wanted}'" in done.stderr


def test_nothing_is_said_once_torch_is_loaded():
    threads.wait_passively()
    assert "OMP_WAIT_POLICY" not in os.environ


def test_a_build_is_made_again_with_its_own_threads(tmp_path, monkeypatch):
    """The sums of floats depend on them: bytes are compared."""
    from edgekit.pipeline import finished, pipeline

    images = torch.randn(4, 3, 32, 32)
    run = edgekit.build(
        net(), calibration=images, out=tmp_path, machine={"jobs": 1}, device={"profile": "off"}
    )
    assert run.report["machine"]["threads"] == 1
    report = finished.read_report(tmp_path)
    report["machine"]["threads"], report["provenance"]["recipe"]["weights"] = 3, "random"
    (tmp_path / "report.json").write_text(json.dumps(report))
    asked = []

    def build(recipe, **_):
        asked.append(recipe.machine.jobs)
        return run

    monkeypatch.setattr(pipeline, "build", build)
    assert all(finished.reproduce(tmp_path).values()) and asked == [3]
