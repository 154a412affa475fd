"""One face over three runtimes: the same calls, the same answers, the same errors."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from onnx import TensorProto
from onnx_files import IMAGES, OnnxFile, float_onnx, int8_onnx, openvino_files
from tflite_files import small_net

from edgekit.errors import ArtifactError, UsageError
from edgekit.runtimes.runtime import (
    kind_of,
    open_source,
    read_values,
    run_model,
    run_vector,
    runtime_version,
    settings,
)

FILES = {
    "tflite": small_net,
    "onnx": float_onnx,
    "onnx int8": int8_onnx,
    "openvino": openvino_files,
    "openvino int8": lambda: openvino_files(quantized=True),
}


@pytest.mark.parametrize("name", FILES)
def test_images_in_logits_out(name):
    done: list[int] = []
    (logits,) = run_model(FILES[name](), IMAGES, progress=done.append)
    assert logits.shape == (5, 5) and logits.dtype == np.float32 and sum(done) == 5
    assert len(np.unique(logits, axis=0)) > 1
    assert np.array_equal(logits, run_model(FILES[name](), IMAGES, workers=2)[0])
    taken, given = run_vector(FILES[name](), [IMAGES[0]])
    assert taken[0].shape[0] == 1 and given[0].size == 5


def test_two_runtimes_compute_the_same_float_net():
    (first,), (second,) = run_model(float_onnx(), IMAGES), run_model(openvino_files(), IMAGES)
    assert np.allclose(first, second, atol=1e-4) and np.abs(first).max() > 0.1


def test_two_runtimes_agree_on_the_same_integers():
    (first,) = run_model(int8_onnx(), IMAGES)
    (second,) = run_model(openvino_files(quantized=True), IMAGES)
    assert np.abs(first - second).max() <= 0.04 * 1.01  # one step of the output's grid
    assert np.allclose(first / 0.04, np.rint(first / 0.04), atol=1e-3)


def test_the_kind_is_told_by_name_and_by_content(tmp_path):
    (tmp_path / "a.onnx").write_bytes(float_onnx())
    for name, data in openvino_files().items():
        (tmp_path / name).write_bytes(data)
    assert kind_of(tmp_path / "a.onnx") == kind_of(float_onnx()) == "onnx"
    assert kind_of(small_net()) == "tflite"
    opened = open_source(tmp_path / "model.xml")
    assert opened.kind == "openvino" and opened.files == openvino_files()
    assert opened.size_bytes == sum(map(len, openvino_files().values()))
    assert np.array_equal(run_model(tmp_path / "model.xml", IMAGES), run_model(openvino_files(), IMAGES))


def _damaged():
    onnx, files = float_onnx(), openvino_files()
    yield "onnx truncated", {"model.onnx": onnx[: len(onnx) // 2]}
    yield "onnx empty", {"model.onnx": b""}
    yield "onnx foreign", {"model.onnx": small_net()}
    yield "xml truncated", {**files, "model.xml": files["model.xml"][:500]}
    yield "bin truncated", {**files, "model.bin": files["model.bin"][:20]}
    yield "bin missing", {"model.xml": files["model.xml"]}
    yield "other xml", {**files, "model.xml": b"<?xml version='1.0'?><net></net>"}


@pytest.mark.parametrize(("name", "files"), list(_damaged()), ids=lambda v: v if isinstance(v, str) else "")
def test_a_damaged_file_is_one_line(name, files):
    with pytest.raises(ArtifactError) as error:
        run_model(files, IMAGES)
    assert "\n" not in str(error.value) and str(error.value).startswith("model.")


def test_fuzzed_onnx_ends_in_an_answer_or_an_artifact_error():
    whole, rng, refused = float_onnx(), np.random.default_rng(0), 0
    for _ in range(60):
        damaged = np.frombuffer(whole, np.uint8).copy()
        places = rng.integers(0, damaged.size, rng.integers(1, 12))
        damaged[places] = rng.integers(0, 256, places.size)
        try:
            run_model({"model.onnx": damaged.tobytes()}, IMAGES[:1])
        except ArtifactError:
            refused += 1
    assert refused > 5


def test_a_missing_bin_or_file_is_named(tmp_path):
    (tmp_path / "model.xml").write_bytes(openvino_files()["model.xml"])
    with pytest.raises(ArtifactError, match=r"model\.bin: cannot be read"):
        run_model(tmp_path / "model.xml", IMAGES)
    with pytest.raises(ArtifactError, match=r"none\.onnx: cannot be read"):
        run_model(tmp_path / "none.onnx", IMAGES)


@pytest.mark.parametrize("name", FILES)
def test_images_of_another_size_are_refused(name):
    with pytest.raises(ArtifactError, match=r"\(3, 9, 9\) was given: the file takes"):
        run_model(FILES[name](), np.zeros((1, 3, 9, 9), np.float32))


@pytest.mark.parametrize(
    ("module", "source", "says"),
    [
        ("onnxruntime", float_onnx, "ONNX Runtime is not installed"),
        ("onnx", float_onnx, "ONNX files need a package"),
        ("openvino", openvino_files, "OpenVINO is not installed"),
    ],
)
def test_a_missing_package_says_what_installs_it(monkeypatch, module, source, says):
    file = source()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=says) as error:
        run_model(file, IMAGES)
    assert "pip install " in str(error.value)


def test_inner_values_leave_the_answers_alone():
    for file, name in (
        (int8_onnx(), "features.1"),
        (openvino_files(quantized=True), "features.1/real"),
        (small_net(), "features.1"),
    ):
        values = read_values(file, [name], IMAGES[:2])[name]
        assert values.shape[:2] == (2, 1) and values.dtype == np.float32
        assert values.std() > 0.05
    files, name = (int8_onnx(), openvino_files(quantized=True)), "features.1/real"
    on, ov = (read_values(file, [name], IMAGES)[name] for file in files)
    steps = np.abs(on - ov) / np.float32(0.05)
    assert steps.max() <= 1.01 and np.allclose(on / 0.05, np.rint(on / 0.05), atol=1e-3)


def test_a_name_that_no_operator_writes_is_refused():
    for file in (float_onnx(), openvino_files(), small_net()):
        with pytest.raises(ArtifactError, match="no operator writes 'nowhere'"):
            read_values(file, ["nowhere"], IMAGES[:1])


def test_integer_inputs_and_outputs_are_converted_by_the_files_own_grids():
    file = OnnxFile()
    grid = file.grid("x", 0.1, 100)
    file.node("DequantizeLinear", ["x", *grid], "real")
    file.node("Flatten", ["real"], "flat")
    file.node("QuantizeLinear", ["flat", *grid], "y")
    data = file.bytes([("y", TensorProto.UINT8, (1, 192))], [("x", TensorProto.UINT8, (1, 3, 8, 8))])
    (found,) = run_model(data, IMAGES)
    assert np.allclose(found, (np.rint(IMAGES / 0.1) * 0.1).reshape(5, -1), atol=1e-5)
    taken, given = run_vector(data, [IMAGES[0]])
    assert taken[0].dtype == given[0].dtype == np.uint8


def test_what_each_runtime_is_told_is_recorded():
    assert settings("openvino", 2)["INFERENCE_PRECISION_HINT"] == "f32"
    assert settings("openvino", 2)["INFERENCE_NUM_THREADS"] == 2
    assert settings("onnx")["allow_spinning"] is False
    assert [runtime_version(kind).split()[0] for kind in ("tflite", "onnx", "openvino")] == [
        "ai-edge-litert",
        "onnxruntime",
        "openvino",
    ]
