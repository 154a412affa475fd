"""Models that PT2E quantized: their scales and integers arrive, and the file answers as they do."""

import pytest
import torch
from torch import nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401 (registers the operators)

from edgekit.capture import capture
from edgekit.errors import CaptureError
from edgekit.graph.ir import QuantParams

Q = torch.ops.quantized_decomposed
ACTIVATION = (0.05, -10, -128, 127, torch.int8)


def both(x, scale=0.05, zero=-10, low=-128, high=127, dtype=torch.int8):
    whole = Q.quantize_per_tensor(x, scale, zero, low, high, dtype)
    return Q.dequantize_per_tensor(whole, scale, zero, low, high, dtype)


class Layer(nn.Module):
    """As convert_pt2e writes one: int8 weights and their scales are buffers."""

    def __init__(self, i=3, o=8, dtype=torch.int8):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.register_buffer("weight", torch.randint(-100, 100, (o, i, 3, 3), generator=draw).to(torch.int8))
        self.register_buffer("scales", torch.rand(o, generator=draw) * 0.01 + 0.001)
        self.register_buffer("zeros", torch.zeros(o, dtype=torch.int64))
        self.bias = nn.Parameter(torch.randn(o, generator=draw))

    def forward(self, x):
        weight = Q.dequantize_per_channel(self.weight, self.scales, self.zeros, 0, -127, 127, torch.int8)
        return both(torch.relu(torch.conv2d(both(x), weight, self.bias)), 0.04, -128)


def example():
    return torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_pairs_are_annotations_and_weights_keep_their_integers():
    layer = Layer().eval()
    graph = capture(layer, example())
    assert [node.op for node in graph.nodes] == ["conv2d", "relu"]
    assert graph.inputs[0].quant == QuantParams((0.05,), (-10,))
    assert graph.outputs[0].quant == QuantParams((0.04,), (-128,)) and graph.outputs[0].range[0] == 0.0
    weight = graph.nodes[0].inputs[1]
    assert weight.quant.axis == 0 and weight.quant.scale == tuple(layer.scales.tolist())
    whole = (weight.data / layer.scales.view(-1, 1, 1, 1)).round()
    assert torch.equal(whole.to(torch.int8), layer.weight)
    assert graph.nodes[0].inputs[2].quant is None


def test_uint8_is_the_same_numbers_as_int8():
    class Unsigned(nn.Module):
        def forward(self, x):
            return torch.relu(both(x, 0.02, 30, 0, 255, torch.uint8))

    graph = capture(Unsigned().eval(), example())
    assert graph.inputs[0].quant == QuantParams((0.02,), (-98,))
    assert graph.inputs[0].range == pytest.approx((-0.6, 4.5))


def test_scales_that_are_tensors_are_read():
    class Tensors(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.tensor(0.02))
            self.register_buffer("zero", torch.tensor(3))

        def forward(self, x):
            whole = Q.quantize_per_tensor.tensor(x, self.scale, self.zero, -128, 127, torch.int8)
            return torch.relu(
                Q.dequantize_per_tensor.tensor(whole, self.scale, self.zero, -128, 127, torch.int8)
            )

    (scale,) = capture(Tensors().eval(), example()).inputs[0].quant.scale
    assert scale == pytest.approx(0.02)


class _Two(nn.Module):
    def forward(self, x):
        return both(x) + both(x, 0.03)


class _Other(nn.Module):
    def forward(self, x):
        return Q.dequantize_per_tensor(Q.quantize_per_tensor(x, *ACTIVATION), 0.06, *ACTIVATION[1:])


class _Integers(nn.Module):
    def forward(self, x):
        return Q.dequantize_per_tensor(Q.quantize_per_tensor(x, *ACTIVATION).flip(3), *ACTIVATION)


class _Dynamic(nn.Module):
    def forward(self, x):
        scale, zero = Q.choose_qparams.tensor(x, -128, 127, 1e-6, torch.int8)
        whole = Q.quantize_per_tensor.tensor(x, scale, zero, -128, 127, torch.int8)
        return Q.dequantize_per_tensor.tensor(whole, scale, zero, -128, 127, torch.int8)


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (_Two, "two quantizations of one tensor"),
        (_Other, "other parameters than its quantize"),
        (_Integers, "of integers"),
        (_Dynamic, "choose_qparams"),
    ],
)
def test_what_the_graph_cannot_say_is_named(module, said):
    with pytest.raises(CaptureError, match=said):
        capture(module().eval(), example())


def test_a_build_takes_the_scales_to_every_target(tmp_path, monkeypatch):
    import edgekit

    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    body = nn.Sequential(Layer(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    class Ends(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = body

        def forward(self, x):
            return both(self.body(x), 0.04, -128)

    program = torch.export.export(Ends().eval(), (example(),))
    module = program.module()  # has no eval(): its mode is fixed
    images = torch.rand(24, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    run = edgekit.build(
        module,
        calibration=images[:8],
        evaluation=images,
        out=tmp_path / "out",
        targets=["tflite-int8", "onnx-int8", "openvino-int8"],
        device={"profile": "off"},
    )
    assert run.ok, run.report["gates"]
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(tmp_path / "out/tflite-int8/model.tflite"))
    (given,), (answer,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert given["quantization"] == (pytest.approx(0.05), -10)
    assert answer["quantization"] == (pytest.approx(0.04), -128)
