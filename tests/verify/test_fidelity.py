"""The integer formulas against LiteRT, op by op: equal, or one step where the kernel is not known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from op_graphs import CASES, images, op_graph

import edgekit
from edgekit.errors import ArtifactError
from edgekit.graph.ir import Graph, Node, QuantParams, Value
from edgekit.lower.tflite import lower, prepare
from edgekit.quantize import annotate
from edgekit.targets import get_target
from edgekit.verify.fidelity import batch_dims, fidelity, probe_values, read_values
from edgekit.verify.integers import compute, quantize_reals

TARGET = get_target("tflite-int8")
# kernels without a formula here, and reference kernels for what is not delegated
WITHIN_ONE = {"average pool, border not counted", "resize bilinear", "matmul", "conv transpose"}


def _proof(case, io_dtype=None, seed=0):
    graph = prepare(op_graph(case, seed), TARGET)
    shipped = lower(graph, TARGET, io_dtype=io_dtype)
    probe = lower(graph, TARGET, io_dtype=io_dtype, outputs_also=probe_values(graph))
    return graph, shipped, probe


@pytest.mark.parametrize("case", CASES)
def test_the_runtime_computes_the_formula(case):
    graph, shipped, probe = _proof(case)
    found = fidelity(graph, probe, images(case, 3, seed=9).numpy(), shipped.data)
    assert found.probe_agrees and not found.unchecked_ops and found.layers
    assert found.max_lsb <= (1 if case in WITHIN_ONE else 0), found.worst
    assert found.mismatch_share < 0.1
    if case not in WITHIN_ONE:
        assert not found.unexpected()


@pytest.mark.parametrize("io_dtype", ["int8", "float32", "uint8"])
def test_every_type_of_input_and_output(io_dtype):
    graph, shipped, probe = _proof("conv 3x3 relu", io_dtype)
    found = fidelity(graph, probe, images("conv 3x3 relu", 2).numpy(), shipped.data)
    assert (found.max_lsb, found.unchecked_ops, found.probe_agrees) == (0, (), True)


def test_a_wrong_weight_in_the_file_is_found_and_named():
    graph, shipped, _ = _proof("conv 3x3")
    other = graph.copy()
    weight = other.nodes[0].inputs[1]
    weight.data = weight.data.clone()
    weight.data[3, 5] += 4.0 * weight.quant.scale[3]
    probe = lower(other, TARGET, outputs_also=probe_values(other))
    found = fidelity(graph, probe, images("conv 3x3", 2).numpy(), shipped.data)
    assert found.max_lsb > 0 and not found.probe_agrees
    assert found.worst.module == "layers.out" and found.unexpected()[0].op == "conv2d"
    assert found.by_op["conv2d"]["max_lsb"] == found.max_lsb
    assert 0 < found.mismatch_share <= 1 / 24 + 0.01
    assert found.as_dict()["layers"][0]["value"] == "out"
    json.dumps(found.as_dict())


def test_an_error_stays_with_the_operator_that_made_it():
    graph, _, _ = _proof("add relu")
    other = graph.copy()
    square = other.nodes[0].output
    square.quant = QuantParams((square.quant.scale[0] * 2,), square.quant.zero_point)
    probe = lower(other, TARGET, outputs_also=probe_values(other))
    found = fidelity(other, probe, images("add relu", 2).numpy())
    assert found.max_lsb == 0
    assert [row.op for row in found.layers] == ["tanh", "add"]


def test_a_probe_of_another_graph_is_refused():
    graph, _, probe = _proof("sigmoid")
    _, foreign, _ = _proof("linear")
    with pytest.raises(ArtifactError, match=r"lacks output|was given"):
        fidelity(graph, probe, images("sigmoid", 1).numpy(), foreign.data)


def test_values_come_back_in_torch_layout():
    graph, _, probe = _proof("max pool")
    batch = images("max pool", 2)
    values = read_values(probe, graph, batch.numpy())
    codes = quantize_reals(batch, graph.inputs[0].quant)
    assert torch.equal(values["out"].float(), torch.nn.functional.max_pool2d(codes, 3, 2))


def test_the_image_dimension_is_followed_through_permutes():
    x, heads, turned = Value("x", (1, 6, 4)), Value("heads", (1, 6, 2, 2)), Value("turned", (2, 1, 6, 2))
    nodes = [
        Node("reshape", [x], [heads], {"shape": (-1, 6, 2, 2)}),
        Node("permute", [heads], [turned], {"dims": (2, 0, 1, 3)}),
    ]
    assert batch_dims(Graph([x], [turned], nodes)) == {"x": 0, "heads": 0, "turned": 1}


def test_requantization_by_hand():
    x = Value("x", (1, 2), quant=QuantParams((0.5,), (0,)))
    weight = Value("w", (1, 2), data=torch.tensor([[1.0, 0.5]]), quant=QuantParams((0.5,), (0,), "int8", 0))
    out = Value("y", (1, 1), quant=QuantParams((1.0,), (10,)))
    node = Node(
        "linear", [x, weight, Value("b", (1,), data=torch.tensor([0.25]))], [out], {"activation": None}
    )
    # codes (4, 3), weights (2, 1), bias 1: 8 + 3 + 1 = 12 steps of 0.25 = 3.0
    assert compute(node, [torch.tensor([[4.0, 3.0]]), None, None])[0].tolist() == [[3.0]]
    # 2 + 0 + 1 = 3 steps of 0.25 = 0.75 -> 1; 0 + 1 + 1 = 2 steps = 0.5 -> half to even: 0
    rows = compute(node, [torch.tensor([[1.0, 0.0], [0.0, 1.0]]), None, None])[0]
    assert rows.flatten().tolist() == [1.0, 0.0]


def test_sums_beyond_float32_stay_exact():
    channels = 3000
    quant = QuantParams((1.0,), (0,))
    x = Value("x", (1, channels), quant=quant)
    data = torch.full((2, channels), 127.0)
    weight = Value("w", (2, channels), data=data, quant=QuantParams((1.0, 1.0), (0, 0), "int8", 0))
    out = Value("y", (1, 2), quant=QuantParams((float(2**25),), (0,)))
    codes = torch.full((1, channels), 127.0)
    codes[0, 0] = 126.0
    node = Node("linear", [x, weight, None], [out], {"activation": None})
    exact = np.float32(127 * 127 * (channels - 1) + 127 * 126) / np.float32(2**25)
    assert compute(node, [codes, None, None])[0].tolist() == [[float(np.rint(exact))] * 2]


def test_a_faint_squeeze_does_not_overflow_the_bias():
    """conv -> hardsigmoid behind an input of scale 1e-6: half a unit is more than int32 holds."""
    x, wide = Value("x", (1, 8, 1, 1)), Value("wide", (1, 8, 1, 1))
    gate = Value("gate", (1, 8, 1, 1))
    weight = Value("w", (8, 8, 1, 1), data=torch.eye(8).reshape(8, 8, 1, 1) * 1e-3)
    attrs = {"stride": (1, 1), "padding": (0,) * 4, "dilation": (1, 1), "groups": 1, "activation": None}
    bias = Value("b", (8,), data=torch.linspace(-1e-4, 1e-4, 8))
    nodes = [
        Node("conv2d", [x, weight, bias], [wide], attrs, "fc2"),
        Node("hardsigmoid", [wide], [gate], {}, "g"),
    ]
    graph = Graph([x], [gate], nodes)
    annotate(graph, {x: (-1e-4, 1e-4), wide: (-1e-4, 1e-4), gate: (0.0, 1.0)})
    prepared = prepare(graph, TARGET)
    probe = lower(prepared, TARGET, outputs_also=probe_values(prepared))
    inputs = np.random.default_rng(0).uniform(-1e-4, 1e-4, (2, 8, 1, 1)).astype(np.float32)
    assert fidelity(prepared, probe, inputs).max_lsb == 0


def test_a_quotient_by_an_integer_zero_is_named(tmp_path):
    """0 / 0 is no number on either side: the file is rejected by the layer's name, without a traceback."""

    class Quotient(torch.nn.Module):
        def forward(self, x):
            return x.relu() / (x.relu() + 1e-9)

    x = torch.randn(40, 3, 8, 8)
    run = edgekit.build(
        Quotient().eval(), targets=["tflite-int8"], calibration=x, evaluation=x, out=tmp_path,
        device={"profile": "off"}, quantize={"profile": "fast"},
    )  # fmt: skip
    gate = next(gate for gate in run.report["gates"] if gate["name"] == "fidelity")
    assert not gate["ok"] and "255 LSB" in gate["detail"] and "div" in gate["detail"]
