"""The ranking finds the layer that was made bad, and its sum matches the noise that is really there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from op_graphs import op_graph

from edgekit.graph.ir import Graph, QuantParams
from edgekit.graph.run import run
from edgekit.lower.tflite import lower, prepare
from edgekit.quantize import QuantizeSettings, quantize
from edgekit.runtimes.runtime import run_model
from edgekit.targets import get_target
from edgekit.tasks.statistics import sqnr_db
from edgekit.verify.fidelity import float_fidelity, probe_values, read_values
from edgekit.verify.integers import dequantize
from edgekit.verify.layers import layer_errors

TARGET = get_target("tflite-int8")


def _net() -> Graph:
    from edgekit.capture import capture
    from edgekit.passes import optimize

    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, 2, 1),
        torch.nn.Hardswish(),
        torch.nn.Conv2d(16, 16, 3, 1, 1, groups=16),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 32, 1),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(32, 10),
    ).eval()
    graph = capture(net, torch.zeros(1, 3, 16, 16), "net")
    optimize(graph)
    return graph


@pytest.fixture(scope="module")
def quantized():
    images = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return prepare(quantize(_net(), images, QuantizeSettings()).graph, TARGET), images[:8].numpy()


def _errors(graph, images):
    probe = lower(graph, TARGET, outputs_also=probe_values(graph))
    actual = read_values(probe, graph, images)
    return layer_errors(graph, actual, images, directions=24), actual


def test_shares_add_up_to_the_noise_that_is_there(quantized):
    graph, images = quantized
    rows, actual = _errors(graph, images)
    assert sum(row.output_share for row in rows) == pytest.approx(1.0)
    assert [row.output_share for row in rows] == sorted((r.output_share for r in rows), reverse=True)
    out = graph.outputs[0]
    wanted = run(graph, [torch.from_numpy(images)])[0]
    measured = float(sqnr_db(wanted.numpy(), dequantize(actual[out.name], out.quant).numpy()))
    predicted = -10 * np.log10(sum(10 ** (-row.alone_db / 10) for row in rows))
    assert predicted == pytest.approx(measured, abs=3.0)


def test_a_layer_made_coarse_comes_first(quantized):
    graph, images = quantized
    bad = graph.copy()
    victim = next(node for node in bad.nodes if node.op == "mean")
    quant = victim.output.quant
    victim.output.quant = QuantParams((quant.scale[0] * 12,), quant.zero_point)
    rows, _ = _errors(bad, images)
    assert rows[0].module == victim.source and rows[0].output_share > 0.5
    assert rows[0].introduced_db < 30 and f"mean at {victim.source}" in str(rows[0])


def test_an_exact_operator_introduces_nothing():
    graph = prepare(op_graph("max pool"), TARGET)
    images = np.random.default_rng(0).normal(size=(2, 16, 12, 10)).astype(np.float32)
    rows, _ = _errors(graph, images)
    pool = next(row for row in rows if row.op == "max_pool2d")
    assert pool.introduced_db == 200.0 and pool.output_share == 0.0 and pool.alone_db == 200.0
    assert rows[0].module == "input" and rows[0].op == "quantize"


def test_a_float_file_equals_its_graph():
    target = get_target("tflite-float32")
    graph = prepare(_net(), target)
    images = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32)
    found = float_fidelity(graph, run_model(lower(graph, target).data, images), images)
    assert found.sqnr_db > 100 and found.max_relative_error < 1e-4
    assert found.as_dict()["max_lsb"] is None
