"""The documents: their links lead somewhere, their Python runs, their commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

import edgekit

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_every_page_can_be_reached_from_the_front_page():
    linked = {ROOT / "README.md"}
    while True:
        found = {
            (page.parent / target).resolve()
            for page in linked
            for target in re.findall(r"\]\(([^)#]+\.md)\)", page.read_text())
            if "://" not in target
        }
        if found <= linked:
            break
        linked |= found
    assert {page for page in PAGES if page.parent == ROOT / "docs"} <= linked


def test_commands_of_the_documents_exist():
    from edgekit.cli.main import MOUNTED, app

    known = {command.name or command.callback.__name__ for command in app.registered_commands} | set(MOUNTED)
    named = {
        word
        for page in PAGES
        for block in re.findall(r"```(?:sh)?\n(.*?)```", page.read_text(), re.DOTALL)
        for word in re.findall(r"(?:^|bin/|    )edgekit ([a-z]+)\b", block, re.MULTILINE)
    }
    assert named and named <= known


def test_the_python_of_the_shipping_page_reads_a_bundle(tmp_path):
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    images = torch.randn(8, 3, 16, 16)
    edgekit.build(
        module.eval(),
        targets=["tflite-int8"],
        calibration=images,
        evaluation=images,
        out=tmp_path,
        device={"profile": "off"},
        quantize={"profile": "fast"},
    )
    page = (ROOT / "docs" / "shipping.md").read_text()
    block = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert block is not None
    done = subprocess.run(
        [sys.executable, "-c", block.group(1), tmp_path / "tflite-int8"],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 3 and all("differs by 0 steps" in line for line in lines)


def test_the_python_of_the_qat_page_trains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "qat.md").read_text(), re.DOTALL)
    nn, images = torch.nn, torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    names = {
        "module": module,
        "example": images[:1],
        "calibration": images,
        "batches": [(images, torch.arange(12) % 3)] * 2,
    }
    exec(block, names)
    assert names["run"].artifacts["tflite-int8"].path.exists()


def test_the_python_of_the_training_page_trains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "training.md").read_text()
    one, *others = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    nn, generator = torch.nn, torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        features = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), nn.Conv2d(4, 4, 1))
        layers = {"features": features, "flat": nn.Flatten(), "head": nn.Linear(144, 3)}
        original = nn.Sequential(OrderedDict(layers)).eval()
    names = {
        "original": original,
        "student": edgekit.graph_module(original, torch.zeros(1, 3, 8, 8)),
        "teacher": edgekit.graph_module(original, torch.zeros(1, 3, 8, 8)),
        "example": torch.zeros(1, 3, 8, 8),
        "images": torch.randn(32, 3, 8, 8, generator=generator),
        "labels": torch.arange(32) % 3,
    }
    exec(one, names)
    assert names["record"].steps == 40 and (tmp_path / "training.pt").exists()
    for other in others:
        exec(other.replace("minutes=15", "minutes=0.005"), names)
    assert len(names["done"].steps) == 2
