"""Results of `edgekit bench` as records: conditions arrive, one record a file, foreign samples refused."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from history_records import FLAT

from edgekit.errors import UsageError
from edgekit.history import History, load, records_of
from edgekit.history.compare import RefusedError, compare

FIGURES = {
    "n": 45,
    "raw": True,
    "p99_supported": False,
    "p50_ms": 2.0002,
    "p90_ms": 2.0004,
    "p99_ms": 2.0004,
    "p50_interval": None,
    "p90_interval": None,
    "p99_interval": None,
    "init_ms": 3.0,
    "first_ms": 4.0,
}


def measured(sha256: str, figures: dict[str, Any] | None = FIGURES) -> dict[str, Any]:
    return {
        "sha256": sha256 * 64,
        "size_bytes": 9,
        "format": "tflite",
        "delegate": "xnnpack",
        "partitions": 1,
        "figures": figures,
        "memory": None,
        "drift": None,
        "sustained": None,
    }


def result(run: str = "20260301T120000-ab", **files: dict[str, Any]) -> dict[str, Any]:
    """What edgekit/device/result_schema.json allows."""
    return {
        "schema_version": 1,
        "edgekit_version": "0.1.0",
        "harness_version": "5" * 64,
        "run": run,
        "started": "2026-03-01T12:00:00+00:00",
        "finished": "2026-03-01T12:05:00+00:00",
        "profile": {
            "name": "publish",
            "processes": 5,
            "samples": 205,
            "seconds": 12.0,
            "max_seconds": 60.0,
            "warmup": 10,
            "warmup_seconds": 1.0,
        },
        "device": {
            "id": "pi5-a",
            "kind": "raspberry_pi",
            "transport": "ssh",
            "emulated": False,
            "tags": [],
            "fingerprint": {"model": "Raspberry Pi 5", "governor": "ondemand"},
            "fingerprint_id": "f" * 12,
            "state": {"load": "0.1"},
            "clocks": "governor performance",
        },
        "runtime": {
            "harness": "litert",
            "name": "ai-edge-litert",
            "version": "2.3.0",
            "python": "3.11",
            "threads": 2,
            "delegate": "xnnpack",
        },
        "files": files or {"int8": measured("a")},
        "ratios": [],
        "telemetry": {"before": {}, "after": {}, "series": []},
        "validity": {"status": "valid", "reasons": [], "notes": [], "attempts": 1},
        "samples": {"file": "", "sha256": "0" * 64, "unit": "ns"},
    }


def write(directory: Path, content: dict[str, Any], samples: dict[str, Any]) -> Path:
    packed = gzip.compress(json.dumps({"unit": "ns", "files": samples}).encode(), mtime=0)
    (directory / "r.samples.json.gz").write_bytes(packed)
    content["samples"] |= {"file": "r.samples.json.gz", "sha256": hashlib.sha256(packed).hexdigest()}
    (directory / "r.json").write_text(json.dumps(content))
    return directory / "r.json"


def test_the_fixture_is_a_result() -> None:
    import jsonschema

    schema = json.loads((Path(__file__).parents[2] / "edgekit/device/result_schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(result())


def test_conditions_arrive(tmp_path: Path) -> None:
    [record] = load(write(tmp_path, result(), {"int8": FLAT}))
    assert record["run"] == "20260301T120000-ab-pi5-a"
    assert record["power_mode"] == "ondemand, clocks governor performance"
    assert record["device"]["fingerprint"] == {"model": "Raspberry Pi 5"}
    assert record["harness"] == {"name": "litert", "version": "5" * 64}
    assert (record["threads"], record["runtime"]["delegate"]) == (2, "xnnpack")
    assert record["artifact"] == {"sha256": "a" * 64, "name": "int8", "target": "tflite"}
    assert record["samples_ns"] == FLAT
    with History(tmp_path / "h.sqlite") as store:
        store.add(record)
        assert store.get("20260301") == record


def test_each_file_is_a_record_and_names_are_the_callers(tmp_path: Path) -> None:
    content = result(int8=measured("a"), float=measured("b"), broken=measured("c", None))
    samples = {"int8": FLAT, "float": [[], [], [], [], []]}
    records = records_of(content, samples, {"int8": ("mobilenet_v2", "tflite-int8")})
    assert [one["run"].removeprefix("20260301T120000-ab-pi5-a-") for one in records] == ["int8", "float"]
    assert records[0]["artifact"]["target"] == "tflite-int8"
    assert records[1]["samples_ns"] == [] and records[1]["latency"]["processes"] == 5
    assert len(load(write(tmp_path, content, samples))) == 2


def test_medians_of_a_tool_without_samples_arrive(tmp_path: Path) -> None:
    medians = [2.0, 2.1, 2.2, 2.3]
    figures = FIGURES | {"raw": False, "process_p50_ms": medians}
    [record] = load(write(tmp_path, result(int8=measured("a", figures)), {"int8": [[], [], [], []]}))
    assert record["latency"]["process_p50_ms"] == medians and record["latency"]["processes"] == 4
    with History(tmp_path / "h.sqlite") as store:
        store.add(record)
        assert compare(store.get(record["run"]), record).p_value == 1.0


def test_invalid_and_emulated_results_are_refused() -> None:
    a, b = result("run-a"), result("run-b")
    b["validity"] |= {"status": "INVALID", "reasons": ["throttled"]}
    b["device"]["emulated"] = True
    with pytest.raises(RefusedError) as caught:
        compare(records_of(a, {"int8": FLAT})[0], records_of(b, {"int8": FLAT})[0])
    assert caught.value.differences == [
        "run-b-pi5-a ran on an emulated device",
        "run-b-pi5-a is INVALID (throttled)",
    ]


def test_files_that_are_not_whole_are_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, result(), {"int8": FLAT})
    samples = tmp_path / "r.samples.json.gz"
    samples.write_bytes(gzip.compress(b"{}"))
    with pytest.raises(UsageError, match=r"not the samples that r\.json was written with"):
        load(path)
    samples.unlink()
    with pytest.raises(UsageError, match="cannot be read"):
        load(path)
    for content in ({"files": {}, "samples": {}}, {"files": 3, "samples": None}, {}, []):
        path.write_text(json.dumps(content))
        with pytest.raises(UsageError) as caught:
            load(path)
        assert "\n" not in str(caught.value)
    path = write(tmp_path, result(int8=measured("a", None)), {})
    with pytest.raises(UsageError, match="no file with a latency"):
        load(path)
