"""[qat] in a build: the rungs that the gates ask for, what held-out images take back, every int8 target."""

import copy
import json

import numpy as np
import pytest
import torch
from small_model import NET, net

import edgekit
from edgekit.errors import QuantizationError, UsageError
from edgekit.pipeline import recipe as recipes
from edgekit.pipeline.step_settings import is_qat, qat_of
from edgekit.runtimes.litert.run import open_interpreter

FAST = {"device": {"profile": "off"}, "quantize": {"profile": "fast"}, "task": "classification"}
LIGHT = {"how": "light", "light_steps": 3, "held_out": 8}


def _images(count=40):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def _build(out, **settings):
    images = _images()
    return edgekit.build(net(), calibration=images[:24], evaluation=images, out=out, **{**FAST, **settings})


def _answers(run, images):
    """What the file says, in real numbers."""
    interpreter = open_interpreter(run.artifacts["tflite-int8"].path)
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for image in images.numpy():
        step, zero = taken["quantization"]
        codes = np.clip(np.rint(image / np.float32(step)) + zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(taken["index"], np.ascontiguousarray(codes.transpose(1, 2, 0))[None])
        interpreter.invoke()
        step, zero = given["quantization"]
        found.append((interpreter.get_tensor(given["index"])[0].astype(np.float32) - zero) * np.float32(step))
    return np.stack(found)


def _trained(run, target="tflite-int8"):
    return run.report["artifacts"][target]["quantize"]["qat"]


def test_light_is_tried_and_said(tmp_path, cache):
    run = _build(tmp_path, qat=LIGHT)
    found = _trained(run)
    (row,) = found["tried"]
    assert (row["rung"], row["steps"], row["images"], row["trained_on"]) == ("light", 3, 6, 18)
    assert row["by"] == "answers" and "QAT light" in found["notes"][0]
    parts = run.report["artifacts"]["tflite-int8"]["quantize"]["parts"]
    assert parts[-1]["name"] == "qat light" and parts[-1]["on"] == row["accepted"]
    assert run.report["artifacts"]["tflite-int8"]["fidelity"]["max_lsb"] == 0
    assert "QAT light" in (tmp_path / "report.md").read_text()
    assert "QAT light" in (tmp_path / "report.html").read_text()


def test_where_calibration_passes_nothing_runs(tmp_path, cache):
    run = _build(tmp_path, qat={}, verify={"min_agreement": 0.0, "min_images": 1})
    assert _trained(run)["tried"] == [] and "nothing was trained" in _trained(run)["notes"][0]
    plain = _build(tmp_path / "plain")
    assert (
        plain.report["artifacts"]["tflite-int8"]["sha256"]
        == (run.report["artifacts"]["tflite-int8"]["sha256"])
    )


def test_gates_that_fail_climb_to_the_top(tmp_path, cache, folder, edgekit, monkeypatch):
    monkeypatch.setattr("edgekit.pipeline.qat._passes", lambda *_: False)
    code, _, error = edgekit(
        "build", NET, "--latency", "off", "--data", f"imagefolder:{folder}", "--profile", "fast",
        "--calibration", 8, "--evaluation", 40, "--recipe", _recipe(tmp_path), "--out", tmp_path / "out",
        "--target", "tflite-int8", "--target", "onnx-int8",
    )  # fmt: skip
    assert code in (0, 1), error
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    found = report["artifacts"]["tflite-int8"]["quantize"]["qat"]
    assert [row["rung"] for row in found["tried"]] == ["light", "full"]
    light, full = found["tried"]
    assert light["by"] == "answers" and full["by"] == "labels" and full["images"] == light["images"]
    assert report["artifacts"]["onnx-int8"]["quantize"]["qat"] == found
    assert report["artifacts"]["tflite-int8"]["fidelity"]["max_lsb"] == 0
    code, printed, error = edgekit("repro", tmp_path / "out")
    assert code == 0 and "DIFFERENT" not in printed, printed + error


def _recipe(folder):
    path = folder / "qat.toml"
    path.write_text(
        f'model = "{NET}"\n[qat]\nlight_steps = 2\nlight_images = 16\nheld_out = 8\nsteps = 3\nbatch = 8\n'
    )
    return path


def test_a_killed_build_ends_with_the_same_bytes(tmp_path, monkeypatch):
    def sha(run):
        return run.report["artifacts"]["tflite-int8"]["sha256"]

    told = {"qat": {**LIGHT, "light_steps": 6, "held_out": 3}}
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "one"))
    whole = _build(tmp_path / "a", **told)
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "two"))
    from edgekit.train import loop

    advance = loop._Run._advance

    def killed(self, step, *rest):
        if step == 4 and self.losses:
            raise KeyboardInterrupt
        return advance(self, step, *rest)

    monkeypatch.setattr(loop._Run, "_advance", killed)
    with pytest.raises(KeyboardInterrupt):
        _build(tmp_path / "b", **told)
    assert list((tmp_path / "two").rglob("light.pt"))
    monkeypatch.setattr(loop._Run, "_advance", advance)
    again = _build(tmp_path / "b", **told)
    assert sha(again) == sha(whole)


def test_a_module_trained_by_hand_is_built_with_its_integers(tmp_path, cache):
    images = _images()
    module = edgekit.qat(net(), images[:1], images[:24], profile="fast")
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    module.train()
    for step in range(4):
        optimizer.zero_grad()
        module(images[step * 8 : step * 8 + 8]).square().mean().backward()
        optimizer.step()
    module.eval()
    run = edgekit.build(
        module, calibration=images[:8], evaluation=images, original=net(), out=tmp_path, **FAST
    )
    with torch.no_grad():
        wanted = module(images).numpy()
    steps = np.abs(_answers(run, images) - wanted) / module.to_graph().outputs[0].quant.scale[0]
    assert steps.max() < 1.01 and (steps > 0.5).mean() < 0.05  # a mean that falls on a tie may round apart
    assert run.report["artifacts"]["tflite-int8"]["fidelity"]["max_lsb"] == 0
    with pytest.raises(QuantizationError, match="of integers already"):
        edgekit.qat(module, images[:1], images[:8])
    with pytest.raises(UsageError, match="holds quantized weights already"):
        edgekit.build(copy.deepcopy(module), calibration=images[:8], qat=LIGHT, out=tmp_path / "no", **FAST)


def test_arrays_of_a_few_images_are_enough(tmp_path, cache):
    images = _images(3)
    run = edgekit.build(net(), calibration=images, out=tmp_path, qat={"light_steps": 2}, **FAST)
    found = _trained(run)
    assert found["tried"][0]["images"] == 1 and not found["tried"][0]["accepted"]
    assert "No evaluation images" in found["notes"][0]


@pytest.mark.parametrize(
    ("word", "settings"),
    [
        ("", {}),
        ("light", {"how": "light"}),
        ("full,minutes=3", {"how": "full", "minutes": 3.0}),
        ("20min", {"how": "full", "minutes": 20.0}),
        ("auto,steps=500", {"how": "auto", "steps": 500}),
        ("500steps", {"how": "full", "steps": 500}),
    ],
)
def test_words_of_the_command_line(word, settings):
    assert qat_of(word) == settings
    assert recipes.from_dict({"model": "m", "qat": settings}).qat is not None
    assert is_qat(word) == bool(word)


@pytest.mark.parametrize("word", ["heavy", "light,minutes", "minutes=x", "steps=1.5"])
def test_other_words_are_refused(word):
    with pytest.raises(UsageError, match="auto, light, full"):
        qat_of(word)


def test_settings_out_of_range_are_refused():
    for key, value in (("held_out", 0), ("freezes", 2.0), ("how", "heavy"), ("light_steps", 0)):
        with pytest.raises(UsageError, match=key):
            recipes.from_dict({"model": "m", "qat": {key: value}})
    with pytest.raises(UsageError, match="one of the two"):
        edgekit.build(net(), calibration=_images(4), qat={}, mixed={"sqnr": 30.0}, **FAST)
    with pytest.raises(UsageError, match="int8 targets"):
        edgekit.build(net(), calibration=_images(4), targets=["tflite-float32"], qat={}, **FAST)
