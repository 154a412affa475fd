"""An ONNX file of another framework, from the command line to a proven int8 model."""

import json
import warnings

import torch
from onnx import load
from small_model import net

FEW = ["--calibration", 16, "--evaluation", 16, "--profile", "fast", "--latency", "off"]


def test_an_onnx_file_is_built(edgekit, cache, tmp_path):
    path = tmp_path / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces its newer exporter
        torch.onnx.export(net(), (torch.zeros(1, 3, 32, 32),), str(path), dynamo=False)
    out = tmp_path / "out"
    code, _, err = edgekit("build", path, "--target", "tflite-int8", "--out", out, *FEW)
    assert code in (0, 1), err  # 1: a gate; the pictures are not those the net was made for
    report = json.loads((out / "report.json").read_text())
    artifact = report["artifacts"]["tflite-int8"]
    assert artifact["fidelity"]["max_lsb"] <= 1
    assert artifact["audit"]["int8_ops_share"] == 1.0


def test_what_cannot_be_imported_is_one_line(edgekit, cache, tmp_path):
    path = tmp_path / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net(), (torch.zeros(1, 3, 32, 32),), str(path), dynamo=False)
    proto = load(str(path))
    for node in proto.graph.node:
        if node.op_type == "Clip":
            node.op_type = "Sinh"
            del node.input[1:], node.attribute[:]
    path.write_bytes(proto.SerializeToString())
    code, _, err = edgekit("build", path, "--target", "tflite-int8", "--out", tmp_path / "out", *FEW)
    assert code == 2
    assert [line for line in err.splitlines() if line.startswith("edgekit: ")] == [
        "edgekit: [capture] net: cannot import Sinh at /2/Clip"
    ]
    assert not (tmp_path / "out").exists()
