"""Jobs on a LocalCluster in this process: exclusive use, what is repeated, bad boards, resuming."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from boards_shelf import Shelf

from edgekit.device.reservation import host_lock
from edgekit.errors import UsageError
from edgekit.farm import plan, state
from edgekit.farm.run import read_status
from edgekit.farm.scheduler import find_boards
from edgekit.farm.worker import describe
from edgekit.history import History

Make = Callable[..., Shelf]


def by_status(report: dict[str, Any]) -> dict[str, int]:
    return {status: count for status, count in report["counts"].items() if count}


def test_every_job_is_measured_once_and_no_board_twice_at_a_time(shelf: Make) -> None:
    made = shelf(3, 4)
    report = made.run()
    assert by_status(report) == {"valid": 12} and report["exclusive"]
    # quick is two processes a job; the boards' own log
    assert Counter(made.used()) == {(f"sim-{b}", f"model{m}.tflite"): 2 for b in range(3) for m in range(4)}
    running: dict[str, str] = {}
    for line in made.log.read_text().splitlines():
        board, model, event, *_ = line.split()
        assert running.pop(board, None) == (model if event == "end" else None)
        if event == "start":
            running[board] = model
    with History() as history:
        assert len(history.query()) == 12
    assert len(list((made.out / "results").glob("*.samples.json.gz"))) == 12
    status = read_status(made.out)
    assert status is not None and status["over"] and (status["ended"], status["left"]) == (12, 0)


def test_a_job_that_fails_is_not_repeated_and_costs_no_other(shelf: Make) -> None:
    made = shelf(2, 3, faults={"sim-0 model1.tflite": ["job", "job"]})
    report = made.run()
    assert by_status(report) == {"valid": 5, "failed": 1}
    failed = next(job for job in report["jobs"] if job["status"] == "failed")
    assert (failed["device"], failed["model"]) == ("sim-0", "model1")
    assert "does not load" in failed["reasons"][0] and failed["error"]["exit_code"] == 3
    assert made.used().count(("sim-0", "model1.tflite")) == 1
    again = made.run(resume=True)
    assert by_status(again) == by_status(report) and made.used().count(("sim-0", "model1.tflite")) == 1


def test_an_error_of_ours_on_one_board_leaves_the_others(shelf: Make) -> None:
    report = shelf(2, 2, faults={"sim-1 model0.tflite": ["bug"]}).run()
    assert by_status(report) == {"valid": 3, "failed": 1}
    failed = next(job for job in report["jobs"] if job["status"] == "failed")
    assert "ZeroDivisionError" in failed["reasons"][0] and "Traceback" in failed["error"]["stderr"]


def test_a_lost_link_is_tried_again_twice(shelf: Make) -> None:
    made = shelf(2, 2, faults={"sim-0 model0.tflite": ["link", "link"]})
    report = made.run()
    assert by_status(report) == {"valid": 4}
    job = next(job for job in report["jobs"] if (job["device"], job["model"]) == ("sim-0", "model0"))
    assert [note.split(":")[0] for note in job["notes"]] == ["attempt 1 of 3", "attempt 2 of 3"]
    assert made.used().count(("sim-0", "model0.tflite")) == 4  # two that were lost, two of the measurement


def test_a_job_whose_link_stays_lost_is_unreached_and_resumed(shelf: Make) -> None:
    made = shelf(2, 2, faults={"sim-0 model0.tflite": ["link"] * 3})
    report = made.run()
    assert by_status(report) == {"valid": 3, "unreached": 1}
    before = len(made.used())
    assert by_status(made.run(resume=True)) == {"valid": 4}
    assert made.used()[before:] == [("sim-0", "model0.tflite")] * 2


def test_three_failures_in_a_row_end_a_board_and_no_other(shelf: Make) -> None:
    made = shelf(2, 6, faults={"sim-1 *": ["link"] * 99})
    report = made.run()
    assert by_status(report) == {"valid": 6, "unreached": 3, "not run": 3}
    assert len([1 for board, _ in made.used() if board == "sim-1"]) == 9  # three jobs, three attempts each
    assert "3 failures of the board in a row" in report["boards"]["sim-1"]["bad"]
    not_run = [job for job in report["jobs"] if job["status"] == "not run"]
    assert all("the link was lost" in job["reasons"][0] for job in not_run)
    assert report["boards"]["sim-0"]["bad"] is None


def test_a_success_between_failures_keeps_a_board(shelf: Make) -> None:
    faults = {f"sim-0 model{i}.tflite": ["link"] * 3 for i in (0, 1, 3, 4)}
    report = shelf(1, 6, faults=faults).run()
    assert by_status(report) == {"valid": 2, "unreached": 4} and report["boards"]["sim-0"]["bad"] is None


def test_what_heat_spoiled_is_published_as_invalid(shelf: Make) -> None:
    made = shelf(2, 2, faults={"sim-0 model0.tflite": ["hot"] * 99})
    report = made.run()
    assert by_status(report) == {"valid": 3, "INVALID": 1}
    job = next(job for job in report["jobs"] if job["status"] == "INVALID")
    assert job["reasons"] == ["throttled: throttled"] and job["figures"]["p50_ms"] > 0
    with History() as history:
        assert sum(not record["validity"]["ok"] for record in history.query()) == 1


def test_a_board_that_someone_holds_is_waited_for(shelf: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = shelf(2, 1)
    work = plan.Settings(wait_s=0.0)
    monkeypatch.setattr(plan, "Settings", lambda **_: work)
    with host_lock("sim-0", "another run"):
        report = made.run()
    job = next(job for job in report["jobs"] if job["device"] == "sim-0")
    assert job["status"] == "unreached" and "busy, held on this machine" in job["reasons"][0]
    assert by_status(made.run(resume=True)) == {"valid": 2}


def test_a_retired_board_is_not_asked(shelf: Make) -> None:
    made = shelf(1, 2, extra='health = "retired"')
    report = made.run()
    assert by_status(report) == {"not run": 2} and made.used() == []
    assert report["jobs"][0]["reasons"] == ["the inventory says retired"]


def test_boards_are_wanted_by_name_or_tag(shelf: Make) -> None:
    made = shelf(2, 1, extra='tags = ["upper"]')
    with made.client() as client:
        assert list(find_boards(client, ["tag:upper"])) == ["sim-0", "sim-1"]
        assert find_boards(client, ["sim-1"])["sim-1"]["formats"] == [".tflite"]
        with pytest.raises(UsageError, match="'sim-9': no worker has it: sim-0, sim-1; did you mean"):
            find_boards(client, ["sim-9"])
        with pytest.raises(UsageError, match="no board of the workers has this tag"):
            find_boards(client, ["tag:lower"])
        assert len(client.run(describe)) == 2  # a dask worker for each board


def test_pairs_without_a_runtime_are_left_out(shelf: Make, tmp_path: Path) -> None:
    made = shelf(1, 1)
    other = made.folder / "other.onnx"
    other.write_bytes(b"onnx")
    made.models.append(other)
    report = made.run()
    assert by_status(report) == {"valid": 1}
    assert report["skipped"][0]["reason"] == "no runtime for .onnx on simulated"


def test_a_run_that_is_unfinished_is_not_overwritten(shelf: Make) -> None:
    made = shelf(1, 2, faults={"sim-0 model0.tflite": ["link"] * 3})
    made.run()
    with pytest.raises(UsageError, match="1 of 2 jobs measured: --resume"):
        made.run()
    made.run(resume=True)
    assert by_status(made.run()) == {"valid": 2}  # a new run of the same jobs


def test_a_line_that_a_kill_cut_short_is_dropped(shelf: Make) -> None:
    made = shelf(1, 2)
    made.run()
    path = made.out / state.NAME
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with state.resume(made.out) as journal:
        assert len(journal.rows) == 1
        with pytest.raises(UsageError, match="a client works on this run"):
            state.resume(made.out)
    assert by_status(made.run(resume=True)) == {"valid": 2}
    assert [json.loads(line)["status"] for line in path.read_bytes().splitlines()[1:]] == ["valid", "valid"]


def test_directories_of_earlier_runs_are_passed_over(shelf: Make) -> None:
    made = shelf(1, 1)
    made.run()
    assert [one.model for one in plan.find_artifacts([*made.models, made.out])] == ["model0"]
    with pytest.raises(UsageError, match="nothing to measure"):
        plan.find_artifacts([made.out])


def test_overlaps_are_seen() -> None:
    def row(job: str, device: str, boot: str, start: int, end: int) -> dict[str, Any]:
        return {"job": job, "device": device, "boot": boot, "start_ns": start, "end_ns": end}

    rows = [
        row("a", "x", "1", 0, 10),
        row("b", "x", "1", 9, 20),
        row("c", "y", "1", 5, 6),
        row("d", "x", "2", 5, 6),
    ]
    assert state.overlaps(rows) == ["x: a and b"]
    assert state.overlaps([*rows[2:], rows[0], {"job": "e", "device": "x", "start_ns": None}]) == []
