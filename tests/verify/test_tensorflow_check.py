"""TensorFlow's interpreter against LiteRT, and the answers to bad input."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.errors import ArtifactError, UsageError
from edgekit.graph.ir import Graph
from edgekit.graph.run import run
from edgekit.lower.ports import Port, Ports
from edgekit.lower.tflite import lower, prepare
from edgekit.quantize import annotate
from edgekit.runtimes.tensorflow import run as checks
from edgekit.runtimes.tensorflow.run import TensorflowCheck, run_saved_model, tensorflow_check
from edgekit.targets import get_target
from tests.cases import Case, Sketch

REASON = "the extra edgekit[tensorflow] is not installed"


def _net(s: Sketch):
    x = s.op("hardswish", s.conv(s.input, 16, 3, padding=1))
    x = s.op("add", x, s.conv(x, 16, 3, padding=1, groups=16), activation="relu")
    return s.linear(s.op("mean", x, dims=(2, 3), keepdim=False), 10)


NET = Case(_net)
IMAGES = NET.images(6).numpy()
NONE = Ports((Port("x", "x", (1, 8, 10, 12), (0, 2, 3, 1)),), ())


@pytest.fixture(scope="session")
def tensorflow() -> None:
    if importlib.util.find_spec("tensorflow") is None:
        if os.environ.get("EDGEKIT_CI") == "1":
            pytest.fail(REASON)
        pytest.skip(REASON)


def _file(target_name: str, graph: Graph | None = None) -> bytes:
    target, graph = get_target(target_name), graph or NET.graph()
    if target.quantized:
        ranges = {}

        def see(value, tensor: torch.Tensor) -> torch.Tensor:
            if not value.is_constant:
                ranges[value] = (float(tensor.min()), float(tensor.max()))
            return tensor

        run(graph, [torch.from_numpy(IMAGES)], on_value=see)
        annotate(graph, ranges)
    return lower(prepare(graph, target), target).data


@pytest.fixture(scope="module")
def int8(tensorflow: None) -> TensorflowCheck:
    return tensorflow_check(_file("tflite-int8"), IMAGES)


def test_an_int8_file_answers_alike_under_tensorflow(int8: TensorflowCheck) -> None:
    assert {row.kernels for row in int8.outputs} == {"default", "reference"}
    by_kernels = {row.kernels: row.max_lsb for row in int8.outputs}
    assert by_kernels["default"] == 0  # the same delegate
    assert by_kernels["reference"] <= 2  # requantization rounds differently, and differences add up
    assert int8.max_lsb == max(by_kernels.values())
    assert int8.images == 6


def test_the_record_is_readable_and_json(int8: TensorflowCheck) -> None:
    assert str(int8).startswith(f"TensorFlow {int8.tensorflow} against LiteRT {int8.litert}: at most ")
    assert f"{int8.agreement:.1%} of 6 images" in str(int8)
    assert json.loads(json.dumps(int8.as_dict()))["max_lsb"] == int8.max_lsb


def test_a_float_file_is_compared_relatively(tensorflow: None) -> None:
    found = tensorflow_check(_file("tflite-float32"), IMAGES[:2])
    assert found.max_lsb is None
    assert found.max_relative_error < 1e-5
    assert found.agreement == 1.0
    assert "relative" in str(found)


def test_a_difference_is_seen(tensorflow: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow is handed another file than LiteRT: the check must say so."""
    changed = NET.graph()
    bias = changed.nodes[-1].inputs[2]
    assert bias is not None and bias.data is not None
    bias.data = -bias.data
    other, asked = _file("tflite-int8", changed), checks._asked
    monkeypatch.setattr(checks, "_asked", lambda job: asked(job | {"data": other}))
    found = tensorflow_check(_file("tflite-int8"), IMAGES)
    assert found.max_lsb is not None and found.max_lsb > 10
    assert found.agreement < 1.0


def test_without_tensorflow_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for call in (lambda: tensorflow_check(b"", IMAGES), lambda: run_saved_model("nowhere", IMAGES, NONE)):
        with pytest.raises(UsageError, match=r"pip install 'edgekit\[tensorflow\]'$"):
            call()


def test_bad_input_is_refused_before_tensorflow_is_started(
    tensorflow: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_asked", lambda job: pytest.fail("TensorFlow was started"))
    with pytest.raises(ArtifactError, match=r"an image of shape \(10, 12\) was given"):
        tensorflow_check(_file("tflite-float32"), IMAGES[0])
    with pytest.raises(ArtifactError, match="not a TFLite file"):
        tensorflow_check(b"\0" * 64, IMAGES)
    with pytest.raises(ArtifactError, match=r"holds no saved_model\.pb"):
        run_saved_model(tmp_path, IMAGES, NONE)
    with pytest.raises(ArtifactError, match=r"inputs of shape \(0, 8, 10, 12\) were given"):
        run_saved_model(tmp_path, np.zeros((0, 8, 10, 12)), NONE)


def test_a_damaged_saved_model_is_one_line(tensorflow: None, tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"\xff" * 100)
    with pytest.raises(ArtifactError, match="TensorFlow ended with exit code 1") as error:
        run_saved_model(tmp_path, IMAGES, NONE)
    assert "\n" not in str(error.value)
