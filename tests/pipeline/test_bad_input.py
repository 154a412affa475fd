"""What bad input gets: exit 2, one line that says what would be accepted, nothing half-written."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_model import NET, net

import edgekit as package
from edgekit.errors import DataError, EdgekitError
from edgekit.pipeline import store as stores

FEW = ["--calibration", 8, "--evaluation", 8, "--profile", "fast", "--latency", "off"]


def _refused(edgekit, out, *arguments):
    code, text, err = edgekit(*arguments)
    lines = [line for line in err.splitlines() if line.startswith("edgekit: ")]
    assert code == 2, text + err
    assert len(lines) == 1, err
    assert "Traceback" not in err
    assert not out.exists()
    return lines[0]


def test_an_unknown_model_names_near_ones(edgekit, cache, tmp_path):
    out = tmp_path / "out"
    line = _refused(edgekit, out, "build", "mobilenet_v3_lage", "--out", out)
    assert "mobilenet_v3_large" in line


def test_an_unknown_target_names_near_ones(edgekit, cache, tmp_path):
    out = tmp_path / "out"
    line = _refused(edgekit, out, "build", NET, "--target", "tflite-int", "--out", out)
    assert "tflite-int8" in line


def test_no_model_at_all(edgekit, tmp_path):
    assert "edgekit models lists them" in _refused(edgekit, tmp_path / "out", "build")


def test_all_unsupported_operators_are_listed_with_their_modules(edgekit, cache, tmp_path):
    out = tmp_path / "out"
    line = _refused(
        edgekit, out, "build", f"{Path(__file__).parent / 'small_model.py'}:rolled", "--out", out, *FEW
    )
    assert "lgamma" in line
    assert "digamma" in line
    assert "at 1" in line
    assert "at 2" in line


def test_an_empty_image_folder(edgekit, cache, tmp_path):
    (tmp_path / "images").mkdir()
    out = tmp_path / "out"
    line = _refused(edgekit, out, "build", NET, "--data", f"imagefolder:{tmp_path / 'images'}", "--out", out)
    assert str(tmp_path / "images") in line


def test_an_unreadable_image_is_named(edgekit, cache, tmp_path):
    root = tmp_path / "images"
    for name in "abcd":
        (root / name).mkdir(parents=True)
        for i in range(4):
            (root / name / f"{i}.png").write_bytes(b"not a picture")
    out = tmp_path / "out"
    line = _refused(edgekit, out, "build", NET, "--data", f"imagefolder:{root}", "--out", out, *FEW)
    assert ".png" in line


def test_labels_that_do_not_fit_the_model(edgekit, cache, tmp_path):
    root = tmp_path / "images"
    rng = np.random.default_rng(0)
    for name in "abc":
        (root / name).mkdir(parents=True)
        for i in range(12):
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(root / name / f"{i}.png")
    out = tmp_path / "out"
    line = _refused(edgekit, out, "build", NET, "--data", f"imagefolder:{root}", "--out", out, *FEW)
    assert "3 class folders" in line
    assert "4 outputs" in line


def test_a_truncated_file_handed_to_inspect(edgekit, tmp_path):
    path = tmp_path / "cut.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3" + b"\0" * 40)
    assert "cut.tflite" in _refused(edgekit, tmp_path / "out", "inspect", path)


def test_a_directory_without_a_build(edgekit, tmp_path):
    assert "report.json" in _refused(edgekit, tmp_path / "out", "report", tmp_path)
    assert "report.json" in _refused(edgekit, tmp_path / "out", "repro", tmp_path)
    assert "no model in it" in _refused(edgekit, tmp_path / "out", "inspect", tmp_path)


def test_a_full_disk(edgekit, cache, folder, tmp_path, monkeypatch):
    def full(_source, target, **_kw):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(stores.os, "replace", full)
    monkeypatch.setattr(stores.os, "rename", full)
    out = tmp_path / "out"
    code, _, err = edgekit("build", NET, "--data", f"imagefolder:{folder}", "--out", out, *FEW, "--seed", 7)
    assert code == 2
    assert "the disk is full" in err
    assert "Traceback" not in err


def test_debug_shows_the_traceback(edgekit, cache):
    code, _, err = edgekit("build", "no_such_model_at_all", "--debug")
    assert code == 2
    assert "Traceback" in err


def test_nan_in_calibration_images(cache, tmp_path):
    images = torch.randn(8, 3, 32, 32)
    images[5, 0, 0, 0] = float("nan")
    with pytest.raises(DataError, match="image 5 holds NaN"):
        package.build(net(), calibration=images, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_wrong_input_shape(cache, tmp_path):
    with pytest.raises(EdgekitError, match=r"\(1, 1, 32, 32\)"):
        package.build(net(), calibration=torch.randn(8, 1, 32, 32), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_labels_of_another_length(cache, tmp_path):
    with pytest.raises(DataError, match="7 labels"):
        package.build(
            net(),
            calibration=torch.randn(8, 3, 32, 32),
            evaluation=(torch.randn(8, 3, 32, 32), torch.zeros(7, dtype=torch.int64)),
            out=tmp_path / "out",
        )


def test_help_loads_neither_torch_nor_numpy():
    script = (
        "import sys; sys.argv = ['edgekit', '--help']\n"
        "from edgekit.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'numpy', 'tensorflow', 'timm', 'jinja2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
