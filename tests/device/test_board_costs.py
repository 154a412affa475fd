"""Times of units, and a budget in milliseconds, on a board at the end of a wire: the user's own commands."""

import json
import os
import runpy
import subprocess
import sys

import pytest
import torch
from boards import leftovers

import edgekit

MODULE = """
import torch
from torch import nn

def wide():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 64, 3, 2, 1), nn.ReLU6(), nn.Conv2d(64, 128, 3, 1, 1), nn.ReLU6(),
        nn.Conv2d(128, 128, 3, 2, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 4),
    ).eval()
    net.preprocessing = dict(
        resolution=64, resize=64, interpolation="bilinear", mean=(0.5,) * 3, std=(0.25,) * 3
    )
    return net
"""


@pytest.fixture
def inventory(pi, tmp_path, monkeypatch):
    """One board, pi4-a."""
    wire = ", ".join(f"{key} = {json.dumps(value)}" for key, value in pi.transport.items())
    path = tmp_path / "devices.toml"
    path.write_text(
        f"schema_version = 1\n[devices.pi4-a]\nkind = 'raspberry_pi'\npython = {json.dumps(sys.executable)}\n"
        f"base = {json.dumps(str(pi.base))}\ntransport = {{{wire}}}\nlimits = {{cool_down_s = 0.0}}\n"
    )
    monkeypatch.setenv("EDGEKIT_DEVICES", str(path))
    yield path
    assert leftovers(pi.base) == []


def _edgekit(*words):
    found = subprocess.run(
        [sys.executable, "-m", "edgekit", *map(str, words)], capture_output=True, text=True, env=os.environ
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_a_board_is_measured_predicted_and_pruned_for(inventory, tmp_path):
    own = tmp_path / "own.py"
    own.write_text(MODULE)
    net = f"{own}:wide"
    assert "pi4-a: " in _edgekit("cost", "measure", "--device", "pi4-a", "--models", net)
    told = json.loads(_edgekit("cost", "predict", net, "--device", "pi4-a", "--json"))
    assert told["device"] == "pi4-a" and {unit["how"] for unit in told["units"]} == {"measured"}
    images = torch.randn(24, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    run = edgekit.build(
        runpy.run_path(str(own))["wide"](),
        calibration=images[:16],
        evaluation=images,
        out=tmp_path / "out",
        prune={"latency_ms": 0.6 * told["ms"], "device": "pi4-a"},
        device={"profile": "off"},
        quantize={"profile": "fast"},
        targets=["tflite-int8"],
    )
    first, pruned = run.report["variants"]
    budget = pruned["record"]["budget"]
    assert "of tflite-int8 on pi4-a, where the original has" in pruned["record"]["notes"][0]
    assert 0 < budget["measured"] < budget["original"] and pruned["macs"] < 0.8 * first["macs"]
    assert abs(budget["measured"] / budget["target"] - 1) <= 0.03 or "why" in budget
