"""Where the files are quantized: TensorRT's rules in the file, ONNX Runtime's in the graph it really runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnx_runs import annotate, lowered_case, op_types, parsed, run_file, runs_in_integers, session

from edgekit import passes
from edgekit.capture import capture
from edgekit.graph.ir import Graph, QuantParams, Value
from edgekit.graph.run import run
from edgekit.lower.lowered import Lowered
from edgekit.lower.onnx import lower, prepare
from edgekit.quantize import simulate, sqnr_db
from edgekit.targets import get_target
from edgekit.verify.placed import Placed
from edgekit.verify.runtime_fidelity import runtime_fidelity
from tests.cases import OP_CASES, Case, Sketch, conv

INT8 = get_target("onnx-int8")
TENSORRT = get_target("tensorrt-int8")


def _residual(s: Sketch) -> Value:
    """A ReLU'd stem, a residual block, one with a shortcut convolution, a head."""
    x = s.conv(s.input, 8, 3, padding=1, activation="relu")
    inner = s.conv(s.conv(x, 8, 3, padding=1, activation="relu"), 8, 3, padding=1)
    x = s.op("add", inner, x, activation="relu")
    inner = s.conv(s.conv(x, 12, 3, stride=2, padding=1, activation="relu"), 12, 3, padding=1)
    x = s.op("add", inner, s.conv(x, 12, stride=2), activation="relu")
    pooled = s.op("mean", x, dims=(2, 3), keepdim=False)
    return s.linear(pooled, 5)


RESIDUAL = Case(_residual)


class File:
    """A parsed file with its nodes by what they write and who reads."""

    def __init__(self, lowered: Lowered) -> None:
        self.model = parsed(lowered)
        self.nodes = list(self.model.graph.node)
        self.producer = {name: node for node in self.nodes for name in node.output}
        self.constants = {t.name: numpy_helper.to_array(t) for t in self.model.graph.initializer}

    def conversions(self, op_type: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if node.op_type == op_type]

    def made_by(self, tensor: str) -> str:
        return self.producer[tensor].op_type if tensor in self.producer else "initializer"


@pytest.fixture(scope="module")
def tensorrt() -> File:
    return File(lowered_case(RESIDUAL, "tensorrt-int8")[1])


def test_tensorrt_knows_signed_symmetric_integers_only(tensorrt: File) -> None:
    conversions = tensorrt.conversions("QuantizeLinear") + tensorrt.conversions("DequantizeLinear")
    assert len(conversions) > 10
    for node in conversions:
        zero_point = tensorrt.constants[node.input[2]]
        assert zero_point.dtype == np.int8
        assert not zero_point.any()
    assert not any(data.dtype in (np.uint8, np.int32) for data in tensorrt.constants.values())


def test_tensorrt_weights_are_per_channel_in_127_steps(tensorrt: File) -> None:
    weights = [n for n in tensorrt.conversions("DequantizeLinear") if n.input[0] in tensorrt.constants]
    assert len(weights) == 7
    for node in weights:
        data, scale = tensorrt.constants[node.input[0]], tensorrt.constants[node.input[1]]
        assert scale.shape == (data.shape[0],)
        assert next(a.i for a in node.attribute if a.name == "axis") == 0
        assert np.abs(data.astype(int)).max() == 127


def test_tensorrt_dequantizes_every_input_of_a_product_but_the_bias(tensorrt: File) -> None:
    products = [node for node in tensorrt.nodes if node.op_type in ("Conv", "Gemm")]
    assert len(products) == 7
    for node in products:
        x, weight, bias = node.input
        assert tensorrt.made_by(x) == tensorrt.made_by(weight) == "DequantizeLinear"
        assert tensorrt.constants[bias].dtype == np.float32


def test_tensorrt_leaves_the_way_from_convolution_to_sum_alone(tensorrt: File) -> None:
    sums = [node for node in tensorrt.nodes if node.op_type == "Add"]
    assert [sorted(tensorrt.made_by(t) for t in node.input) for node in sums] == [
        ["Conv", "DequantizeLinear"]
    ] * 2
    # of two convolutions the shortcut is the one that is quantized
    (shortcut,) = (t for t in sums[1].input if tensorrt.made_by(t) == "DequantizeLinear")
    rounded = tensorrt.producer[tensorrt.producer[shortcut].input[0]]
    assert tensorrt.producer[rounded.input[0]].name == "conv2d.6/Conv"
    for node in tensorrt.conversions("QuantizeLinear"):
        reader_of = tensorrt.made_by(node.input[0]) if node.input[0] in tensorrt.producer else "input"
        assert reader_of != "Conv" or tensorrt.producer[node.input[0]].name == "conv2d.6/Conv"


def test_tensorrt_rounds_a_tensor_once_and_reads_it_often(tensorrt: File) -> None:
    rounded = Counter(node.input[0] for node in tensorrt.conversions("QuantizeLinear"))
    assert set(rounded.values()) == {1}
    read = Counter(node.input[0] for node in tensorrt.conversions("DequantizeLinear"))
    assert max(read.values()) == 2


def test_tensorrt_pieces_of_a_concat_share_its_parameters() -> None:
    def build(s: Sketch) -> Value:
        return s.conv(s.op("concat", s.conv(s.input, 4), s.conv(s.input, 6), dim=1), 3)

    prepared, _ = lowered_case(Case(build), "tensorrt-int8")
    (join,) = (node for node in prepared.nodes if node.op == "concat")
    assert len({value.quant for value in (*join.operands, join.output)}) == 1
    assert join.output.quant is not None


# ONNX Runtime: what its own optimizer makes of the file
def optimized(lowered: Lowered, folder: Path) -> onnx.ModelProto:
    path = folder / "optimized.onnx"
    session(lowered.files["model.onnx"], path)
    return onnx.load(path)


def annotated_network(name: str, resolution: int) -> tuple[Graph, torch.Tensor]:
    """A network with seeded random weights, calibrated on four images."""
    import torchvision

    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = getattr(torchvision.models, name)(weights=None).eval()
    images = torch.randn(4, 3, resolution, resolution, generator=torch.Generator().manual_seed(0))
    graph = capture(module, images[:1], name)
    passes.optimize(graph)
    annotate(graph, images)
    return graph, images


@pytest.fixture(scope="module")
def v3_small() -> tuple[Graph, torch.Tensor]:
    return annotated_network("mobilenet_v3_small", 96)


def test_onnxruntime_runs_v3_small_in_integers(v3_small, tmp_path: Path) -> None:
    graph, _ = v3_small
    prepared = prepare(graph, INT8)
    lowered = lower(prepared, INT8)
    ran = Counter(node.op_type for node in optimized(lowered, tmp_path).graph.node)
    convolutions = sum(node.op == "conv2d" for node in graph.nodes)
    assert ran["QLinearConv"] == convolutions - 1
    assert ran["QLinearGlobalAveragePool"] == sum(node.op == "mean" for node in graph.nodes)
    assert ran["QGemm"] == 2
    assert ran["Conv"] + ran["FusedConv"] == 1  # the stem
    assert ran["DequantizeLinear"] == 0
    floating = [node for node in prepared.nodes if node.output.quant is None]
    assert [(node.op, node.source) for node in floating] == [
        ("conv2d", "features.0.0"),
        ("linear", "classifier.3"),
    ]


def test_v3_small_answers_as_its_simulation(v3_small) -> None:
    graph, images = v3_small
    prepared = prepare(graph, INT8)
    (found,) = run_file(lower(prepared, INT8), images[:1])
    wanted = simulate(prepared, images[:1])[0]
    assert sqnr_db(wanted, torch.from_numpy(found)) > 25.0
    (reference,) = run(graph, [images[:1]])
    assert sqnr_db(reference, torch.from_numpy(found)) > 5.0


@pytest.mark.parametrize("activation", ["hardswish", "silu"])
def test_a_gated_activation_is_two_integer_operators(activation: str, tmp_path: Path) -> None:
    def build(s: Sketch) -> Value:
        x = s.op(activation, s.conv(s.conv(s.input, 8), 8, 3, padding=1))
        return s.conv(x, 8)

    _, lowered = lowered_case(Case(build), "onnx-int8")
    ran = Counter(node.op_type for node in optimized(lowered, tmp_path).graph.node)
    gate = "QLinearAdd" if activation == "hardswish" else "QLinearSigmoid"
    assert (ran["QLinearConv"], ran[gate], ran["QLinearMul"]) == (3, 1, 1)
    assert ran["Sigmoid"] + ran["HardSigmoid"] + ran["Mul"] == 0


@pytest.mark.parametrize("activation", ["relu", "silu", "hardswish"])
def test_the_stem_is_float_before_an_h_swish_only(activation: str) -> None:
    def build(s: Sketch) -> Value:
        fused = activation if activation == "relu" else None
        x = s.conv(s.input, 8, 3, stride=2, padding=1, activation=fused)
        return s.conv(x if fused else s.op(activation, x), 8)

    prepared, _ = lowered_case(Case(build, (1, 3, 32, 32)), "onnx-int8")
    integer = activation != "hardswish"
    stem = prepared.nodes[0]
    assert stem.inputs[1] is not None
    assert (prepared.inputs[0].quant is not None) == (stem.inputs[1].quant is not None) == integer


def test_an_image_gets_a_fourth_channel(tmp_path: Path) -> None:
    """It is zero in the file's integers and meets zero weights: the answers are those of three channels."""
    case = Case(lambda s: s.conv(s.conv(s.input, 8, 3, stride=2, padding=1), 4), (1, 3, 32, 32))
    prepared, lowered = lowered_case(case, "onnx-int8")
    file = File(lowered)
    (pad,) = file.conversions("Pad")
    assert file.made_by(pad.input[0]) == "QuantizeLinear"
    shapes = [array.shape for array in file.constants.values() if array.dtype == np.int8 and array.ndim == 4]
    assert (8, 4, 3, 3) in shapes and (8, 3, 3, 3) not in shapes
    ran = Counter(node.op_type for node in optimized(lowered, tmp_path).graph.node)
    assert (ran["QLinearConv"], ran["Conv"], ran["DequantizeLinear"]) == (2, 0, 1)
    (found,) = run_file(lowered, case.images(1))
    step = prepared.nodes[-1].output.quant
    assert step is not None
    wanted = simulate(prepared, case.images(1))[0].numpy()
    assert np.abs(found - wanted).max() <= 1.001 * step.scale[0]


def test_activations_are_unsigned_and_biases_int32() -> None:
    file = File(lowered_case(RESIDUAL, "onnx-int8")[1])
    for node in file.conversions("QuantizeLinear"):
        assert file.constants[node.input[2]].dtype == np.uint8
    biases = [
        file.constants[n.input[0]].ndim
        for n in file.conversions("DequantizeLinear")
        if n.input[0] in file.constants and file.constants[n.input[0]].dtype == np.int32
    ]
    assert biases == [1] * 7  # every convolution, and the Gemm


def test_every_reader_has_a_conversion_of_its_own() -> None:
    file = File(lowered_case(RESIDUAL, "onnx-int8")[1])
    dequantized = {name for node in file.conversions("DequantizeLinear") for name in node.output}
    read = Counter(name for node in file.nodes for name in node.input if name in dequantized)
    assert set(read.values()) == {1}


def test_a_float_unit_keeps_its_weights_in_float() -> None:
    case = Case(lambda s: s.conv(s.op("exp", s.conv(s.conv(s.input, 4), 4)), 4))
    graph = case.graph()
    annotate(graph, case.images())
    graph.nodes[2].output.quant = None
    graph.nodes[1].output.quant = None
    prepared = prepare(graph, INT8)
    weights = [node.inputs[1].quant is not None for node in prepared.nodes if node.op == "conv2d"]
    assert weights == [True, False, False]


def test_a_relu6_disappears_into_the_grid(tmp_path: Path) -> None:
    case = Case(lambda s: s.conv(s.conv(s.conv(s.input, 8), 8, activation="relu6"), 4))
    graph = case.graph()
    annotate(graph, case.images())
    middle = graph.nodes[1].output
    middle.range = (0.0, 6.6)
    assert middle.quant is not None
    middle.quant = type(middle.quant)((6.6 / 255,), (-128,))
    lowered = lower(prepare(graph, INT8), INT8)
    assert "Clip" not in op_types(lowered)
    ran = Counter(node.op_type for node in optimized(lowered, tmp_path).graph.node)
    assert ran["QLinearConv"] == 3


def _gated_block(channels: int, groups: int | None = None) -> Case:
    """Expand, depthwise, h-swish, squeeze-and-excite, project, with the block's input added."""

    def build(s: Sketch) -> Value:
        x = s.conv(s.input, 8)
        y = s.conv(x, channels, activation="relu")
        y = s.op("hardswish", s.conv(y, channels, 5, padding=2, groups=groups or channels))
        gate = s.conv(s.conv(s.op("mean", y, dims=(2, 3), keepdim=True), 4, activation="relu"), channels)
        y = s.op("mul", y, s.op("hardsigmoid", gate), activation=None)
        return s.conv(s.op("add", s.conv(y, 8), x, activation=None), 4)

    return Case(build)


def test_depthwise_channels_are_filled_up_to_sixteens() -> None:
    case = _gated_block(30)
    graph = case.graph()
    annotate(graph, case.images())
    prepared = prepare(graph, INT8)
    wide = {node.op for node in prepared.nodes if len(node.output.shape) == 4 and node.output.shape[1] == 32}
    assert {"conv2d", "mul", "mean"} <= wide and not any(v.shape[1:2] == (30,) for v in prepared.values())
    assert {node.attrs["groups"] for node in prepared.nodes if node.op == "conv2d"} == {1, 32}
    before, after = (run(g, [case.images(1)])[0] for g in (graph, prepared))
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    assert all(v.shape[1:2] != (32,) for v in graph.values()), "the graph that was given stays as it was"
    (found,) = run_file(lower(prepared, INT8), case.images(1))
    assert sqnr_db(simulate(prepared, case.images(1))[0], torch.from_numpy(found)) > 30.0


def _divided(s: Sketch) -> Value:
    x = s.conv(s.conv(s.input, 30), 30, 3, groups=30)
    return s.conv(s.op("div", x, s.op("leaky_relu", s.op("abs", x), negative_slope=0.1)), 4)


@pytest.mark.parametrize(
    "case",
    [
        _gated_block(24),  # 32 are a third more
        _gated_block(30, groups=15),
        Case(lambda s: s.conv(s.conv(s.conv(s.input, 8), 30), 30, 3, groups=30)),  # its end is an output
        Case(lambda s: s.conv(s.op("softmax", s.conv(s.conv(s.input, 30), 30, 3, groups=30), dim=1), 4)),
        Case(_divided),  # new channels would be 0 / 0
    ],
)
def test_other_convolutions_keep_their_channels(case: Case) -> None:
    prepared, _ = lowered_case(case, "onnx-int8")
    assert not any(v.shape[1:2] == (32,) for v in prepared.values())


def test_a_weight_of_two_convolutions_is_not_filled_up() -> None:
    case = Case(lambda s: s.conv(s.conv(s.conv(s.conv(s.input, 30), 30, 3, groups=30), 30), 30, 1))
    graph = case.graph()
    graph.nodes[3].inputs[1] = graph.nodes[2].inputs[1]
    annotate(graph, case.images())
    assert not any(v.shape[1:2] == (32,) for v in prepare(graph, INT8).values())


def test_a_shuffle_leaves_no_transpose() -> None:
    _, lowered = lowered_case(OP_CASES["channel_shuffle-folded"], "onnx-int8")
    assert not {"Transpose", "Gather"} & set(op_types(lowered))


def test_moves_share_their_parameters() -> None:
    case = Case(lambda s: s.conv(s.op("channel_shuffle", s.op("add", s.input, s.input), groups=2), 4))
    prepared, _ = lowered_case(case, "onnx-int8")
    for node in prepared.nodes:
        if node.op in ("reshape", "permute", "concat", "split"):
            assert len({v.quant for v in (*node.operands, *node.outputs)}) == 1


def test_float32_has_no_conversions() -> None:
    _, lowered = lowered_case(Case(conv(4, 3)), "onnx-float32")
    assert op_types(lowered) == ["Conv"] == [op.builtin for op in lowered.operators]


@pytest.mark.parametrize("shared", [False, True])
def test_a_bias_far_below_a_step_of_its_sum_is_the_files(shared: bool) -> None:
    """Squeeze-excite behind a branch of zeros: half a step of the int32 bias is several of the output."""
    s = Sketch((1, 8, 10, 12))
    x = s.op("mul", s.conv(s.input, 8), s.fixed(torch.tensor([1e-3])), activation=None)
    pooled = s.op("mean", x, dims=(2, 3), keepdim=True)
    attrs = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1, "activation": "relu"}
    bias = s.fixed(torch.rand(16, generator=s.rng) * 2e-4)
    first = s.op("conv2d", pooled, s.const(16, 8, 1, 1, scale=0.3), bias, **attrs)
    also = [s.op("conv2d", first, s.const(16, 16, 1, 1, scale=0.1), bias, **attrs)] if shared else []
    graph = s.graph(s.op("mul", x, s.op("sigmoid", s.conv(first, 8)), activation=None), *also)
    images = torch.randn((4, *s.input.shape[1:]), generator=torch.Generator().manual_seed(3))
    annotate(graph, images)
    for value in (x, pooled):  # as coarse as a branch that calibration saw as zero
        held = graph.value(value.name)
        held.range, held.quant = (0.0, 1.0), QuantParams((float(np.float32(1 / 255)),), (-128,))
    prepared = prepare(graph, INT8)
    lowered = lower(prepared, INT8)
    placed = Placed(prepared, lowered.files["model.onnx"], lowered.tensors)
    assert runtime_fidelity(placed, images[:2].numpy()).max_lsb <= 1


@pytest.mark.parametrize("io", ["float32", "uint8"])
@pytest.mark.parametrize("activation", ["relu", "hardswish"])
def test_an_input_of_integers_is_on_its_grid(activation: str, io: str) -> None:
    """The stem convolution of an h-swish network reads the picture in float, and pixels are 256 numbers."""
    s = Sketch((1, 3, 16, 16))
    x = s.op(activation, s.conv(s.input, 8, 3, stride=2, padding=1))
    graph = s.graph(s.conv(s.op("hardswish", s.conv(x, 16)), 8))
    images = torch.randn((4, *s.input.shape[1:]), generator=torch.Generator().manual_seed(3))
    annotate(graph, images)
    prepared = prepare(graph, INT8, io)
    assert (prepared.inputs[0].quant is None) == (io == "float32" and activation == "hardswish")
    lowered = lower(prepared, INT8, io_dtype=io)
    placed = Placed(prepared, lowered.files["model.onnx"], lowered.tensors, ports=lowered.ports)
    found = runtime_fidelity(placed, images.numpy())
    assert found.max_lsb <= 1 and found.answers_db > 40


@pytest.mark.parametrize("activation", ["relu", "relu6"])
@pytest.mark.parametrize("op", ["conv2d", "add"])
def test_an_activation_on_a_grid_below_zero_stays_in_integers(
    op: str, activation: str, tmp_path: Path
) -> None:
    """U-Net: a ReLU whose result is concatenated with what may be negative, on one grid."""

    def build(s: Sketch) -> Value:
        x = s.op("max_pool2d", s.input, kernel=(2, 2), stride=(2, 2), padding=(0, 0))
        y = s.conv(x, 8, 3, padding=1, activation=activation if op == "conv2d" else None)
        y = s.op("add", y, x, activation=activation) if op == "add" else y
        return s.conv(s.op("concat", y, s.conv(x, 8), dim=1), 6)

    prepared, lowered = lowered_case(Case(build), "onnx-int8")
    bent = next(node.output for node in prepared.nodes if node.attrs.get("activation"))
    assert bent.quant is not None and bent.quant.zero_point[0] > -128
    image = Case(build).images(1)
    (wanted,), (found,) = simulate(prepared, image), run_file(lowered, image)
    quant = prepared.outputs[0].quant
    assert quant is not None and np.abs(found - wanted.numpy()).max() <= 1.01 * quant.scale[0]
    assert runs_in_integers(lowered, tmp_path)
    placed = Placed(prepared, lowered.files["model.onnx"], lowered.tensors, ports=lowered.ports)
    assert runtime_fidelity(placed, image.numpy()).max_lsb <= 1
