"""The SQLite store: what goes in comes out, several processes, damage and migration."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from history_records import record

from edgekit.errors import StoreError, UsageError
from edgekit.history import History, default_path, load
from edgekit.history.record import timestamp, validate
from edgekit.history.store import MIGRATIONS

ROOT = Path(__file__).parents[2]


def test_a_record_comes_back_whole(tmp_path: Path) -> None:
    kept = record("run-aaaa", [[5, 4, 3], [9, 8], [1, 2, 3, 4]], note="ü\n'; --")
    with History(tmp_path / "deep" / "h.sqlite") as store:
        assert store.add(kept) is True
        assert store.add(kept) is False
        assert store.get("run-aaaa") == kept
    with History(tmp_path / "deep" / "h.sqlite") as store:
        assert store.get("run-a") == kept
        assert "samples_ns" not in store.query()[0]
        assert store.query(samples=True) == [kept]


def test_a_run_id_stands_for_one_record(tmp_path: Path) -> None:
    with History(tmp_path / "h.sqlite") as store:
        store.add(record("run-aaaa"))
        for other in (record("run-aaaa", threads=2), record("run-aaaa", [[7] * 9] * 5)):
            other["latency"] |= record("run-aaaa")["latency"]
            with pytest.raises(UsageError, match="other content"):
                store.add(other)
        assert len(store.query()) == 1


def test_prefixes(tmp_path: Path) -> None:
    with History(tmp_path / "h.sqlite") as store:
        for run in ("ab12", "ab12-1", "ab13", "cd_%9"):
            store.add(record(run.replace("_%", "-.")))
        assert store.get("ab12")["run"] == "ab12"
        assert store.get("ab12-")["run"] == "ab12-1"
        with pytest.raises(UsageError, match=r"'ab1' begins 3 run ids \(.*ab12.*\): more of the id"):
            store.get("ab1")
        for missing in ("x", "", "%", "ab_2"):
            with pytest.raises(UsageError, match="no run"):
                store.get(missing)


def test_query_filters_orders_and_limits(tmp_path: Path) -> None:
    with History(tmp_path / "h.sqlite") as store:
        store.add(record("run-1", created="2026-03-01T12:00:00+02:00"))
        store.add(record("run-2", created="2026-03-01T10:30:00Z", device__id="pi5-b"))
        store.add(record("run-3", created="2026-02-28", sha256="b" * 64))
        store.add(record("run-4", created="2026-03-02", artifact__name="resnet18", artifact__target="onnx"))

        def runs(**filters: object) -> list[str]:
            return [one["run"] for one in store.query(**filters)]  # type: ignore[arg-type]

        assert runs() == ["run-4", "run-2", "run-1", "run-3"]
        assert runs(limit=2) == ["run-4", "run-2"]
        assert runs(model="resnet18") == runs(target="onnx") == ["run-4"]
        assert runs(device="pi5-b") == ["run-2"]
        assert runs(sha256="bbb") == ["run-3"]
        assert runs(sha256="a" * 64, device="pi5-a", model="mobilenet_v2") == ["run-1"]
        assert runs(since="2026-03-01T10:00:00Z") == ["run-4", "run-2", "run-1"]
        assert runs(model="x' OR 1 --") == []
        with pytest.raises(UsageError, match="limit"):
            store.query(limit=0)


def test_series_are_runs_of_equal_conditions_oldest_first(tmp_path: Path) -> None:
    with History(tmp_path / "h.sqlite") as store:
        for day in (3, 1, 2):
            store.add(record(f"run-{day}", created=f"2026-03-0{day}"))
        store.add(record("run-t", created="2026-03-09", threads=4))
        store.add(record("run-q", created="2026-02-01", profile="quick"))
        found = store.series(model="mobilenet_v2")
    assert [[one["run"] for one in s.runs] for s in found] == [
        ["run-t"],
        ["run-1", "run-2", "run-3"],
        ["run-q"],
    ]
    assert (found[0].threads, found[1].profile, found[2].profile) == (4, "publish", "quick")


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from history_records import record
from edgekit.history import History
for i in range(20):
    with History({path!r}) as store:
        store.add(record(f"run-{{sys.argv[1]}}-{{i:02d}}"))
        store.add(record("run-shared"))
"""


def test_several_processes_add_at_once(tmp_path: Path) -> None:
    """All of them create the file, migrate it, and race for one shared run id."""
    path = tmp_path / "h.sqlite"
    code = WRITER.format(tests=str(Path(__file__).parent), path=str(path))
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(n)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for n in range(4)
    ]
    errors = [process.communicate(timeout=50)[1] for process in running]
    assert [process.returncode for process in running] == [0] * 4, errors
    with History(path) as store:
        assert len(store.query()) == 81


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to be looked at" * 40, b"SQLite format 3\0"]
)
def test_a_foreign_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "h.sqlite"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"h\.sqlite: .*another --history FILE") as caught:
        History(path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    with History(path) as store:
        for i in range(30):
            store.add(record(f"run-{i:02d}", note="x" * 3000))
    content = bytearray(path.read_bytes())
    content[4096 : len(content)] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)
    with History(path) as store, pytest.raises(StoreError, match="damaged") as caught:
        store.query()
    assert "\n" not in str(caught.value)


def test_damaged_samples_are_one_line(tmp_path: Path) -> None:
    with History(tmp_path / "h.sqlite") as store:
        store.add(record("run-1"))
        store._db.execute("UPDATE runs SET samples = x'00ff'")
        with pytest.raises(StoreError, match="damaged"):
            store.get("run-1")


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE mine (x)")
    other.close()
    with pytest.raises(StoreError, match="another program's"):
        History(path)


def test_an_older_file_is_migrated_and_a_newer_refused(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    later = (*MIGRATIONS, "ALTER TABLE runs ADD COLUMN tag TEXT; CREATE INDEX runs_tag ON runs (tag);")
    with History(path) as store:
        store.add(record("run-1"))
    broken = (*MIGRATIONS, "ALTER TABLE runs ADD COLUMN tag TEXT; CREATE NONSENSE;")
    with pytest.raises(StoreError):
        History(path, migrations=broken)
    with History(path, migrations=later) as store:
        assert store.get("run-1") == record("run-1")
        assert store._db.execute("SELECT tag FROM runs").fetchall() == [(None,)]
    with pytest.raises(StoreError, match="of version 2, this edgekit knows 1"):
        History(path)


def test_reading_creates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "none" / "h.sqlite"
    with History(path, create=False) as store:
        assert store.query() == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_or_a_file_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "h.sqlite"):
        with pytest.raises(StoreError, match="a folder you may write to"):
            History(path)


def test_default_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EDGEKIT_HISTORY", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_path() == tmp_path / "edgekit" / "history.sqlite"
    monkeypatch.setenv("EDGEKIT_HISTORY", str(tmp_path / "mine.db"))
    assert default_path() == tmp_path / "mine.db"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"run": "no spaces here"}, "run: "),
        ({"run": ""}, "run: "),
        ({"created": "yesterday"}, "'yesterday' is not a time"),
        ({"artifact__sha256": "A" * 64}, "artifact.sha256"),
        ({"device__emulated": "no"}, "device.emulated"),
        ({"latency__p50_ms": float("nan")}, "not finite"),
        ({"latency__p50_ms": 0}, "latency.p50_ms"),
        ({"latency__processes": 3}, "5 processes in samples_ns, 3 in latency"),
        ({"latency__process_p50_ms": [2.0]}, "1 medians in process_p50_ms, 5 processes"),
        ({"samples_ns": [[1], []]}, r"samples_ns\.1: no samples"),
        ({"samples_ns": [[1.5]]}, r"samples_ns\.0: a sample is no positive integer"),
        ({"validity": {"ok": False, "reasons": []}}, "without a reason"),
        ({"threads": 0}, "threads"),
    ],
)
def test_records_that_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        validate(record(**changes))  # type: ignore[arg-type]


def test_samples_file_is_read_from_beside_the_record(tmp_path: Path) -> None:
    whole = record("run-1")
    samples = whole.pop("samples_ns")
    (tmp_path / "run-1.json").write_text(json.dumps(whole | {"samples_file": "raw.json"}))
    (tmp_path / "raw.json").write_text(json.dumps({"samples_ns": samples}))
    assert load(tmp_path / "run-1.json")[0]["samples_ns"] == samples
    (tmp_path / "raw.json").unlink()
    with pytest.raises(UsageError, match=r"raw\.json: cannot be read"):
        load(tmp_path / "run-1.json")
    (tmp_path / "run-1.json").write_text("{")
    with pytest.raises(UsageError, match="not JSON"):
        load(tmp_path / "run-1.json")


def test_times_sort_as_text() -> None:
    texts = ["2026-03-01T12:00:00+02:00", "2026-03-01T10:00:00.5Z", "2026-03-01T10:00:01", "2026-03-02"]
    assert sorted(map(timestamp, texts)) == [timestamp(text) for text in texts]
