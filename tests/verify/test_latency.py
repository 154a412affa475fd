"""The measurement returns every raw sample it took; nothing here asserts a speed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx_files import float_onnx, int8_onnx, openvino_files
from tflite_files import small_net

from edgekit.device import harness, host
from edgekit.device.profiles import PUBLISH, Profile
from edgekit.errors import ArtifactError, UsageError
from edgekit.pipeline import timing
from edgekit.pipeline.timing import latency
from edgekit.runtimes.runtime import settings

TINY = Profile("tiny", 2, 12, 0.0, 5.0, 2, 0.0)


@pytest.fixture(scope="module")
def measured():
    return latency({"float": small_net("builtin"), "int8": small_net("table")}, profile=TINY)


def test_every_sample_is_kept(measured):
    for runs in measured.samples_ns.values():
        assert [run.shape for run in runs] == [(12,), (12,)]
        assert all(run.dtype == np.int64 and (run > 0).all() for run in runs)
    one = measured.files["int8"]
    assert one.n == 24 and not one.p99_supported
    assert one.p50_ms <= one.p90_ms <= one.p99_ms
    assert one.p50_interval[0] <= one.p50_ms <= one.p50_interval[1]
    assert one.init_ms > 0 and one.first_ms > 0


def test_every_other_process_loads_the_files_backwards(monkeypatch):
    orders, measure = [], host._fresh_process

    def watched(job):
        orders.append(list(job["files"]))
        return measure(job)

    monkeypatch.setattr(host, "_fresh_process", watched)
    found = latency({"float": small_net("builtin"), "int8": small_net("table")}, profile=TINY)
    assert orders == [["float", "int8"], ["int8", "float"]]
    assert {name: len(runs) for name, runs in found.samples_ns.items()} == {"float": 2, "int8": 2}


def test_delegation_and_machine_are_recorded(measured):
    assert measured.files["int8"].partitions == 1 and measured.files["int8"].delegated
    assert measured.files["float"].partitions == 2
    assert measured.runtime.startswith("ai-edge-litert ") and measured.machine["cores"] >= 1
    section = measured.as_dict("int8", "float")
    assert {"p50_ms", "p90_ms", "p99_ms", "n", "processes", "threads", "runtime", "float_p50_ms"} <= set(
        section
    )
    json.dumps(section)


def test_samples_survive_on_disk(measured, tmp_path):
    (tmp_path / "samples.json").write_text(measured.samples_json())
    content = json.loads((tmp_path / "samples.json").read_text())
    assert [len(run) for run in content["samples_ns"]["int8"]] == [12, 12]


def test_what_is_published_has_enough_samples():
    assert PUBLISH.processes >= 5 and PUBLISH.processes * PUBLISH.samples >= 1000


def test_the_worker_needs_neither_torch_nor_edgekit():
    worker = Path(harness.__file__).with_name("runner.py")
    probe = (
        f"import sys, runpy; runpy.run_path({str(worker)!r}); "
        "print('torch' in sys.modules, 'edgekit' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_kinds_are_mixed_in_one_measurement():
    files = {"tflite": small_net(), "onnx": int8_onnx(), "float": float_onnx(), "openvino": openvino_files()}
    files["bf16"] = files["openvino"]
    told = {"bf16": {"INFERENCE_PRECISION_HINT": "bf16"}}
    found = latency(files, profile=TINY, properties=told)
    assert {name: one.n for name, one in found.files.items()} == dict.fromkeys(files, 24)
    runtimes = {name: one.runtime.split()[0] for name, one in found.files.items()}
    assert runtimes == {
        "tflite": "ai-edge-litert",
        "onnx": "onnxruntime",
        "float": "onnxruntime",
        "openvino": "openvino",
        "bf16": "openvino",
    }
    assert found.files["openvino"].settings == settings("openvino", 1)
    assert found.files["bf16"].settings["INFERENCE_PRECISION_HINT"] == "bf16"
    assert found.files["onnx"].settings["allow_spinning"] is False
    section = found.as_dict("onnx", "tflite")
    assert section["runtime"].startswith("onnxruntime ") and section["ratio"] > 0
    assert len(found.runtime.split(", ")) == 3
    json.dumps(section)


def test_runtimes_that_are_not_needed_are_not_imported(tmp_path):
    (tmp_path / "a.tflite").write_bytes(small_net())
    asked = {"path": str(tmp_path / "a.tflite"), "runtime": "litert", "delegate": "xnnpack"}
    job = {"files": {"a": asked}, "seed": 0, "samples": 1, "seconds": 0, "max_seconds": 1, "warmup": 1}
    job |= {"warmup_seconds": 0, "threads": 1}
    worker = Path(harness.__file__).with_name("runner.py")
    probe = (
        f"import json, sys, runpy; space = runpy.run_path({str(worker)!r}); "
        f"space['measure'](None, json.loads({json.dumps(json.dumps(job))})); "
        "print(sorted({'onnxruntime', 'openvino', 'torch', 'edgekit'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_delegate_that_comes_and_goes_is_refused(monkeypatch):
    monkeypatch.setattr(timing, "partitions", lambda file, threads: 9)
    with pytest.raises(ArtifactError, match="1 delegate partitions in a fresh process, 9 in this one"):
        latency({"int8": small_net()}, profile=TINY)


def test_a_dead_worker_is_one_line(monkeypatch):
    monkeypatch.setattr(host.sys, "executable", "/bin/false")
    with pytest.raises(ArtifactError, match="the measuring process ended with 1"):
        latency({"int8": small_net()}, profile=TINY)


def test_an_unknown_profile_lists_the_known():
    with pytest.raises(UsageError, match="quick, publish"):
        latency({"int8": small_net()}, profile="slow")
