"""The graph's meaning against ONNX Runtime and OpenVINO, on files written by hand from the same graph."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from onnx import TensorProto
from onnx_files import OnnxFile, serialized

from edgekit.errors import ArtifactError
from edgekit.graph.ir import Graph, Node, QuantParams, Value
from edgekit.graph.run import run
from edgekit.quantize import annotate
from edgekit.targets import Promises
from edgekit.verify.gates import Evidence, judge
from edgekit.verify.integers import weight_codes
from edgekit.verify.placed import Placed
from edgekit.verify.runtime_fidelity import runtime_fidelity

IMAGES = np.random.default_rng(3).uniform(-2, 2, (3, 3, 8, 8)).astype(np.float32)
NAMES = ("stem", "pool", "head")


def _graph():
    """input -> conv 3x3 + relu -> mean -> 1x1 conv, all annotated int8."""
    generator = torch.Generator().manual_seed(0)
    x = Value("input", (1, 3, 8, 8))
    stem, pool, head = Value("stem", (1, 8, 6, 6)), Value("pool", (1, 8, 1, 1)), Value("head", (1, 5, 1, 1))
    conv = {"stride": (1, 1), "padding": (0,) * 4, "dilation": (1, 1), "groups": 1}
    w = Value("w", (8, 3, 3, 3), data=torch.randn((8, 3, 3, 3), generator=generator) * 0.3)
    b = Value("b", (8,), data=torch.randn(8, generator=generator))
    v = Value("v", (5, 8, 1, 1), data=torch.randn((5, 8, 1, 1), generator=generator) * 0.3)
    nodes = [
        Node("conv2d", [x, w, b], [stem], {**conv, "activation": "relu"}, "features.0"),
        Node("mean", [stem], [pool], {"dims": (2, 3), "keepdim": True}, "pool"),
        Node("conv2d", [pool, v, None], [head], {**conv, "activation": None}, "head"),
    ]
    graph = Graph([x], [head], nodes)
    ranges: dict[Value, tuple[float, float]] = {}

    def see(value, tensor):
        if not value.is_constant:
            ranges[value] = (float(tensor.min()), float(tensor.max()))
        return tensor

    run(graph, [torch.from_numpy(IMAGES)], on_value=see)
    annotate(graph, ranges)
    return graph


def _file(graph, spoil: int = 0) -> bytes:
    """The graph as QDQ ONNX; spoil is added to one weight of the first convolution, in steps."""
    file = OnnxFile()

    def grid(value):
        return value.quant.scale[0], value.quant.zero_point[0] + 128

    def weights(node):
        value = node.inputs[1]
        codes = weight_codes(value).numpy().copy()
        if node.source == "features.0":
            codes[0, 0, 0, 0] += spoil
        return file.weight(value.name, codes, value.quant.scale)

    stem, _, head = graph.nodes
    x = file.quantized("input", *grid(graph.inputs[0]))
    fine = np.float32(graph.inputs[0].quant.scale[0]) * np.asarray(stem.inputs[1].quant.scale, np.float32)
    bias = file.bias("b", np.rint(stem.inputs[2].data.numpy() / fine), fine)
    file.node("Conv", [x, weights(stem), bias], "stem/float")
    file.node("Relu", ["stem/float"], "stem")
    file.node("GlobalAveragePool", [file.quantized("stem", *grid(stem.output))], "pool")
    file.node("Conv", [file.quantized("pool", *grid(graph.nodes[1].output)), weights(head)], "head")
    out = file.quantized("head", *grid(head.output))
    file.node("Flatten", [out], "logits")
    return file.bytes([("logits", TensorProto.FLOAT, (1, 5))])


def _openvino(graph, spoil: int = 0) -> dict[str, bytes]:
    import openvino as ov

    return serialized(ov.convert_model(io.BytesIO(_file(graph, spoil))))


PLACES = {
    "onnx": (_file, {name: f"{name}/integers" for name in NAMES}),
    "openvino": (_openvino, {name: f"{name}/real" for name in NAMES}),
}


@pytest.mark.parametrize("kind", PLACES)
def test_a_sound_file_is_within_a_step(kind):
    graph = _graph()
    write, tensors = PLACES[kind]
    found = runtime_fidelity(Placed(graph, write(graph), tensors), IMAGES)
    assert found.max_lsb <= 1 and found.mismatch_share < 0.05 and found.min_sqnr_db > 30
    assert (found.checked_ops, found.unchecked_ops, found.images) == (3, (), 3)
    assert {op: row["layers"] for op, row in found.by_op.items()} == {"conv2d": 2, "mean": 1}
    assert found.probe_agrees and found.answers_db > 30
    (gate,) = judge(Evidence(fidelity=found), Promises(max_lsb=1))
    assert gate.ok and "3 operators on 3 images" in gate.detail
    json.dumps(found.as_dict())


@pytest.mark.parametrize("kind", PLACES)
def test_a_wrong_weight_is_found_where_it_is(kind):
    graph = _graph()
    write, tensors = PLACES[kind]
    found = runtime_fidelity(Placed(graph, write(graph, -100), tensors), IMAGES)
    assert found.max_lsb > 1 and found.worst.module == "features.0"
    later = [row for row in found.layers if row.module != "features.0"]
    assert later and all(row.max_lsb <= 1 for row in later)
    (gate,) = judge(Evidence(fidelity=found), Promises(max_lsb=1))
    assert not gate.ok and "conv2d at features.0" in gate.detail


def test_a_saturated_picture_may_be_rounded_either_way():
    """The edges of a symmetric range lie between two steps: one step of the input is several of its sum."""
    graph = _graph()
    x = graph.inputs[0]
    x.quant, x.range = QuantParams((float(np.float32(3.999 / 255)),), (0,)), (-2.0, 2.0)
    places, pictures = PLACES["onnx"][1], np.sign(IMAGES) * np.float32(2.0)
    file = _file(graph)
    x.quant = QuantParams(x.quant.scale, (-1,))  # as if the runtime rounded all of them the other way
    read = runtime_fidelity(Placed(graph, file, {**places, "input": "input/integers"}), pictures)
    assert read.max_lsb == 1 and read.checked_ops == 3 and read.by_op["input"]["mismatch_share"] > 0.9
    assert read.by_op["conv2d"]["max_lsb"] == 0
    blind = runtime_fidelity(Placed(graph, file, places), pictures)
    assert blind.by_op["conv2d"]["mismatch_share"] > 0.1


def test_a_value_without_a_place_is_checked_with_the_next():
    graph = _graph()
    places = {name: f"{name}/integers" for name in ("stem", "head")}
    found = runtime_fidelity(Placed(graph, _file(graph), places), IMAGES)
    assert found.unchecked_ops == ("mean at pool",) and found.checked_ops == 2 and found.max_lsb <= 1


def test_a_file_without_quantized_values_is_refused():
    graph = _graph()
    with pytest.raises(ArtifactError, match="holds no value that the graph quantizes"):
        runtime_fidelity(Placed(graph, _file(graph), {}), IMAGES)
