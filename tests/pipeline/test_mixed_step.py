"""[mixed] and modules kept in float, in a build: proven, reported, the same after a second build."""

import json
import math

import pytest
import torch
from small_model import net

import edgekit
from edgekit.errors import EdgekitError
from edgekit.mixed.prices import units_of_graph
from edgekit.pipeline import mixed
from edgekit.pipeline.recipe import from_dict
from edgekit.pipeline.step_settings import mixed_of
from edgekit.targets import get_target

OFF = {"device": {"profile": "off"}, "quantize": {"profile": "fast"}}


def _images(count=48):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def _build(out, **more):
    images = _images()
    return edgekit.build(net(), calibration=images[:32], evaluation=images, out=out, **(OFF | more))


@pytest.fixture
def counted(monkeypatch):
    """A clock that counts what units read and write."""

    def ns(unit):
        return sum(
            math.prod(t.shape) * (2.0 if t.dtype == "float32" else 1.0) for t in (*unit.inputs, *unit.outputs)
        )

    def measured(self, graphs):
        return {
            name: 1e-6 * sum(map(ns, units_of_graph(graph, get_target(target))))
            for name, (graph, target) in graphs.items()
        }

    monkeypatch.setattr(mixed.BoardClock, "ns", lambda self, units: ns)
    monkeypatch.setattr(mixed.BoardClock, "measured_ms", measured)


def test_a_build_chooses_precisions_and_proves_them(tmp_path, cache, counted):
    run = _build(tmp_path, mixed={"ratio": 1.6}, targets=["tflite-int8", "openvino-int8"])
    record = run.report["artifacts"]["tflite-int8"]["quantize"]["mixed"]
    int8, chosen, real = record["points"]
    assert int8["ms"] < chosen["ms"] <= 1.616 * int8["ms"] and chosen["ms"] <= real["ms"]
    assert {row["precision"] for row in record["nodes"]} <= {"float", "dynamic"} and record["nodes"]
    assert record["sqnr_db"] >= int8["sqnr_db"]
    artifact = run.report["artifacts"]["tflite-int8"]
    assert artifact["fidelity"]["max_lsb"] <= 1 and artifact["audit"]["partitions"] == 1
    assert artifact["audit"]["float_ops"]
    shares = [gate for gate in run.report["gates"] if gate["name"] == "int8" and "tflite" in gate["target"]]
    assert all(not gate.get("judged", True) for gate in shares)  # it was asked for
    assert "mixed" not in (run.report["artifacts"]["openvino-int8"]["quantize"] or {})
    text = (tmp_path / "report.md").read_text()
    assert "Mixed precision of tflite-int8" in text and "What is not int8 in tflite-int8" in text
    assert "at most 1.6" in text and (tmp_path / "report.html").exists()
    again = _build(tmp_path / "again", mixed={"ratio": 1.6}, targets=["tflite-int8"])
    assert again.report["artifacts"]["tflite-int8"]["sha256"] == artifact["sha256"]


def test_accuracy_is_judged_by_files_on_other_pictures(tmp_path, cache, counted):
    run = _build(tmp_path, mixed={"drop": 0.5}, targets=["tflite-int8"])
    record = run.report["artifacts"]["tflite-int8"]["quantize"]["mixed"]
    assert record["nodes"] == [] and record["asked"] == {"drop": 0.5}  # int8 alone does
    assert "at most 50 points lost" in (tmp_path / "report.md").read_text()


def test_modules_stay_float_in_every_format(tmp_path, cache):
    quantize = {"profile": "fast", "float_modules": ["3", "8"], "dynamic_modules": ["4"]}
    run = _build(tmp_path, quantize=quantize, targets=["tflite-int8", "onnx-int8", "openvino-int8"])
    for name, artifact in run.report["artifacts"].items():
        kinds = {row["module"]: row["precision"] for row in artifact["quantize"]["mixed"]["nodes"]}
        assert kinds["4"] == "dynamic" and kinds["3.depthwise"] == kinds["8"] == "float", name
        assert artifact["audit"]["float_ops"] and artifact["fidelity"]["max_lsb"] <= 1, name
    plain = _build(tmp_path / "plain", targets=["tflite-int8"])
    files = run.report["artifacts"]["tflite-int8"], plain.report["artifacts"]["tflite-int8"]
    assert files[0]["drift"]["sqnr_db"] > files[1]["drift"]["sqnr_db"] - 1.0


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"mixed": {"ratio": 1.1}, "targets": ["onnx-int8"]}, "not among the targets"),
        ({"mixed": {"ratio": 1.1, "sqnr": 30.0}}, "one of latency_ms, ratio"),
        ({"mixed": {}}, "one of latency_ms, ratio"),
        ({"mixed": {"drop": 1.5}}, "a fraction"),
        ({"mixed": {"latency_ms": 0.0}}, "more than 0"),
        ({"mixed": {"ratio": 1.1}, "quantize": {"float_modules": ["3"]}}, "one of the two"),
        ({"quantize": {"float_modules": ["nothing"]}}, "is no module of"),
    ],
)
def test_what_cannot_be_chosen_is_refused(tmp_path, cache, told, said):
    with pytest.raises(EdgekitError, match=said):
        _build(tmp_path / "out", **({"targets": ["tflite-int8"]} | told))
    assert not (tmp_path / "out").exists()


def test_words_of_the_command_line():
    assert mixed_of("latency=4ms") == {"latency_ms": 4.0}
    assert mixed_of("latency=4.5ms@pi4") == {"latency_ms": 4.5, "device": "pi4"}
    assert mixed_of("latency=1.06x") == {"ratio": 1.06}
    assert mixed_of("latency=1.06x@pi4") == {"ratio": 1.06, "device": "pi4"}
    assert mixed_of("sqnr=30") == {"sqnr": 30.0} and mixed_of("drop=0.002") == {"drop": 0.002}
    for wrong in ("", "latency", "latency=4", "sqnr=much", "fast", "latency=x"):
        with pytest.raises(EdgekitError, match="sqnr=30"):
            mixed_of(wrong)
    recipe = from_dict({"model": "resnet18", "mixed": {"ratio": 1.1}})
    assert json.loads(json.dumps(recipe.to_dict()))["mixed"]["ratio"] == 1.1
