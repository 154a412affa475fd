"""The main job from the command line and from Python: artifacts, proofs, cache, gates, rebuilds."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from small_model import NET, net

import edgekit as package
from edgekit.bundle import check_bundle
from edgekit.errors import GateError
from edgekit.report import validate
from edgekit.runtimes.litert.run import open_interpreter

FEW = ["--calibration", 24, "--evaluation", 40, "--profile", "fast", "--latency", "off"]


def _images(count, seed):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def _run(path, inputs):
    interpreter = open_interpreter(path)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], inputs[0])
    interpreter.invoke()
    return [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]


@pytest.fixture(scope="module")
def run(shared_cache, tmp_path_factory):
    """A build from Python with everything on."""
    before = os.environ.get("EDGEKIT_CACHE")
    os.environ["EDGEKIT_CACHE"] = str(shared_cache)
    module, images = net(), _images(60, 1)
    labels = module(images).argmax(1)
    out = tmp_path_factory.mktemp("run") / "out"
    try:
        yield package.build(
            module,
            targets=["tflite-int8", "tflite-float16"],
            calibration=_images(32, 2),
            evaluation=(images, labels),
            out=out,
            class_names=["a", "b", "c", "d"],
            quantize={"profile": "fast"},
            verify={"max_top1_drop": 0.2, "max_latency_ratio": "off"},
        )
    finally:
        if before is None:
            del os.environ["EDGEKIT_CACHE"]
        else:
            os.environ["EDGEKIT_CACHE"] = before


def test_the_report_is_valid_and_says_what_was_proven(run):
    report = json.loads((run.directory / "report.json").read_text())
    validate(report)
    assert report == run.report
    int8 = report["artifacts"]["tflite-int8"]
    assert int8["fidelity"]["max_lsb"] <= 1
    assert int8["drift"]["metric"] == "top1"
    assert int8["drift"]["n"] == 60
    assert int8["audit"]["int8_ops_share"] == 1.0
    assert int8["audit"]["input_dtype"] == "int8"
    assert int8["latency"]["p50_ms"] > 0
    assert int8["latency"]["processes"] >= 2
    assert {g["name"] for g in report["gates"] if g["target"] == "tflite-int8"} >= {"fidelity", "drift"}
    assert run.ok


def test_the_pages_are_written(run):
    html = (run.directory / "report.html").read_text()
    assert "tflite-int8" in html
    assert "<script src" not in html
    assert "tflite-int8" in (run.directory / "report.md").read_text()


def test_artifacts_are_what_the_report_says(run):
    for name, artifact in run.artifacts.items():
        data = artifact.path.read_bytes()
        assert hashlib.sha256(data).hexdigest() == run.report["artifacts"][name]["sha256"]
        assert len(data) == run.report["artifacts"][name]["size_bytes"]
        assert not artifact.rejected


@pytest.mark.parametrize("target", ["tflite-int8", "tflite-float16"])
def test_the_bundle_passes_its_own_golden_vectors(run, target):
    checked = check_bundle(run.directory / target, _run)
    assert checked.ok, checked.problems
    assert checked.vectors == 3


def test_raw_latency_samples_are_kept(run):
    raw = json.loads((run.directory / "tflite-int8" / "latency_samples.json").read_text())
    flat = np.concatenate(raw["samples_ns"]["tflite-int8"])
    assert len(flat) == run.report["artifacts"]["tflite-int8"]["latency"]["n"]


def test_layers_cover_the_weights_of_the_file(run):
    int8 = run.report["artifacts"]["tflite-int8"]
    assert sum(row["bytes"] for row in int8["layers"]) == sum(int8["audit"]["bytes_by_module"].values())
    assert sum(row["macs"] for row in int8["layers"]) == int8["audit"]["macs"] >= run.report["cost"]["macs"]


def test_from_the_command_line(edgekit, cache, folder, tmp_path):
    out = tmp_path / "out"
    code, text, err = edgekit("build", NET, "--data", f"imagefolder:{folder}", "--out", out, *FEW)
    assert code == 0, err
    assert (out / "tflite-int8" / "model.tflite").exists()
    assert "report.html" in text
    report = json.loads((out / "report.json").read_text())
    assert report["provenance"]["data"]["n_evaluation"] <= 40
    assert report["artifacts"]["tflite-int8"]["drift"]["metric"] == "top1"
    code, text, _ = edgekit("inspect", out)
    assert code == 0
    assert "CONV_2D" in text
    (out / "report.html").unlink()
    code, text, _ = edgekit("report", out)
    assert code == 0
    assert (out / "report.html").exists()


def test_a_second_build_finds_every_stored_stage_and_writes_the_same_bytes(edgekit, cache, folder, tmp_path):
    reports = []
    for name in ("one", "two"):
        arguments = ("build", NET, "--data", f"imagefolder:{folder}", "--out", tmp_path / name, *FEW)
        code, _, err = edgekit(*arguments)
        assert code == 0, err
        reports.append(json.loads((tmp_path / name / "report.json").read_text()))
    assert "cached" in err
    stored = {"reference", "quantize", "lower tflite-int8", "fidelity tflite-int8", "drift tflite-int8"}
    assert stored <= {stage["name"] for stage in reports[1]["stages"] if stage["cached"]}
    first, second = (r["artifacts"]["tflite-int8"]["sha256"] for r in reports)
    assert first == second


def test_another_setting_redoes_only_what_it_touches(edgekit, cache, folder, tmp_path):
    arguments = ("build", NET, "--data", f"imagefolder:{folder}", *FEW)
    assert edgekit(*arguments, "--out", tmp_path / "a")[0] == 0
    assert edgekit(*arguments, "--out", tmp_path / "b", "--io", "float32")[0] == 0
    report = json.loads((tmp_path / "b" / "report.json").read_text())
    cached = {stage["name"]: stage["cached"] for stage in report["stages"]}
    assert cached["quantize"]
    assert cached["reference"]
    assert not cached["lower tflite-int8"]
    assert report["artifacts"]["tflite-int8"]["audit"]["input_dtype"] == "float32"


def test_repro_rebuilds_the_same_bytes(edgekit, cache, folder, tmp_path):
    out = tmp_path / "out"
    assert edgekit("build", NET, "--data", f"imagefolder:{folder}", "--out", out, *FEW)[0] == 0
    code, text, err = edgekit("repro", out)
    assert code == 0, err
    assert "tflite-int8: byte-identical" in text


def test_a_failed_gate_exits_1_names_the_cause_and_keeps_the_file_as_rejected(
    edgekit, cache, folder, tmp_path
):
    recipe = tmp_path / "strict.toml"
    recipe.write_text(f'model = "{NET}"\n[verify]\nmax_size_bytes = 10\n')
    out = tmp_path / "out"
    arguments = ("--data", f"imagefolder:{folder}", "--out", out, *FEW)
    assert edgekit("build", NET, *arguments)[0] == 0
    code, _, err = edgekit("build", "--recipe", recipe, *arguments)
    assert code == 1
    assert "size" in err
    assert "prune" in err
    assert not (out / "tflite-int8" / "model.tflite").exists()
    assert (out / "tflite-int8" / "model.rejected.tflite").exists()
    assert json.loads((out / "report.json").read_text())["verdict"] == "rejected"


def test_a_failed_gate_from_python_raises_only_when_asked(cache, tmp_path):
    run = package.build(
        net(),
        calibration=_images(8, 2),
        out=tmp_path / "out",
        quantize={"profile": "fast"},
        verify={"max_size_bytes": 10},
        device={"profile": "off"},
    )
    assert not run.ok
    assert run.artifacts["tflite-int8"].rejected
    with pytest.raises(GateError, match="tflite-int8 size"):
        run.raise_for_gates()


_BUILD = """
import sys
from edgekit.cli.main import main
sys.argv = ["edgekit", "build", *sys.argv[1:]]
main()
"""


def _start(cache, *arguments):
    command = [sys.executable, "-c", _BUILD, *map(str, arguments)]
    environment = os.environ | {"EDGEKIT_CACHE": str(cache)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_two_builds_at_once_and_one_that_is_killed(folder, tmp_path):
    cache = tmp_path / "cache"
    arguments = (NET, "--data", f"imagefolder:{folder}", *FEW)
    killed = _start(cache, *arguments, "--out", tmp_path / "killed")
    while killed.poll() is None and not list(cache.glob("*/.*")) and not list(cache.glob("*/*/entry.json")):
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "killed").exists()
    both = [_start(cache, *arguments, "--out", tmp_path / name) for name in ("one", "two")]
    for process in both:
        text, _ = process.communicate()
        assert process.returncode == 0, text.decode()
    one, two = ((tmp_path / name / "tflite-int8" / "model.tflite").read_bytes() for name in ("one", "two"))
    assert one == two
