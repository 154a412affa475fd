"""Pairs of artifacts: what they agree on, and where they part."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from onnx import TensorProto
from onnx_files import OnnxFile, float_onnx, openvino_files
from op_graphs import images, op_graph

from edgekit.errors import DataError
from edgekit.graph.ir import Graph, Node, QuantParams, Value
from edgekit.lower.tflite import lower, prepare
from edgekit.targets import Promises, get_target
from edgekit.verify.agreement import agreement, first_divergence
from edgekit.verify.gates import Evidence, judge
from edgekit.verify.placed import Placed

IMAGES = np.random.default_rng(0).uniform(-2, 2, (3, 3, 8, 8)).astype(np.float32)


def _logits(apart, n=200):
    rows = np.random.default_rng(0).normal(size=(n, 4))
    rows[:, 0] += 10.0
    rows[:apart, 1] += 30.0
    return rows


def test_every_pair_is_compared_once():
    found = agreement({"tflite": _logits(0), "onnx": _logits(0), "openvino": _logits(3)})
    assert [str(pair) for pair in found.pairs] == [
        "tflite and onnx",
        "tflite and openvino",
        "onnx and openvino",
    ]
    same, other = found.pair("onnx", "tflite"), found.pair("openvino", "onnx")
    assert (same.agreement, same.sqnr_db, same.differing, same.disagreements) == (100.0, 200.0, (), 0)
    assert other.agreement == pytest.approx(98.5) and other.differing == (0, 1, 2)
    assert found.worst.agreement == pytest.approx(98.5) and found.n == 200
    assert found.matrix()["openvino"]["tflite"] == found.matrix()["tflite"]["openvino"] == pytest.approx(98.5)
    json.dumps(found.as_dict())


def test_the_list_of_images_is_capped_and_the_count_is_not():
    (pair,) = agreement({"a": _logits(0), "b": _logits(50)}, max_differing=10).pairs
    assert len(pair.differing) == 10 and pair.disagreements == 50 and pair.agreement == 75.0


def test_sqnr_is_pooled_over_all_logits():
    one = np.array([[10.0, 0.0], [0.0, 10.0]])
    other = one + np.array([[1.0, 0.0], [0.0, 0.0]])
    (pair,) = agreement({"a": one, "b": other}).pairs
    assert pair.sqnr_db == pytest.approx(10 * np.log10(200.0))


@pytest.mark.parametrize("bad", [np.zeros((4, 3)), np.zeros(4), np.full((5, 2), np.nan)], ids=str)
def test_what_does_not_belong_together_is_refused(bad):
    with pytest.raises(DataError):
        agreement({"a": np.zeros((5, 2)), "b": bad})


def test_one_artifact_has_no_pairs():
    assert agreement({"a": np.zeros((5, 2))}).pairs == ()


def _chain(scale_of_second=1.0):
    """input -> conv -> relu -> conv -> relu, twice the same file but for the second convolution."""
    rng = np.random.default_rng(1)
    file = OnnxFile()
    w = file.constant("w", rng.normal(size=(4, 3, 3, 3)).astype(np.float32))
    v = file.constant("v", (rng.normal(size=(4, 4, 1, 1)) * scale_of_second).astype(np.float32))
    file.node("Conv", ["input", w], "a")
    file.node("Relu", ["a"], "b")
    file.node("Conv", ["b", v], "c")
    file.node("Relu", ["c"], "d")
    return file.bytes([("d", TensorProto.FLOAT, (1, 4, 6, 6))])


def _chain_graph():
    x = Value("input", (1, 3, 8, 8))
    a, b, c, d = (Value(name, (1, 4, 6, 6)) for name in "abcd")
    w, v = (
        Value("w", (4, 3, 3, 3), data=torch.zeros(4, 3, 3, 3)),
        Value("v", (4, 4, 1, 1), data=torch.zeros(1)),
    )
    conv = {"stride": (1, 1), "padding": (0,) * 4, "dilation": (1, 1), "groups": 1, "activation": None}
    nodes = [
        Node("conv2d", [x, w, None], [a], conv, "stem.conv"),
        Node("relu", [a], [b], {}, "stem.act"),
        Node("conv2d", [b, v, None], [c], conv, "head.conv"),
        Node("relu", [c], [d], {}, "head.act"),
    ]
    return Graph([x], [d], nodes)


def test_the_layer_at_which_two_files_part_is_named():
    names = {name: name for name in "abcd"}
    graph = _chain_graph()
    found = first_divergence(Placed(graph, _chain(), names), Placed(graph, _chain(1.5), names), IMAGES)
    assert (found.value, found.op, found.module) == ("c", "conv2d", "head.conv")
    assert found.before_db > 100 > 30 > found.after_db and found.shared == 4
    assert "conv2d at head.conv" in str(found)
    json.dumps(found.as_dict())
    whole = Placed(graph, _chain(), names)
    assert first_divergence(whole, whole, IMAGES) is None
    assert first_divergence(Placed(graph, _chain(), {}), whole, IMAGES) is None


def test_values_a_file_does_not_hold_are_stepped_over():
    few, all_of_them = {"a": "a", "d": "d"}, {name: name for name in "abcd"}
    graph = _chain_graph()
    found = first_divergence(Placed(graph, _chain(), few), Placed(graph, _chain(1.5), all_of_them), IMAGES)
    assert (found.value, found.shared) == ("d", 2)


def test_stored_layouts_are_undone():
    """A .tflite file holds images as NHWC; against itself with the layout forgotten it differs at once."""
    target = get_target("tflite-int8")
    graph = prepare(op_graph("conv 3x3 relu"), target)
    lowered = lower(graph, target)
    whole = Placed(graph, lowered.data, lowered.tensors, lowered.layouts)
    batch = images("conv 3x3 relu", 2).numpy()
    assert first_divergence(whole, whole, batch) is None
    forgotten = Placed(graph, lowered.data, lowered.tensors)
    assert first_divergence(whole, forgotten, batch).after_db < 10


def test_values_on_different_grids_are_not_compared():
    """What one file keeps in float and the other rounds differs by rounding, and means nothing."""
    names, graph = {name: name for name in "abcd"}, _chain_graph()
    other = graph.copy()
    other.nodes[2].output.quant = QuantParams((0.1,), (0,))
    found = first_divergence(Placed(graph, _chain(), names), Placed(other, _chain(1.5), names), IMAGES)
    assert (found.value, found.shared) == ("d", 3)


def test_a_pair_that_parts_fails_with_its_layer():
    found = agreement({"tflite-int8": _logits(0), "onnx-int8": _logits(4)})
    names = {name: name for name in "abcd"}
    graph = _chain_graph()
    where = first_divergence(Placed(graph, _chain(), names), Placed(graph, _chain(1.5), names), IMAGES)
    evidence = Evidence(pairwise=found, divergences={("tflite-int8", "onnx-int8"): where})
    (gate,) = judge(evidence, Promises(min_pairwise_agreement=0.99))
    assert not gate.ok and "tflite-int8 and onnx-int8 agree on 98.00 % of 200 images" in gate.detail
    assert "part at conv2d at head.conv" in gate.detail and gate.hint
    assert judge(evidence, Promises(min_pairwise_agreement=0.97))[0].ok
    assert judge(evidence, Promises()) == []


def test_onnx_and_openvino_files_share_values():
    names = {"features.0": "features.0", "head": "head"}
    graph = _shared_graph()
    first, second = (Placed(graph, file, names) for file in (float_onnx(), openvino_files()))
    found = first_divergence(first, second, IMAGES)
    assert found is None or found.after_db > 60


def _shared_graph():
    x, a, b = Value("input", (1, 3, 8, 8)), Value("features.0", (1, 16, 6, 6)), Value("head", (1, 5, 1, 1))
    nodes = [Node("conv2d", [x], [a], {}, "features.0"), Node("conv2d", [a], [b], {}, "head")]
    return Graph([x], [b], nodes)
