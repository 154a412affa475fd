"""Variants that a build makes by itself: chained, stored, resumed after kill -9, judged by the original."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from small_model import NET, net

import edgekit
from edgekit.errors import UsageError
from edgekit.graph.file import graph_hash
from edgekit.graph.ir import Graph
from edgekit.pipeline import steps
from edgekit.pipeline.steps.step import Context, Step

OFF = {"device": {"profile": "off"}, "quantize": {"profile": "fast"}}


def _relu6(graph: Graph, settings, context: Context):
    """Every hard-swish is a ReLU6: other layers."""
    changed = []
    for node in graph.nodes:
        if node.op == "hardswish":
            node.op, node.attrs = "relu6", {}
            changed.append({"module": node.source, "what": "hard-swish to ReLU6"})
    return graph, {"changed": changed, "left": [{"module": "0", "reason": "no hard-swish"}]}


def _halved(graph: Graph, settings, context: Context):
    """The head's weights halved as often as there are steps: other weights, the same layers."""
    head = next(node for node in graph.nodes if node.op == "linear").inputs[1]
    head.data = head.data * 0.5**settings.steps
    assert graph_hash(context.original) != graph_hash(graph)
    return graph, {"notes": [f"Halved {settings.steps} times."]}


def _nothing(_settings, _recipe, _job, _original):
    return {}


STEPS = (Step("lite", _relu6, _nothing), Step("train", _halved, _nothing))


@pytest.fixture
def made(monkeypatch):
    monkeypatch.setattr(steps, "STEPS", STEPS)


def _images(count=48):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def _build(out, **settings):
    images = _images()
    return edgekit.build(net(), calibration=images[:16], evaluation=images, out=out, **(OFF | settings))


def _stages(run):
    return {stage["name"]: stage["cached"] for stage in run.report["stages"]}


def test_a_chain_is_judged_by_the_original(tmp_path, cache, made):
    run = _build(tmp_path, lite={}, train={"steps": 2}, targets=["tflite-float32", "tflite-int8"])
    changed = net()
    for block in (changed[3], changed):
        for name, child in block.named_children():
            if isinstance(child, torch.nn.Hardswish):
                setattr(block, name, torch.nn.ReLU6())
    with torch.no_grad():
        wanted, lighter = net()(_images()), changed(_images())
        changed[-1].weight.mul_(0.25)
        got = changed(_images())
    rows = run.report["variants"]
    assert [row["step"] for row in rows] == ["original", "lite", "train"]
    for row, answers in zip(rows[1:], (lighter, got), strict=True):
        apart = 10 * torch.log10((wanted**2).sum() / ((wanted - answers) ** 2).sum())
        assert row["sqnr_db"] == pytest.approx(float(apart), abs=0.1)
    assert run.report["artifacts"]["tflite-float32"]["drift"]["sqnr_db"] == pytest.approx(rows[2]["sqnr_db"])
    assert {line["what"] for line in rows[1]["record"]["changed"]} == {"hard-swish to ReLU6"}
    again = _stages(_build(tmp_path, lite={}, train={"steps": 2}, targets=["tflite-float32", "tflite-int8"]))
    assert again["lite"] and again["train"] and again["quantize"]
    other = _stages(_build(tmp_path, lite={}, train={"steps": 3}))
    assert other["lite"] and not other["train"]


def test_milliseconds_stand_beside_the_original_of_the_same_run(tmp_path, cache, made):
    device = {"profile": "quick"}
    run = _build(tmp_path, lite={}, train={"steps": 1}, device=device, targets=["tflite-int8"])
    first, lite, train = (row["targets"][0] for row in run.report["variants"])
    assert first["p50_ms"] > 0 and "ratio" not in first
    assert lite["p50_ms"] == train["p50_ms"] == run.report["artifacts"]["tflite-int8"]["latency"]["p50_ms"]
    assert lite["ratio"] == pytest.approx(lite["p50_ms"] / first["p50_ms"], rel=0.3)
    assert lite["float_p50_ms"] > 0 and lite["float_ratio"] > 0
    assert {row["target"] for row in run.report["runtimes"]} == {"tflite-int8", "tflite-float32"}
    assert "quantize original" in _stages(run)
    for page in ("report.html", "report.md"):
        text = (tmp_path / page).read_text()
        assert all(word in text for word in ("What each form takes", "What lite changed", "Halved 1 times."))


def test_an_original_that_a_target_cannot_hold_is_said(tmp_path, cache, monkeypatch):
    def tamed(graph, settings, context):
        for node in graph.nodes:
            if node.op == "pad":
                node.attrs["mode"] = "reflect"
        return graph, {}

    monkeypatch.setattr(steps, "STEPS", (Step("lite", tamed, _nothing),))
    convolution = torch.nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")
    module = torch.nn.Sequential(convolution, torch.nn.Flatten(), torch.nn.Linear(256, 4)).eval()
    images = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    run = edgekit.build(module, calibration=images, out=tmp_path, lite={}, targets=["onnx-float32"])
    first, last = run.report["variants"]
    assert "circular" in first["targets"][0]["reason"] and last["targets"][0]["p50_ms"] > 0
    assert "not built: " in (tmp_path / "report.md").read_text()


KILLED = """
    import os, signal, sys
    sys.path.insert(0, {tests!r})
    from test_steps import _nothing
    from edgekit.cli import main as cli
    from edgekit.pipeline import steps
    from edgekit.pipeline.steps.step import Step

    def apply(graph, settings, context):
        head = next(node for node in graph.nodes if node.op == "linear").inputs[1]
        count = context.work / "count"
        for _ in range(int(count.read_text()) if count.exists() else 0, settings.steps):
            done = int(count.read_text()) + 1 if count.exists() else 1
            count.write_text(str(done))
            if done == int(os.environ["KILL_AT"]):
                os.kill(os.getpid(), signal.SIGKILL)
        head.data = head.data * 0.5 ** int(count.read_text())
        return graph, {{"notes": [os.environ["KILL_AT"]]}}

    steps.STEPS = (Step("train", apply, _nothing),)
    sys.argv = ["edgekit", *sys.argv[1:]]
    cli.main()
"""


def test_a_killed_step_goes_on_where_it_was(tmp_path, folder):
    script = tmp_path / "run.py"
    script.write_text(textwrap.dedent(KILLED.format(tests=str(Path(__file__).parent))))
    command = [
        sys.executable, str(script), "build", NET, "--target", "tflite-float32", "--latency", "off",
        "--data", f"imagefolder:{folder}", "--calibration", "8", "--evaluation", "40", "--train", "5steps",
        "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"),
    ]  # fmt: skip

    def run(kill_at):
        # as the command line does before torch is loaded: else the threads, and the key, follow the load
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "KILL_AT": str(kill_at)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    assert run(2).returncode == -signal.SIGKILL
    (work,) = (tmp_path / "cache" / "train").glob(".work-*")
    assert (work / "count").read_text() == "2"
    assert run(4).returncode == -signal.SIGKILL
    done = run(0)
    assert done.returncode in (0, 1), done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["variants"][1]["record"]["notes"] == ["0"]
    assert not work.exists()


def test_what_cannot_be_made_is_said_before_anything_is(tmp_path, cache, made):
    for section, settings, said in (
        ("lite", {"steps": ["no-sea"]}, r"\[lite\] steps: 'no-sea'.*did you mean no-se"),
        ("prune", {"keep": 1.5}, r"\[prune\] keep = 1.5: a share"),
        ("prune", {"keep": 0.5, "macs": 0.5}, r"\[prune\] keep, macs: one of"),
        ("prune", {}, r"\[prune\] nothing: one of"),
        ("train", {"minutes": 1, "steps": 3}, r"\[train\] steps and minutes: exactly one"),
    ):
        with pytest.raises(UsageError, match=said):
            _build(tmp_path / "out", **{section: settings})
    assert not (tmp_path / "out").exists()
