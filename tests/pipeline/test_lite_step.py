"""[lite] in a build: the graph is what the surgery makes, its report says what was changed."""

import json

import pytest
import torch
from safetensors.torch import load_file
from small_model import NET, net
from test_train_step import OFF, kept

import edgekit
from edgekit.capture import capture
from edgekit.data import open_images
from edgekit.errors import UsageError
from edgekit.pipeline.steps import recovery
from edgekit.pipeline.steps.clock import Clock
from edgekit.pipeline.steps.judged import judged_by
from edgekit.pipeline.steps.recovery import Recoverer
from edgekit.pipeline.steps.train import lesson
from edgekit.surgery import lite


def test_a_build_operates_as_the_surgery_does(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    images = torch.randn(40, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    run = edgekit.build(
        net(),
        calibration=images[:16],
        evaluation=images,
        out=tmp_path / "out",
        lite={"steps": ["relu6"]},
        **OFF,
    )
    wanted = lite(capture(net(), images[:1], training=True), images[:16], steps=["relu6"]).graph
    (path,) = kept(tmp_path / "cache", "lite")
    made = load_file(path)
    for value in wanted.constants():
        assert any(torch.equal(value.data, tensor) for tensor in made.values()), value.name
    row = run.report["variants"][1]
    assert {line["module"] for line in row["record"]["changed"]} == {"3.act", "5"}
    assert "2 modules changed" in row["record"]["notes"][0] and row["record"]["fitted"] == 16
    assert "no training followed" in (tmp_path / "out/report.md").read_text()
    assert row["sqnr_db"] > 5


def test_lite_and_train_from_the_command_line(tmp_path, cache, folder, edgekit):
    code, _, error = edgekit(
        "build", NET, "--target", "tflite-float32", "--latency", "off", "--data", f"imagefolder:{folder}",
        "--calibration", 16, "--evaluation", 40, "--lite", "--train=5steps", "--out", tmp_path,
    )  # fmt: skip
    assert code in (0, 1), error
    report = json.loads((tmp_path / "report.json").read_text())
    _, lighter, trained = report["variants"]
    assert (lighter["step"], trained["step"]) == ("lite", "train")
    assert lighter["record"]["notes"][0] == "no-se: nothing to change."
    assert "no training followed" not in (tmp_path / "report.md").read_text()
    assert "What lite changed" in (tmp_path / "report.html").read_text()


def test_what_lite_cannot_do_is_said(tmp_path, cache):
    images = torch.zeros(4, 3, 32, 32)
    for told, said in (
        ({"fixed": ["stemm"]}, r"\[lite\] fixed 'stemm'"),
        ({"steps": ["auto", "relu6"]}, "or auto alone"),
    ):
        with pytest.raises(UsageError, match=said):
            edgekit.build(net(), calibration=images, out=tmp_path / "out", lite=told, **OFF)
    assert not (tmp_path / "out").exists()


class _Dear:
    """Costs of a board where a hard-swish takes a millisecond, and nothing else anything."""

    def graph_ms(self, graph):
        return float(sum(node.op == "hardswish" for node in graph.nodes) + 1)


def test_auto_takes_what_pays(tmp_path, cache, folder, edgekit, monkeypatch):
    monkeypatch.setattr(Clock, "cost", lambda self: _Dear())
    code, _, error = edgekit(
        "build", NET, "--target", "tflite-float32", "--latency", "off", "--data", f"imagefolder:{folder}",
        "--calibration", 16, "--evaluation", 40, "--lite=auto", "--max-drop", 0.99, "--out", tmp_path,
    )  # fmt: skip
    assert code in (0, 1), error
    record = json.loads((tmp_path / "report.json").read_text())["variants"][1]["record"]
    assert {rung["step"] for rung in record["ladder"]} >= {"relu6"}
    assert sum(len(rung["modules"]) for rung in record["ladder"] if rung["taken"]) == 2
    assert len(record["changed"]) == 2
    for page in ("report.html", "report.md"):
        assert "The ladder of lite" in (tmp_path / page).read_text()


def test_recovery_in_a_build_and_again_by_its_report(tmp_path, cache, folder, edgekit):
    command = (
        "build", NET, "--target", "tflite-float32", "--latency", "off", "--data", f"imagefolder:{folder}",
        "--calibration", 16, "--evaluation", 40, "--lite=relu6", "--recover", "0.002min", "--out", tmp_path,
    )  # fmt: skip
    code, _, error = edgekit(*command)
    assert code in (0, 1), error
    record = json.loads((tmp_path / "report.json").read_text())["variants"][1]["record"]
    assert record["settings"] == {"recover": None, "recover_steps": record["recovered"]["steps"]}
    assert "Recovered from the original's answers" in record["notes"][-1]
    assert "no training followed" not in (tmp_path / "report.md").read_text()
    code, printed, error = edgekit("repro", tmp_path)
    assert code == 0 and "byte-identical" in printed, error


def test_recovery_without_surgery_or_minutes_is_refused(edgekit):
    for told, said in (
        (("--recover", "15min"), "follows surgery"),
        (("--lite", "--recover", "15"), "minutes, as in 15min"),
    ):
        code, _, error = edgekit("build", NET, *told)
        assert code == 2 and said in error


def test_auto_recovers_what_the_fits_lose(tmp_path, cache, folder, edgekit, monkeypatch):
    """Judged on pictures that recovery does not see; every rung has its part of the minutes."""
    monkeypatch.setattr(Clock, "cost", lambda self: _Dear())
    seen = []

    def recover(self, graph, share=1.0):
        data = lesson(recovery._asked(), self.context, judged_by(self.context.job))[0]
        seen.append((share, data.data.images))
        return graph

    monkeypatch.setattr(Recoverer, "__call__", recover)
    code, _, error = edgekit(
        "build", NET, "--target", "tflite-float32", "--latency", "off", "--data", f"imagefolder:{folder}",
        "--calibration", 16, "--evaluation", 40, "--lite=auto", "--recover", "0.002min", "--max-drop", 0.99,
        "--out", tmp_path,
    )  # fmt: skip
    assert code in (0, 1), error
    assert seen
    whole = open_images(f"imagefolder:{folder}", "train", 1000, seen[0][1].preprocessing)
    judged = len(whole) // 5
    assert list(seen[0][1].images) == list(whole.images)[judged:]
    assert sum(share for share, _ in seen) <= 1.0 + 1e-9
