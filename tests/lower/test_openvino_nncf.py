"""OpenVINO's own quantizer behind the same interface."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from openvino_runs import run_files

from edgekit.errors import DataError, UsageError
from edgekit.graph.run import run
from edgekit.lower.openvino.nncf import quantize_with_nncf
from edgekit.quantize import sqnr_db
from edgekit.targets import get_target
from tests.cases import OP_CASES

INT8 = get_target("openvino-int8")
CASE = OP_CASES["mul-gate"]

_BUILD = """
import hashlib, sys
sys.path[:0] = [{root!r}, {here!r}]
from edgekit.lower.openvino.nncf import quantize_with_nncf
from edgekit.targets import get_target
from tests.cases import OP_CASES
case = OP_CASES["mul-gate"]
for _ in range({times}):
    found = quantize_with_nncf(case.graph(), get_target("openvino-int8"), list(case.images().numpy()))
print(*(hashlib.sha256(data).hexdigest() for data in found.files.values()))
"""


def test_its_files_answer_like_the_float_graph() -> None:
    found = quantize_with_nncf(CASE.graph(), INT8, list(CASE.images().numpy()))
    image = CASE.images(1)
    (wanted,) = run(CASE.graph(), [image])
    assert sqnr_db(wanted, torch.from_numpy(run_files(found.files, image)[0])) > 20.0
    assert (found.inputs, found.outputs) == (("image",), (wanted_name(),))
    kinds = [op.builtin for op in found.operators]
    assert "FakeQuantize" in kinds
    text = found.files["model.xml"].decode()
    assert all(f'name="{op.name}"' in text for op in found.operators)
    assert {op.source for op in found.operators if op.builtin == "Convolution"} == {"conv2d.1", "conv2d.2"}


def wanted_name() -> str:
    return CASE.graph().outputs[0].name


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    here = Path(__file__).parent
    told = []
    for times in (1, 2):
        script = _BUILD.format(root=str(here.parents[1]), here=str(here), times=times)
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
        )
        told.append(done.stdout)
    assert told[0] == told[1]
    assert len(told[0].split()) == 2


def test_no_images_or_others_are_refused() -> None:
    with pytest.raises(DataError, match="no calibration images"):
        quantize_with_nncf(CASE.graph(), INT8, [])
    with pytest.raises(DataError, match=r"an image of shape \(3, 4, 4\) was given: \(8, 10, 12\) is needed"):
        quantize_with_nncf(CASE.graph(), INT8, [torch.zeros(3, 4, 4).numpy()])


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(UsageError, match=r"pip install 'edgekit\[openvino\]'"):
        quantize_with_nncf(CASE.graph(), INT8, list(CASE.images().numpy()))
