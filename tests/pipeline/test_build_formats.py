"""One build, every format: the same integers in TFLite, ONNX and OpenVINO, each proven in its own runtime."""

import hashlib
import importlib.util
import json
import os
import sys

import numpy as np
import onnx
import pytest
import torch
from small_model import NET, net

import edgekit as package
from edgekit.bundle import check_bundle
from edgekit.capture.onnx import import_onnx, read
from edgekit.report import validate
from edgekit.runtimes.litert.run import open_interpreter
from edgekit.runtimes.runtime import run_model

FEW = ["--calibration", 24, "--evaluation", 40, "--profile", "fast", "--latency", "off"]
INT8 = ("tflite-int8", "onnx-int8", "openvino-int8")
EVERY = (*INT8, "onnx-float32", "openvino-float16", "tensorrt-int8")


def _images(count, seed):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def run(shared_cache, tmp_path_factory):
    """A build of every target that this machine has a runtime for, with everything on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CACHE", str(shared_cache))
        module, images = net(), _images(60, 1)
        yield package.build(
            module,
            targets=EVERY,
            calibration=_images(32, 2),
            evaluation=(images, module(images).argmax(1)),
            out=tmp_path_factory.mktemp("run") / "out",
            quantize={"profile": "fast"},
            verify={
                "max_top1_drop": 0.2,
                "max_latency_ratio": "off",
                "min_pairwise_agreement": 0.5,
                "openvino-int8": {"max_undelegated": "off", "max_partitions": 1},
            },
        )


def test_every_artifact_passes_its_proofs(run):
    validate(run.report)
    assert run.ok, [gate for gate in run.report["gates"] if not gate["ok"]]
    for name in EVERY:
        artifact = run.report["artifacts"][name]
        assert artifact["drift"]["n"] == 60
        assert check_bundle(run.directory / name).ok
        if name.endswith("int8"):
            assert artifact["fidelity"]["max_lsb"] <= 1
            assert artifact["drift"]["sqnr_db"] > 20


def test_a_gate_that_is_off_is_a_remark_in_the_report_and_on_its_pages(run):
    gates = run.report["gates"]
    remarks = {(gate["target"], gate["name"]) for gate in gates if not gate["judged"]}
    assert {("openvino-int8", "delegation"), ("onnx-int8", "latency"), ("tflite-int8", "latency")} <= remarks
    named = {gate["name"]: gate for gate in gates if gate["target"] == "openvino-int8"}
    assert "max_undelegated is off" in named["delegation"]["detail"]
    assert named["partitions"]["judged"] and "compiled parts, 1 allowed" in named["partitions"]["detail"]
    assert next(g for g in gates if (g["target"], g["name"]) == ("onnx-int8", "delegation"))["judged"]
    for page in ("report.html", "report.md"):
        assert "max_undelegated is off" in (run.directory / page).read_text()


def test_scales_are_those_of_the_tflite_file(run):
    """Every scale of an activation in the ONNX file is one of the .tflite file's, shifted to uint8."""
    grids = {(np.float32(scale), zero_point) for scale, zero_point in _grids(run, "tflite-int8")}
    model = onnx.load(str(run.artifacts["onnx-int8"].path)).graph
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.initializer}
    own = {tuple(node.input[1:]) for node in model.node if node.op_type == "QuantizeLinear"}
    found = [(held[scale].item(), held[zero].item() - 128) for scale, zero in own]
    shared = [grid for grid in found if (np.float32(grid[0]), grid[1]) in grids]
    assert len(shared) >= 5 and len(shared) >= len(found) - 2  # a gate has a grid of its own


def _grids(run, target):
    interpreter = open_interpreter(run.artifacts[target].path)
    for detail in interpreter.get_tensor_details():
        if detail["dtype"] == np.int8 and len(detail["quantization_parameters"]["scales"]) == 1:
            scale, zero_point = detail["quantization"]
            yield float(scale), int(zero_point)


def test_the_artifacts_are_held_against_each_other(run):
    found = run.report["agreement"]
    assert found["targets"] == list(INT8) and found["n"] == 60
    logits = {name: run_model(run.artifacts[name].path, _images(60, 1).numpy())[0].argmax(1) for name in INT8}
    for i, a in enumerate(INT8):
        for j, b in enumerate(INT8):
            assert found["top1"][i][j] == pytest.approx(100 * float(np.mean(logits[a] == logits[b])))
    assert {gate["name"] for gate in run.report["gates"] if gate["target"] == "all"} == {
        f"agreement {pair['a']} and {pair['b']}".replace(" and ", " ") for pair in found["pairs"]
    }


def test_every_runtime_is_timed_in_one_table(run):
    rows = run.report["runtimes"]
    assert {row["target"] for row in rows} == {*EVERY, "tflite-float32"} - {"tensorrt-int8"}
    assert [row["p50_ms"] for row in rows] == sorted(row["p50_ms"] for row in rows)
    told = next(row["settings"] for row in rows if row["target"] == "openvino-int8")
    assert told["INFERENCE_PRECISION_HINT"] == "f32"
    assert run.report["artifacts"]["onnx-int8"]["latency"]["float_target"] == "onnx-float32"
    assert run.report["artifacts"]["openvino-int8"]["times"]["method"] == "profiler"


def test_a_rebuild_repeats_every_byte(edgekit, cache, tmp_path):
    targets = [word for name in EVERY for word in ("--target", name)]
    code, _, err = edgekit("build", NET, *targets, "--out", tmp_path / "a", *FEW)
    assert code in (0, 1), err  # 1: untrained answers need not agree
    code, out, _ = edgekit("repro", tmp_path / "a")
    assert code == 0 and out.count("byte-identical") == len(EVERY)


def test_the_openvino_files_stay_together_when_rejected(edgekit, cache, tmp_path):
    strict = tmp_path / "strict.toml"
    strict.write_text(
        f'model = "{NET}"\n[target]\nnames = ["openvino-int8"]\n[verify]\nmax_size_bytes = 10\n'
    )
    code, _, _ = edgekit("build", "--recipe", strict, "--out", tmp_path / "out", *FEW)
    assert code == 1
    path = tmp_path / "out/openvino-int8/model.rejected.xml"
    assert run_model(path, _images(1, 0).numpy())[0].shape == (1, 4)
    report = json.loads((tmp_path / "out/report.json").read_text())
    stored = report["artifacts"]["openvino-int8"]["files"]
    assert stored["model.bin"] == hashlib.sha256(path.with_suffix(".bin").read_bytes()).hexdigest()


def test_nncf_may_quantize_instead(edgekit, cache, tmp_path):
    out = tmp_path / "out"
    arguments = ("--target", "openvino-int8", "--quantizer", "nncf", "--out", out, *FEW)
    code, _, err = edgekit("build", NET, *arguments)
    assert code in (0, 1), err
    artifact = json.loads((out / "report.json").read_text())["artifacts"]["openvino-int8"]
    assert artifact["quantizer"] == "nncf" and artifact["audit"]["int8_macs_share"] > 0.5


def test_nncf_is_for_openvino_alone(edgekit, cache, tmp_path):
    code, _, err = edgekit("build", NET, "--quantizer", "nncf", "--out", tmp_path / "out", *FEW)
    assert code == 2 and "openvino-int8 alone" in err


def test_the_batch_may_stay_open(edgekit, cache, tmp_path):
    targets = ("--target", "onnx-int8", "--target", "openvino-int8")
    code, _, err = edgekit("build", NET, *targets, "--dynamic-batch", "--out", tmp_path / "out", *FEW)
    assert code in (0, 1), err
    for target in ("onnx-int8", "openvino-int8"):
        manifest = json.loads((tmp_path / "out" / target / "manifest.json").read_text())
        assert manifest["inputs"][0]["shape"] == [-1, 3, 32, 32]
        assert check_bundle(tmp_path / "out" / target).ok
    path = next((tmp_path / "out/onnx-int8").glob("model*.onnx"))
    (size,) = {str(i.type.tensor_type.shape.dim[0].dim_param) for i in onnx.load(str(path)).graph.input}
    assert size


@pytest.mark.parametrize(
    ("target", "package_name"), [("openvino-int8", "openvino"), ("onnx-int8", "onnxruntime")]
)
def test_a_missing_runtime_is_one_line(edgekit, cache, tmp_path, monkeypatch, target, package_name):
    for loaded in [name for name in sys.modules if name.split(".")[0] == package_name]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, package_name, None)
    code, _, err = edgekit("build", NET, "--target", target, "--out", tmp_path / "out", *FEW)
    last = err.strip().splitlines()[-1]
    assert code == 2 and "pip install" in last and not os.path.exists(tmp_path / "out")


@pytest.mark.parametrize("target", ["tensorrt-int8", "onnx-int8"])
def test_a_quantized_onnx_file_keeps_its_scales(edgekit, cache, tmp_path, target):
    """Also where it leaves the stem and the logits in float: those are calibrated."""
    first, again = tmp_path / "first", tmp_path / "again"
    edgekit("build", NET, "--target", target, "--out", first, *FEW)
    path = next((first / target).glob("model*.onnx"))
    given = {v.quant.scale for v in import_onnx(read(path)).values() if v.quant and v.data is None}
    code, _, err = edgekit("build", path, "--target", "tflite-int8", "--out", again, *FEW)
    assert code in (0, 1), err
    details = open_interpreter(next((again / "tflite-int8").glob("model*.tflite"))).get_tensor_details()
    kept = {tuple(detail["quantization_parameters"]["scales"].tolist()) for detail in details}
    assert given and given <= kept


def test_tensorflow_may_judge_too(edgekit, cache, tmp_path):
    """A hand-over that TensorFlow loads, and its own interpreter on our .tflite file."""
    if importlib.util.find_spec("tensorflow") is None:
        if os.environ.get("EDGEKIT_CI") == "1":
            pytest.fail("tensorflow is missing, and EDGEKIT_CI is set: pip install -e '.[all]'")
        pytest.skip("tensorflow is not installed: pip install 'edgekit[tensorflow]'")
    targets = ("--target", "tflite-int8", "--target", "savedmodel", "--tensorflow-check")
    code, _, err = edgekit("build", NET, *targets, "--out", tmp_path / "out", *FEW)
    assert code == 0, err
    artifacts = json.loads((tmp_path / "out/report.json").read_text())["artifacts"]
    assert artifacts["tflite-int8"]["tensorflow"]["max_lsb"] <= 1
    assert artifacts["savedmodel"]["drift"]["sqnr_db"] > 80
    assert check_bundle(tmp_path / "out/savedmodel").ok
