"""[prune] in a build: the graph is what the room makes, to budgets that are met; the same after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from small_model import NET, net
from test_train_step import OFF, kept

import edgekit
from edgekit.capture import capture
from edgekit.errors import EdgekitError
from edgekit.pipeline import predicted
from edgekit.pipeline.steps import clock
from edgekit.prune import prune_graph


def _images(count=40):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def _build(out, prune, **more):
    images = _images()
    return edgekit.build(
        net(), calibration=images[:16], evaluation=images, out=out, prune=prune, **(OFF | more)
    )


def test_a_build_prunes_as_the_room_does(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    run = _build(tmp_path / "out", {"macs": 0.6})
    images = _images()
    wanted = prune_graph(capture(net(), images[:1], training=True), macs=0.6, images=[images[:16]])
    (path,) = kept(tmp_path / "cache", "prune")
    made = load_file(path).values()
    for value in wanted.graph.constants():
        assert any(value.data.shape == t.shape and torch.equal(value.data, t) for t in made), value.name
    first, pruned = run.report["variants"]
    assert (first["macs"], pruned["macs"]) == tuple(wanted.record["macs"])
    assert pruned["macs"] <= 0.6 * first["macs"]
    record = pruned["record"]
    assert record["budget"]["name"] == "macs" and record["fitted"] == 16
    assert record["changed"] and "output of the network" in record["left"][0]["reason"]
    text = (tmp_path / "out/report.md").read_text()
    assert "Asked for 0.6 of the MACs" in text and "no training followed" in text


def test_dead_channels_go_and_no_answer_changes(tmp_path, cache):
    module = net()
    with torch.no_grad():
        module[1].weight[:5] = 0.0
        module[1].bias[:5] = -1.0  # behind it: max(x, 0)
    images = _images()
    run = edgekit.build(
        module, calibration=images[:16], evaluation=images, out=tmp_path, prune={"dead": True}, **OFF
    )
    _, pruned = run.report["variants"]
    assert "channels were zero" in pruned["record"]["notes"][0] and "fitted" not in pruned["record"]
    assert pruned["sqnr_db"] is None or pruned["sqnr_db"] > 100


def test_a_budget_in_milliseconds_is_met_by_measured_files(tmp_path, cache, monkeypatch):
    timed = []

    def latency(files, **_):
        timed.append(dict(files))
        sizes = {name: path.stat().st_size for name, path in files.items()}
        rows = {name: SimpleNamespace(p50_ms=size / 1e4) for name, size in sizes.items()}
        return SimpleNamespace(files=rows, ratio=lambda a, b: (sizes[a] / sizes[b], 0.0, 0.0))

    monkeypatch.setattr(clock, "latency", latency)
    monkeypatch.setattr(clock.Clock, "cost", lambda self: _Sizes(self))
    run = _build(tmp_path, {"latency_ms": 1.0}, train={"steps": 1})
    record = run.report["variants"][1]["record"]
    budget = record["budget"]
    assert budget["measured"] == budget["tries"][-1]["measured"] or "why" in budget
    assert abs(budget["measured"] - 1.0) <= 0.03 or budget["why"]
    assert "Asked for 1 ms of tflite-int8 on host" in record["notes"][0] and len(timed) == len(
        budget["tries"]
    )


def test_predicted_milliseconds_stand_beside_the_measured(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(predicted, "tables", lambda root: [SimpleNamespace(threads=1)])
    asked = []
    monkeypatch.setattr(predicted, "cost_for", lambda *told: asked.append(told) or _Sizes(None))
    run = _build(tmp_path, {"keep": 0.5}, device={"profile": "quick"}, targets=["tflite-int8"])
    first, pruned = (row["targets"] for row in run.report["variants"])
    assert [told[:3] for told in asked] == [("host", "tflite-int8", 1)]
    assert 0 < pruned[0]["predicted_ms"] < first[0]["predicted_ms"]
    assert first[0]["p50_ms"] > 0


class _Sizes:
    """Milliseconds by parameters: as the files above, less what a file holds besides."""

    def __init__(self, clock):
        self.clock = clock

    def graph_ms(self, graph):
        return sum(unit.ms for unit in self.units(graph))

    def units(self, graph):
        from edgekit.cost.static import count

        class Unit:
            def __init__(self, node):
                self.ms, self.outputs, self.source = node.params / 4.5e3, (node.output,), node.module

        return [Unit(node) for node in count(graph).nodes]


def test_what_was_measured_is_not_measured_again(tmp_path, monkeypatch):
    class Asked:
        work, original = tmp_path, capture(net(), _images(1), training=True)

    stopwatch = clock.Clock(Asked, "host")
    monkeypatch.setattr(clock.Clock, "_file", lambda self, graph: b"")
    monkeypatch.setattr(clock.Clock, "_times", lambda self, files: {"original": 4.0, "now": 2.0})
    other = prune_graph(Asked.original, keep=0.5, images=[_images(4)]).graph
    assert (stopwatch.measured_ms(other), stopwatch.measured_ms(Asked.original)) == (2.0, 4.0)
    monkeypatch.setattr(clock.Clock, "_times", lambda self, files: 1 / 0)
    assert clock.Clock(Asked, "host").measured_ms(other) == 2.0


def test_what_cannot_be_pruned_is_said(tmp_path, cache):
    for told, said in (
        ({"macs": 0.001}, r"\[prune\]"),
        ({"keep": 0.5, "protect": ["nothing"]}, "no group is called"),
    ):
        with pytest.raises(EdgekitError, match=said):
            _build(tmp_path / "out", told)
    assert not (tmp_path / "out").exists()


def test_a_build_that_was_killed_while_it_pruned_ends_with_the_same_bytes(tmp_path, folder):
    def start(name, out):
        command = [
            sys.executable, "-m", "edgekit", "build", NET, "--prune", "macs=0.5", "--target", "tflite-int8",
            "--profile", "fast", "--latency", "off", "--data", f"imagefolder:{folder}", "--calibration", "16",
            "--evaluation", "40", "--out", str(tmp_path / out), "--cache", str(tmp_path / name),
        ]  # fmt: skip
        return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})

    killed = start("killed", "first")
    while not list((tmp_path / "killed").glob("prune/.work-*")):
        assert killed.poll() is None
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    for name in ("killed", "whole"):
        assert start(name, name).wait() in (0, 1)
    sums = [
        json.loads((tmp_path / name / "report.json").read_text())["artifacts"] for name in ("killed", "whole")
    ]
    assert sums[0]["tflite-int8"]["sha256"] == sums[1]["tflite-int8"]["sha256"]


def test_steps_are_swept(tmp_path, cache, folder, edgekit):
    code, _, error = edgekit(
        "sweep", NET, "--data", f"imagefolder:{folder}", "--grid", "prune=macs=0.6,dead",
        "--grid", "lite=relu6", "--latency", "off", "--target", "tflite-float32", "--workers", 1,
        "--out", tmp_path,
    )  # fmt: skip
    assert code == 0, error
    rows = json.loads((tmp_path / "sweep.json").read_text())["rows"]
    assert len(rows) == 3 and min(row["macs"] for row in rows) <= 0.6 * max(row["macs"] for row in rows)
