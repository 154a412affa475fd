"""Which operators a construct becomes: the forms the delegate runs fast, and nothing left behind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from litert import annotate, lowered_case, partitions, run_file, undelegated

from edgekit.graph.ir import Value
from edgekit.graph.run import run
from edgekit.lower.lowered import Lowered
from edgekit.lower.tflite import lower, prepare
from edgekit.lower.tflite.oldest_runtime import oldest_runtime
from edgekit.lower.tflite.reader import read_model
from edgekit.quantize import simulate
from edgekit.runtimes.runtime import min_runtime_version
from edgekit.targets import get_target
from tests.cases import OP_CASES, Case, Sketch, conv, unary

INT8 = get_target("tflite-int8")
FLOAT = get_target("tflite-float32")


def builtins(lowered: Lowered) -> list[str]:
    return [op.builtin for op in lowered.operators]


@pytest.mark.parametrize("op", ["hardswish", "gelu", "tanh", "leaky_relu", "elu", "abs"])
def test_an_activation_is_one_table(op: str) -> None:
    _, lowered = lowered_case(OP_CASES[op], "tflite-int8")
    names = builtins(lowered)
    assert (names[0], names[-1], len(names)) == ("DEQUANTIZE", "QUANTIZE", 3)
    assert undelegated(lowered.data) == []


def test_silu_is_a_table_and_a_product() -> None:
    prepared, lowered = lowered_case(OP_CASES["silu"], "tflite-int8")
    assert builtins(lowered) == ["DEQUANTIZE", "LOGISTIC", "QUANTIZE", "MUL"]
    gate = prepared.value("silu_1.gate")
    assert gate.quant is not None
    assert gate.quant.zero_point == (-128,)
    assert 0.9 / 255 < gate.quant.scale[0] < 1.02 / 255


def test_fused_activations_cost_no_operator() -> None:
    _, lowered = lowered_case(OP_CASES["conv2d-1x1-relu"], "tflite-int8")
    assert builtins(lowered) == ["CONV_2D"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("conv2d-3x3-same", ["CONV_2D"]),
        ("conv2d-3x3-stride2", ["PAD", "CONV_2D"]),
        ("conv2d-3x3-stride2-odd", ["CONV_2D"]),  # SAME is torch's padding on odd sizes
        ("conv2d-stem-3x3", ["RESHAPE", "PAD", "CONV_2D"]),
        ("conv2d-patches", ["RESHAPE", "CONV_2D"]),
        ("conv2d-depthwise", ["DEPTHWISE_CONV_2D"]),
        ("conv2d-depthwise-7x7", ["CONV_2D"]),
        ("conv2d-grouped", ["CONV_2D"]),
        ("mean", ["MEAN"]),
        ("avg_pool2d", ["DEPTHWISE_CONV_2D"]),
        ("max_pool2d-after-relu", ["DEQUANTIZE", "HARD_SWISH", "QUANTIZE", "ADD", "PAD", "MAX_POOL_2D"]),
        ("max_pool2d-grown", ["RESHAPE", "PAD", "CONV_2D", "MAX_POOL_2D", "SLICE"]),
        ("linear-flatten", ["CONV_2D", "RESHAPE", "FULLY_CONNECTED"]),
        ("linear", ["MEAN", "RESHAPE", "FULLY_CONNECTED"]),
        ("slice-twice", ["SLICE"]),
        ("split", ["SPLIT", "CONCATENATION"]),
        ("concat", ["DEQUANTIZE", "RELU", "QUANTIZE", "CONCATENATION"]),
    ],
)
def test_int8_form(name: str, expected: list[str]) -> None:
    _, lowered = lowered_case(OP_CASES[name], "tflite-int8")
    assert builtins(lowered) == expected
    assert undelegated(lowered.data) == []
    assert partitions(lowered.data) == 1


def _shuffle_net(s: Sketch) -> list:
    """Three shuffled units and a strided end, as in ShuffleNetV2."""
    x = s.conv(s.input, 20, 3, padding=1, activation="relu")
    keep, y = s.ops("split", x, sizes=(10, 10), dim=1)
    for _ in range(3):
        branch = s.conv(s.conv(y, 10, activation="relu"), 10, 3, padding=1, groups=10)
        both = s.op("concat", keep, s.conv(branch, 10, activation="relu"), dim=1)
        keep, y = s.ops("split", s.op("channel_shuffle", both, groups=2), sizes=(10, 10), dim=1)
    both = s.op("concat", keep, s.conv(y, 10, activation="relu"), dim=1)
    left = s.conv(s.conv(both, 20, 3, stride=2, padding=1, groups=20), 12)
    return [left, s.linear(s.op("mean", both, dims=(2, 3), keepdim=False), 5)]


def test_folding_a_shuffle_changes_no_number() -> None:
    case = Case(_shuffle_net)
    graph, image = case.graph(), case.images(1)
    annotate(graph, case.images())
    prepared = prepare(graph, INT8)
    assert not any(node.op == "channel_shuffle" for node in prepared.nodes)
    for before, after in zip(simulate(graph, image), simulate(prepared, image), strict=True):
        assert torch.equal(before, after)
    lowered = lower(prepared, INT8)
    assert lowered.certificate == ()
    assert not {"TRANSPOSE", "GATHER"} & set(builtins(lowered))


def test_a_shuffle_somebody_looks_at_stays() -> None:
    def build(s: Sketch) -> list:
        shuffled = s.op("channel_shuffle", s.conv(s.input, 24), groups=2)
        return [shuffled, s.conv(shuffled, 4)]

    prepared = prepare(Case(build).graph(), FLOAT)
    assert any(node.op == "channel_shuffle" for node in prepared.nodes)
    _, lowered = lowered_case(Case(build), "tflite-float32")
    assert [entry.source for entry in lowered.certificate] == ["channel_shuffle.1"]


def test_channels_that_a_reshape_takes_apart_keep_their_order() -> None:
    """(N, C, 1, 1) -> (N, groups, C / groups): the linear layer behind it reads a part of the channels."""

    def build(s: Sketch) -> list:
        both = s.op("concat", s.conv(s.input, 8), s.conv(s.input, 8), dim=1)
        shuffled = s.op("channel_shuffle", both, groups=2)
        pooled = s.op("mean", shuffled, dims=(2, 3), keepdim=True)
        return [s.linear(s.op("reshape", pooled, shape=(-1, 2, 8)), 5), s.conv(shuffled, 4)]

    graph, image = Case(build).graph(), Case(build).images(1)
    prepared = prepare(graph, FLOAT)
    for before, after in zip(run(graph, [image]), run(prepared, [image]), strict=True):
        assert torch.allclose(before, after, atol=1e-5)


def test_a_roll_of_channels_folds_like_a_shuffle() -> None:
    def build(s: Sketch) -> Value:
        x = s.op("roll", s.conv(s.input, 12), shifts=(4,), dims=(1,))
        return s.conv(s.op("channel_shuffle", x, groups=3), 4)

    graph, image = Case(build).graph(), Case(build).images(1)
    prepared = prepare(graph, FLOAT)
    assert [node.op for node in prepared.nodes] == ["conv2d", "conv2d"]
    assert torch.allclose(run(graph, [image])[0], run(prepared, [image])[0], atol=1e-5)


def test_shared_weights_are_not_reordered() -> None:
    def build(s: Sketch) -> list:
        both = s.op("concat", s.input, s.op("relu", s.input), dim=1)
        first = s.conv(s.op("channel_shuffle", both, groups=2), 4)
        weight, bias = s.nodes[-1].inputs[1:]
        return [first, s.op("conv2d", both, weight, bias, **s.nodes[-1].attrs)]

    graph, image = Case(build).graph(), Case(build).images(1)
    prepared = prepare(graph, FLOAT)
    for before, after in zip(run(graph, [image]), run(prepared, [image]), strict=True):
        assert torch.allclose(before, after, atol=1e-5)


def test_permutes_around_channels_last_layers_vanish() -> None:
    _, lowered = lowered_case(OP_CASES["layer_norm-channels-last"], "tflite-float32")
    assert lowered.certificate == ()


def test_a_transpose_that_stays_names_its_module() -> None:
    _, lowered = lowered_case(OP_CASES["reshape"], "tflite-int8")
    (left,) = lowered.certificate
    assert (left.source, left.op, left.value) == ("reshape.0", "reshape", "reshape_1")


def test_more_than_five_pieces_are_joined_in_steps() -> None:
    _, lowered = lowered_case(OP_CASES["concat-many"], "tflite-int8")
    assert builtins(lowered).count("CONCATENATION") == 2
    assert undelegated(lowered.data) == []


def test_a_longer_concat_starts_from_the_shorter_one() -> None:
    """Dense blocks: each layer reads all features before it."""

    def build(s: Sketch):
        features = [s.input]
        for _ in range(6):
            features.append(s.conv(s.op("concat", *features, dim=1), 4, activation="relu"))
        return s.op("concat", *features, dim=1)

    _, lowered = lowered_case(Case(build), "tflite-int8")
    assert builtins(lowered).count("CONCATENATION") == 6
    assert undelegated(lowered.data) == []


def test_a_float_layer_in_an_int8_graph_is_an_island() -> None:
    case = Case(lambda s: s.conv(s.conv(s.conv(s.input, 8), 8, 3, padding=1), 4))
    graph = case.graph()
    annotate(graph, case.images())
    middle = graph.nodes[1]
    middle.output.quant = None
    assert middle.inputs[1] is not None
    middle.inputs[1].quant = None
    prepared = prepare(graph, INT8)
    lowered = lower(prepared, INT8)
    assert builtins(lowered) == ["CONV_2D", "DEQUANTIZE", "CONV_2D", "CONV_2D", "QUANTIZE"]
    (wanted,) = run(case.graph(), [case.images(1)])
    found = run_file(lowered.data, case.images(1))[0].transpose(0, 3, 1, 2)
    assert np.abs(found - wanted.numpy()).max() < 0.05 * wanted.abs().max()


def test_dynamic_int8_keeps_depthwise_in_float() -> None:
    case = Case(lambda s: s.conv(s.conv(s.input, 64), 64, 3, padding=1, groups=64), (1, 64, 12, 12))
    prepared, lowered = lowered_case(case, "tflite-dynamic-int8")
    assert [node.inputs[1].quant is not None for node in prepared.nodes] == [True, False]
    assert builtins(lowered) == ["CONV_2D", "DEPTHWISE_CONV_2D"]
    assert undelegated(lowered.data) == []


def test_dynamic_int8_leaves_thin_layers_in_float() -> None:
    """Quantizing many pixels of few channels costs more than the product saves."""
    case = Case(lambda s: s.conv(s.conv(s.input, 16, 3, stride=2, padding=1), 64), (1, 3, 96, 96))
    prepared, _ = lowered_case(case, "tflite-dynamic-int8")
    assert [node.inputs[1].quant for node in prepared.nodes] == [None, None]


def test_float16_weights_are_delegated() -> None:
    _, lowered = lowered_case(Case(conv(16, 3)), "tflite-float16")
    assert builtins(lowered) == ["DEQUANTIZE", "DEQUANTIZE", "CONV_2D"]
    assert partitions(lowered.data) == 1


def test_padding_of_signed_values_pads_with_the_lowest() -> None:
    _, lowered = lowered_case(
        Case(unary("max_pool2d", kernel=(3, 3), stride=(2, 2), padding=(1, 1))), "tflite-int8"
    )
    assert builtins(lowered) == ["PADV2", "MAX_POOL_2D"]


def test_a_depth_multiplier_becomes_a_repeated_input() -> None:
    case = Case(lambda s: s.conv(s.conv(s.input, 16, 3, padding=1, groups=8), 12))
    graph, image = case.graph(), case.images(1)
    annotate(graph, case.images())
    prepared = prepare(graph, INT8)
    lowered = lower(prepared, INT8)
    assert builtins(lowered) == ["CONCATENATION", "DEPTHWISE_CONV_2D", "CONV_2D"]
    assert torch.equal(simulate(graph, image)[0], simulate(prepared, image)[0])


def test_one_shuffle_that_must_stay_does_not_keep_the_others() -> None:
    def build(s: Sketch) -> list:
        kept = s.op("channel_shuffle", s.conv(s.input, 24), groups=2)
        folded = s.op("channel_shuffle", s.conv(s.input, 24), groups=2)
        return [kept, s.conv(folded, 4)]

    prepared = prepare(Case(build).graph(), FLOAT)
    assert [node.source for node in prepared.nodes if node.op == "channel_shuffle"] == ["channel_shuffle.1"]


# runtimes up to 2.9 take the first of per-channel scales for all channels of FULLY_CONNECTED
@pytest.mark.parametrize("name", ["linear", "linear-flatten", "linear-tokens", "linear-no-bias"])
def test_a_linear_layer_is_a_convolution_for_old_runtimes(name: str) -> None:
    case, present = OP_CASES[name], get_target("tflite-int8")
    graph = case.graph()
    annotate(graph, case.images())
    answers, oldest = [], []
    for target in (present, replace(present, min_runtime="2.10"), replace(present, min_runtime="2.9.1")):
        prepared = prepare(graph, target)
        lowered = lower(prepared, target)
        answers.append(run_file(lowered.data, case.images(1))[0])
        oldest.append(oldest_runtime(read_model(lowered.data)))
        names = {op.builtin for op in lowered.operators}
        assert ("FULLY_CONNECTED" in names) == (target.min_runtime != "2.9.1")
    assert oldest == ["2.10", "2.10", "2.3"]
    assert all(np.array_equal(answer, answers[0]) for answer in answers)


@pytest.mark.parametrize(
    ("name", "target", "needs"),
    [
        ("conv2d-3x3-same", "tflite-int8", "2.3"),
        ("conv2d-grouped", "tflite-int8", "2.9"),
        ("pixel_shuffle", "tflite-int8", "2.5"),
        ("gelu", "tflite-float32", "2.9"),
        ("linear", "tflite-float32", "2.3"),
    ],
)
def test_a_file_says_which_runtime_it_needs(name: str, target: str, needs: str) -> None:
    _, lowered = lowered_case(OP_CASES[name], target)
    assert oldest_runtime(read_model(lowered.data)) == needs
    assert min_runtime_version(lowered.data) == needs


def test_weights_of_int8_before_float_need_the_runtime_that_knows_them() -> None:
    wide = Case(lambda s: s.linear(s.op("reshape", s.input, shape=(-1, 960)), 64))
    _, lowered = lowered_case(wide, "tflite-dynamic-int8")
    assert oldest_runtime(read_model(lowered.data)) == "2.17"


@pytest.mark.parametrize("name", ["pad-reflect", "pad-reflect-uneven"])
def test_a_reflection_of_a_row_or_two_is_delegated(name: str) -> None:
    _, lowered = lowered_case(OP_CASES[name], "tflite-int8")
    assert "MIRROR_PAD" not in builtins(lowered)
    assert undelegated(lowered.data) == [] and partitions(lowered.data) == 1
