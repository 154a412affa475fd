"""A model that was made from another one is judged by that one's answers, and cached by its own."""

import copy
import json

import pytest
import torch
from small_model import NET, net

import edgekit
from edgekit.errors import UsageError

OFF = {"device": {"profile": "off"}, "quantize": {"profile": "fast"}}


def _changed():
    """The small model with one channel of its head's input gone: a change that its answers show."""
    module = copy.deepcopy(net())
    with torch.no_grad():
        module[-1].weight[:, :8] = 0.0
    return module


def _drift(run, target="tflite-float32"):
    return run.report["artifacts"][target]["drift"]


def test_the_reference_is_the_original(tmp_path, cache):
    images = torch.randn(48, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    settings = OFF | {"targets": ["tflite-float32", "tflite-int8"]}
    settings |= {"calibration": images[:16], "evaluation": images}
    alone = edgekit.build(_changed(), out=tmp_path / "a", **settings)
    beside = edgekit.build(_changed(), original=net(), out=tmp_path / "b", **settings)
    with torch.no_grad():
        wanted, got = net()(images), _changed()(images)
    apart = 10 * torch.log10((wanted**2).sum() / ((wanted - got) ** 2).sum())
    assert _drift(alone)["sqnr_db"] > 80 and _drift(beside)["sqnr_db"] == pytest.approx(float(apart), abs=0.1)
    assert _drift(beside, "tflite-int8")["sqnr_db"] < float(apart) + 3
    same = [run.artifacts["tflite-int8"].path.read_bytes() for run in (alone, beside)]
    assert same[0] == same[1]  # what is built is the variant itself
    assert [row["step"] for row in beside.report["variants"]] == ["original", "given"]
    assert beside.report["variants"][1]["sqnr_db"] == pytest.approx(float(apart), abs=0.1)
    assert "variants" not in alone.report
    for page in ("report.html", "report.md"):
        assert "What was made of the original" in (tmp_path / "b" / page).read_text()


def test_from_the_command_line(tmp_path, cache, folder, edgekit):
    code, _, error = edgekit(
        "build", NET, "--original", NET, "--original-weights", "auto", "--target", "tflite-float32",
        "--latency", "off", "--data", f"imagefolder:{folder}", "--calibration", 8,
        "--evaluation", 40, "--out", tmp_path,
    )  # fmt: skip
    assert code == 0, error
    stages = [stage["name"] for stage in json.loads((tmp_path / "report.json").read_text())["stages"]]
    assert {"capture original", "capture given"} <= set(stages)


def test_other_outputs_are_refused(tmp_path, cache):
    images = torch.randn(4, 3, 32, 32)
    with pytest.raises(UsageError, match=r"outputs \(1, 4\), but its original's are \(1, 5\)"):
        edgekit.build(net(4), original=net(5), calibration=images, out=tmp_path, **OFF)
