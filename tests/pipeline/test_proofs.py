"""What a new proof costs: one file, and its row in the report's schema."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from small_model import net

import edgekit
from edgekit.pipeline import proofs
from edgekit.pipeline.proofs.proof import Proof, each
from edgekit.report import schema
from edgekit.verify.gates import Gate

SETTINGS = {"device": {"profile": "off"}, "quantize": {"profile": "fast"}, "targets": ["tflite-float32"]}


@dataclass(frozen=True)
class Zeros:
    bytes: int


def prove(asked, one):
    def make(_line):
        return Zeros(one.file.read_bytes().count(b"\0"))

    one.found["zeros"] = asked.session.record(
        "zeros", {"artifact": one.sha256s}, Zeros, make, one.target.name
    )


def gates(one, _promises):
    count = one.found["zeros"].bytes
    return [Gate("zeros", count < 10, f"{count} bytes are zero", "other weights")]


def section(_facts, one):
    return {"zeros": {"bytes": one.found["zeros"].bytes}}


def test_a_proof_is_one_file(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(proofs, "PROOFS", (*proofs.PROOFS, Proof("zeros", each(prove), gates, section)))
    images = torch.randn(4, 3, 32, 32)
    run = edgekit.build(net(), calibration=images, evaluation=images, out=tmp_path, **SETTINGS)
    path = tmp_path / "tflite-float32" / "model.rejected.tflite"
    count = path.read_bytes().count(b"\0")
    assert not run.ok and run.report["artifacts"]["tflite-float32"]["zeros"] == {"bytes": count}
    assert f"{count} bytes are zero" in (tmp_path / "report.html").read_text()
    assert "zeros tflite-float32" in [stage["name"] for stage in run.report["stages"]]


def test_every_section_has_its_row_in_the_schema(tmp_path, cache):
    images = torch.randn(40, 3, 32, 32)
    settings = SETTINGS | {"targets": ["tflite-int8", "onnx-int8"]}
    run = edgekit.build(net(), calibration=images[:8], evaluation=images, out=tmp_path, **settings)
    rows = json.loads((Path(schema.__file__).parent / "schema.json").read_text())
    known = set(rows["$defs"]["artifact"]["properties"])
    for artifact in run.report["artifacts"].values():
        assert set(artifact) <= known
    assert set(run.report) <= set(rows["properties"])
