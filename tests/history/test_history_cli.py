"""`edgekit history` and `edgekit compare` as a user and a CI job meet them: output, exit codes, one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from history_records import FLAT, record

from edgekit.cli import main as cli
from edgekit.history import History
from edgekit.history.table import BARS, INVALID, sparkline

SLOW = [[int(value * 1.08) for value in run] for run in FLAT]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A history with a base, an equal, a slower, an INVALID and an unlike run."""
    file = tmp_path / "h.sqlite"
    monkeypatch.setenv("EDGEKIT_HISTORY", str(file))
    monkeypatch.setenv("COLUMNS", "80")
    with History(file) as store:
        store.add(record("base-1", created="2026-03-01"))
        store.add(record("same-1", created="2026-03-02", sha256="b" * 64))
        store.add(record("slow-1", SLOW, created="2026-03-03", sha256="c" * 64))
        store.add(record("other-1", created="2026-03-01", threads=4, artifact__name="resnet18"))
        hot = {"ok": False, "reasons": ["throttled [now]"]}
        store.add(record("hot-1", created="2026-01-01", device__id="pi4", validity=hot))
        store.add(record("few-1", FLAT[:2], created="2026-01-01", device__id="pi3"))
        store.add(record("few-2", SLOW[:2], created="2026-01-02", device__id="pi3"))
    return file


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of the command line."""
    argv, sys.argv = sys.argv, ["edgekit", *words]
    try:
        cli.main()
        code: object = 0
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv = argv
    out, err = capsys.readouterr()
    assert isinstance(code, int)
    return code, out, err


def test_history_lists_series(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "history")
    assert (code, err) == (0, "")
    assert "mobilenet_v2 tflite-int8 on pi5-a  1 thread, XNNPACK, performance, publish  ▁▁█" in out
    assert "resnet18 tflite-int8 on pi5-a  4 threads" in out
    assert "INVALID: throttled [now]" in out
    row = next(line for line in out.splitlines() if line.startswith("slow-1"))
    assert "+8.0 %" in row and "2026-03-03 00:00" in row and "45 in 5" in row and "c" * 12 in row
    assert "slow-1" not in run(capsys, "history", "--model", "resnet18")[1]
    assert run(capsys, "history", "--model", "none")[1] == f"{path}: no such run\n"


def test_history_json(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "history", "--json", "--device", "pi5-a", "--limit", "2")
    assert code == 0
    assert [one["run"] for one in json.loads(out)] == ["slow-1", "same-1"]


def test_history_adds_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(2):
        (tmp_path / f"{i}.json").write_text(json.dumps(record(f"file-{i}")))
    words = ["--history", str(tmp_path / "new.sqlite"), "--add", str(tmp_path / "0.json")]
    code, out, _ = run(capsys, "history", *words, "--add", str(tmp_path / "1.json"))
    assert code == 0 and "file-0" in out and "file-1" in out
    (tmp_path / "0.json").write_text("{}")
    code, _, err = run(capsys, "history", *words)
    assert code == 2 and err.count("\n") == 1 and "0.json" in err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["base-1", "same-1"], 0, "no difference"),
        (["base", "slow"], 1, "regression: p50 +8.0 %"),
        (["slow", "base"], 0, "improvement"),
        (["base", "slow", "--min-change", "9"], 0, "no difference"),
        (["base", "other"], 2, "model mobilenet_v2 and resnet18; threads 1 and 4"),
        (["base", "nothing"], 2, "no run 'nothing'"),
        (["hot", "hot"], 2, "hot-1 is INVALID (throttled [now])"),
        (["hot", "hot", "--fail-on-invalid"], 1, "hot-1 is INVALID"),
        (["base", "other", "--fail-on-invalid"], 2, "threads 1 and 4"),
        (["few-1", "few-2"], 2, "not enough processes: 2 against 2"),
        (["few", "few-2"], 2, "begins 2 run ids"),
        (["base", "slow", "--across", "weather"], 2, "one of runtime, target, model"),
        (["missing.json", "slow"], 2, "missing.json: cannot be read"),
        (["previous", "latest", "--model", "mobilenet_v2", "--device", "pi5-a"], 1, "compare same-1 slow-1"),
        (["base", "latest", "--device", "pi3"], 2, "device pi5-a and pi3"),
        (["previous", "latest"], 2, "'previous' of 4 series"),
        (["previous", "latest", "--device", "pi4"], 2, "no valid run before hot-1"),
        (["previous", "latest", "--device", "pi9"], 2, "no run for 'previous'"),
    ],
)
def test_compare_exit_codes(
    path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    got, out, err = run(capsys, "compare", *words)
    assert (got, said in (out if code == 0 else err)) == (code, True), (out, err)
    assert err.count("\n") == (code != 0)


def test_compare_files_and_json(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slow = tmp_path / "slow.json"
    slow.write_text(json.dumps(record("ci-1", SLOW)))
    code, out, _ = run(capsys, "compare", "base", str(slow), "--json")
    verdict = json.loads(out)
    assert (code, verdict["verdict"], verdict["b"]) == (1, "regression", "ci-1")
    assert verdict["processes"] == [5, 5] and verdict["p_value"] == pytest.approx(2 / 252)
    code, out, _ = run(capsys, "compare", "base", "other", "--json")
    assert code == 2
    assert json.loads(out) == {
        "verdict": "refused",
        "differences": ["model mobilenet_v2 and resnet18", "threads 1 and 4"],
    }


def test_a_foreign_history_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "h.sqlite"
    file.write_bytes(b"junk" * 2000)
    for words in (["history"], ["compare", "a", "b"]):
        code, _, err = run(capsys, *words, "--history", str(file))
        assert code == 2 and err.count("\n") == 1 and "not a history database" in err


def test_help_lists_the_mounted_commands(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0 and "history" in out and "compare" in out and "build" in out
    code, out, _ = run(capsys, "compare", "--help")
    assert code == 0 and "Exit codes" in out


def test_sparkline() -> None:
    def runs(*values: float | None) -> list[dict[str, object]]:
        hot = {"ok": False, "reasons": ["hot"]}
        return [
            record("run-1", latency__p50_ms=value)
            if value
            else record("run-1", latency__p50_ms=99.0, validity=hot)
            for value in values
        ]

    assert sparkline(runs(1.0, 2.0, None, 1.5)) == f"{BARS[0]}{BARS[-1]}{INVALID}{BARS[4]}"
    assert sparkline(runs(1.0, 1.001, 1.0)) == BARS[0] * 3  # less than any regression is flat
    assert sparkline(runs(None, None)) == INVALID * 2
    assert len(sparkline(runs(*[1.0] * 100))) == 60
