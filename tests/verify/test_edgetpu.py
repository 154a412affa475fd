"""The Edge TPU's rules on files that keep and that break each, and what depends on what."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from op_graphs import op_graph
from tflite_files import File, small_net

from edgekit.cli import main as cli
from edgekit.errors import ArtifactError, UsageError
from edgekit.lower.tflite import lower, prepare
from edgekit.pipeline import finished
from edgekit.runtimes.edgetpu.preflight import differences, preflight
from edgekit.runtimes.edgetpu.rules import CAUTIONS, RULES
from edgekit.targets import get_target

TRANSCRIPTS = Path(__file__).parents[1] / "device" / "transcripts"
SCALE = 0.1
IMAGE = (1, 8, 8, 4)


def single(op, *operands, out=IMAGE, out_dtype="int8", options=None) -> bytes:
    """A file of one operator; an operand is the shape of an int8 input, or an array: a constant."""
    file = File()
    inputs, given = [], []
    for k, operand in enumerate(operands):
        if isinstance(operand, tuple):
            inputs.append(file.tensor(f"x{k}", operand, scale=SCALE))
            given.append(inputs[-1])
        else:
            scale = SCALE if operand.dtype == np.int8 else None
            inputs.append(file.tensor(f"c{k}", operand.shape, str(operand.dtype), scale, data=operand))
    result = file.tensor("y", out, out_dtype, SCALE if out_dtype == "int8" else None)
    file.op(op, inputs, [result], options)
    return file.bytes(given, [result])


def fields(kind, **values):
    """The options table of that name with these fields set."""
    options = getattr(schema, f"{kind}OptionsT")()
    for name, value in values.items():
        assert hasattr(options, name)
        setattr(options, name, value)
    return options


def i32(*values):
    return np.array(values, np.int32)


def ones(*shape):
    return np.ones(shape, np.int8)


def pool(op, activation):
    return single(op, IMAGE, options=fields("Pool2D", fusedActivationFunction=activation))


def concat(*operands, activation=0):
    chosen = fields("Concatenation", axis=3, fusedActivationFunction=activation)
    return single("CONCATENATION", *operands, out=(1, 8, 8, 8), options=chosen)


def conv(op, dilation_w, dilation_h):
    kind = "Conv2D" if op == "CONV_2D" else "DepthwiseConv2D"
    chosen = fields(kind, dilationWFactor=dilation_w, dilationHFactor=dilation_h)
    return single(op, IMAGE, ones(4 if op == "CONV_2D" else 1, 3, 3, 4), i32(0, 0, 0, 0), options=chosen)


def dense(weights=None, batch=1, weights_format=0):
    weights = ones(5, 4) if weights is None else weights
    chosen = fields("FullyConnected", weightsFormat=weights_format)
    return single("FULLY_CONNECTED", (batch, 4), weights, out=(batch, 5), options=chosen)


def reduce(op, axes, shape=IMAGE):
    return single(op, shape, i32(*axes), out=(1, 4), options=fields("Reducer"))


def pad(*pairs):
    return single("PAD", IMAGE, np.array(pairs, np.int32), out=(1, 9, 9, 5), options=fields("Pad"))


def pack(axis, out):
    return single("PACK", (8, 8, 4), out=out, options=fields("Pack", valuesCount=1, axis=axis))


def softmax(*shape):
    return single("SOFTMAX", shape, out=shape, options=fields("Softmax", beta=1.0))


def strided(strides=(1, 1, 1, 1), **masks):
    chosen = fields("StridedSlice", **masks)
    zero, ends = i32(0, 0, 0, 0), i32(*IMAGE)
    return single("STRIDED_SLICE", IMAGE, zero, ends, i32(*strides), options=chosen)


def edited(data: bytes, change) -> bytes:
    """The file with its tables changed."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def with_signature(*shape):
    def change(model):
        model.subgraphs[0].tensors[0].shapeSignature = np.array(shape, np.int32)

    return edited(single("RELU6", IMAGE), change)


# a file that keeps a rule, one that breaks it, and the reason of the second
CASES = {
    "listed": (
        single("RELU6", IMAGE),
        single("HARD_SWISH", IMAGE),
        "HARD_SWISH is not supported: one of coral.ai/docs/edgetpu/models-intro/#supported-operations",
    ),
    "eight bits": (
        single("QUANTIZE", IMAGE),
        single("ADD", IMAGE, IMAGE, out_dtype="float32"),
        "y is float32: int8 or uint8; constants may be int32",
    ),
    "constants of eight bits": (
        single("MUL", IMAGE, ones(4)),
        single("MUL", IMAGE, np.ones(4, np.float32)),
        "c1 is float32: int8 or uint8; constants may be int32",
    ),
    "fixed sizes": (
        with_signature(*IMAGE),
        with_signature(-1, 8, 8, 4),
        "x0 is of open size: sizes that are fixed when it is compiled",
    ),
    "constant parameters": (dense(), dense((5, 4)), "x1 is computed: parameters that are constants"),
    "three dimensions": (
        single("ADD", IMAGE, IMAGE),
        single("ADD", (2, 8, 8, 4), (1, 1, 1, 4), out=(2, 8, 8, 4)),
        "x0 is 2 x 8 x 8 x 4, y is 2 x 8 x 8 x 4: only the three innermost dimensions above 1",
    ),
    "average pool": (pool("AVERAGE_POOL_2D", 0), pool("AVERAGE_POOL_2D", 1), "a fused activation: none"),
    "max pool": (pool("MAX_POOL_2D", 0), pool("MAX_POOL_2D", 3), "a fused activation: none"),
    "concat": (concat(IMAGE, IMAGE), concat(IMAGE, IMAGE, activation=1), "a fused activation: none"),
    "dilation": (
        conv("CONV_2D", 2, 2),
        conv("CONV_2D", 2, 1),
        "dilation 2 in x, 1 in y: the same in x and y",
    ),
    "depthwise dilation": (
        conv("DEPTHWISE_CONV_2D", 3, 3),
        conv("DEPTHWISE_CONV_2D", 1, 3),
        "dilation 1 in x, 3 in y: the same in x and y",
    ),
    "concat with zeros": (
        concat(IMAGE, ones(*IMAGE) * 0),
        concat(IMAGE, ones(*IMAGE)),
        "c1 is a constant among 2 inputs: a constant only as one of two, all zeros",
    ),
    "concat of three": (
        concat(IMAGE, IMAGE, IMAGE),
        concat(IMAGE, ones(*IMAGE) * 0, IMAGE),
        "c1 is a constant among 3 inputs: a constant only as one of two, all zeros",
    ),
    "weights format": (dense(), dense(weights_format=1), "weights in format 1: the default format"),
    "dense output": (dense(batch=1), dense(batch=3), "y is 3 x 5: a one-dimensional output"),
    "mean": (reduce("MEAN", [1, 2]), reduce("MEAN", [0]), "the batch is reduced: x, y or z"),
    "sum": (reduce("SUM", [-1]), reduce("SUM", [-4]), "the batch is reduced: x, y or z"),
    "mean of z": (
        reduce("MEAN", [3], (1, 8, 8, 8)),
        reduce("MEAN", [-1], (1, 8, 8, 6)),
        "z of 6 is reduced: z a multiple of 4",
    ),
    "pad": (
        pad((0, 0), (1, 0), (1, 0), (0, 1)),
        pad((0, 1), (1, 0), (1, 0), (0, 0)),
        "the batch is padded: padding of x, y or z",
    ),
    "pack": (
        pack(3, (8, 8, 4, 1)[1:]),
        pack(0, (1, 8, 8, 4)),
        "the batch is packed: packing along x, y or z",
    ),
    "prelu": (
        single("PRELU", IMAGE, ones(1, 1, 4)),
        single("PRELU", IMAGE, ones(8, 8, 4)),
        "c1 is 8 x 8 x 4: one slope a channel",
    ),
    "softmax": (
        softmax(1, 10),
        softmax(4, 10),
        "x0 is 4 x 10: one dimension of at most 16,000 elements",
    ),
    "long softmax": (
        softmax(1, 16_000),
        softmax(1, 16_001),
        "x0 is 16,001 elements: one dimension of at most 16,000 elements",
    ),
    "squeeze": (
        single("SQUEEZE", (1, 1, 1, 4), out=(1, 4), options=fields("Squeeze", squeezeDims=[1, 2])),
        single("SQUEEZE", (1, 5, 1, 4), out=(1, 5, 4), options=fields("Squeeze", squeezeDims=[2])),
        "1 x 5 x 1 x 4 becomes 1 x 5 x 4: only leading ones removed",
    ),
    "strides": (strided(), strided((1, 2, 1, 1)), "strides 1 x 2 x 1 x 1: strides of 1"),
    "slice masks": (
        strided(beginMask=3),
        strided(ellipsisMask=1, newAxisMask=2),
        "ellipsis_mask, new_axis_mask: neither mask",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_file_that_keeps_a_rule_and_one_that_breaks_it(case):
    kept, broken, reason = CASES[case]
    assert preflight(kept).complete, preflight(kept).unmapped
    (row,) = preflight(broken).unmapped
    assert reason in row.reasons and not row.mapped and row.after is None


def test_every_rule_has_a_file_that_breaks_it():
    given = {reason for _, broken, _ in CASES.values() for reason in preflight(broken).unmapped[0].reasons}
    assert {reason.rpartition(": ")[2] for reason in given} == {
        rule.needs.rpartition(": ")[2] for rule in RULES
    }


def test_all_that_is_wrong_with_an_operator_is_said():
    data = single("HARD_SWISH", (2, 8, 8, 4), out=(2, 8, 8, 4), out_dtype="float32")
    (row,) = preflight(data).operators
    assert [reason.partition(":")[0] for reason in row.reasons] == [
        "HARD_SWISH is not supported",
        "y is float32",
        "x0 is 2 x 8 x 8 x 4, y is 2 x 8 x 8 x 4",
    ]


def test_what_follows_an_operator_that_is_not_mapped_is_not_mapped():
    found = preflight(small_net("builtin"), {"features.1": "features.1.act"})
    assert [row.mapped for row in found.operators] == [True, False, False, False]
    assert [row.reasons for row in found.operators[2:]] == [("after HARD_SWISH at features.1.act",)] * 2
    assert (found.on_tpu, found.on_cpu) == (1, 3) and found.parameter_bytes == 4 * 27 + 4 * 4
    assert found.as_dict()["first_unmapped"] == "HARD_SWISH at features.1.act"
    json.dumps(found.as_dict())


def test_a_branch_beside_it_is_mapped():
    file = File()
    x, a, b, c, d, y = (file.tensor(name, IMAGE, scale=SCALE) for name in ("x", "a", "b", "c", "d", "y"))
    file.op("ELU", [x], [a])
    file.op("RELU", [x], [b])
    file.op("HARD_SWISH", [b], [c])
    file.op("RELU6", [b], [d])
    file.op("ADD", [a, c], [y])
    found = preflight(file.bytes([x], [y, d]))
    assert [row.mapped for row in found.operators] == [False, True, False, True, False]
    assert found.operators[4].after == "ELU at a"  # the first of those in the way
    assert found.counts() == {
        "ADD": (0, 1),
        "ELU": (0, 1),
        "HARD_SWISH": (0, 1),
        "RELU": (1, 0),
        "RELU6": (1, 0),
    }


def test_conversions_at_the_border_leave_what_is_between():
    """As in the compiler's logs: the QUANTIZE of a float input and the last DEQUANTIZE stay, nothing else."""
    file = File()
    x, q = file.tensor("x", IMAGE, "float32"), file.tensor("q", IMAGE, scale=SCALE)
    r, y = file.tensor("r", IMAGE, scale=SCALE), file.tensor("y", IMAGE, "float32")
    file.op("QUANTIZE", [x], [q])
    file.op("RELU6", [q], [r])
    file.op("DEQUANTIZE", [r], [y])
    found = preflight(file.bytes([x], [y]))
    assert [row.mapped for row in found.operators] == [False, True, False]
    assert "x is float32" in found.operators[0].reasons[0]


def test_what_the_page_leaves_open_is_a_caution():
    moved = single("RESHAPE", IMAGE, i32(1, 8, 4, 8), out=(1, 8, 4, 8))
    ones_only = single("RESHAPE", (1, 1, 1, 4), i32(1, 4), out=(1, 4))
    larger = single("RESIZE_BILINEAR", IMAGE, i32(16, 16), out=(1, 16, 16, 4))
    assert preflight(ones_only).operators[0].cautions == ()
    said = [preflight(data).operators[0].cautions for data in (moved, larger)]
    assert said == [
        ("1 x 8 x 8 x 4 becomes 1 x 8 x 4 x 8: a large one may not be mapped",),
        ("1 x 8 x 8 x 4 becomes 1 x 16 x 16 x 4: some sizes are not mapped",),
    ]
    assert preflight(moved).complete and len(said) == len(CAUTIONS)


@pytest.mark.parametrize(
    ("case", "left"),
    [
        ("conv 3x3 relu", set()),
        ("depthwise 3x3", set()),
        ("linear relu", set()),
        ("max pool padded", {"PADV2"}),
        ("mean keepdim", set()),
        ("pad", set()),
        ("sigmoid", {"DEQUANTIZE", "LOGISTIC", "QUANTIZE"}),
        ("hardswish", {"DEQUANTIZE", "HARD_SWISH", "QUANTIZE"}),
    ],
)
def test_files_of_our_own(case, left):
    """tflite-int8 is made for a CPU: its lookup tables are float operators in the file."""
    target = get_target("tflite-int8")
    found = preflight(lower(prepare(op_graph(case), target), target, io_dtype="int8").data)
    assert {row.op for row in found.unmapped if not row.after} == left


def test_files_that_are_nothing_to_compile():
    def custom(model):
        model.operatorCodes[0].builtinCode, model.operatorCodes[0].deprecatedBuiltinCode = 32, 32
        model.operatorCodes[0].customCode = "edgetpu-custom-op"

    with pytest.raises(ArtifactError, match="edgetpu_compiler wrote it"):
        preflight(edited(single("RELU6", IMAGE), custom))
    with pytest.raises(ArtifactError, match="openvino: the Edge TPU takes"):
        preflight(b"<net/>")
    with pytest.raises(ArtifactError, match="complete TFLite flatbuffer"):
        preflight(small_net()[:900])


def test_differences_are_by_operator():
    found = preflight(small_net("builtin"))
    table = {
        "CONV_2D": (1, 0),
        "HARD_SWISH": (0, 1),
        "MEAN": (1, 0),
        "CUSTOM": (0, 2),
        "FULLY_CONNECTED": (0, 1),
    }
    assert [(row.op, row.predicted, row.compiled) for row in differences(found, table)] == [
        ("CUSTOM", (0, 0), (0, 2)),
        ("MEAN", (0, 1), (1, 0)),
    ]


@pytest.fixture
def check(monkeypatch, capfd, tmp_path):
    """edgekit check FILE ... in this process -> (exit code, stdout, stderr)."""

    def call(data: bytes, *arguments):
        path = tmp_path / "model.tflite"
        path.write_bytes(data)
        monkeypatch.setattr(sys, "argv", ["edgekit", "check", str(path), *map(str, arguments)])
        capfd.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return (code, *capfd.readouterr())

    return call


def test_the_command_says_it_by_its_exit_code(check):
    code, text, error = check(single("RELU6", IMAGE))
    assert (code, error) == (0, "") and "1 operators on the Edge TPU, 0 on the processor" in text
    code, text, error = check(small_net("builtin"), "--target", "edgetpu")
    assert code == 1 and error.strip().endswith("model.tflite: 3")
    assert "HARD_SWISH is not supported" in text and "2 more that depend on HARD_SWISH at features.1" in text
    code, _, error = check(small_net(), "--target", "npu")
    assert code == 2 and "edgetpu" in error


def test_the_command_compares_with_a_log(check):
    log = TRANSCRIPTS / "edgetpu_operations.txt"
    code, text, _ = check(small_net("builtin"), "--log", log)
    assert code == 1 and "as predicted" in text and "1 HARD_SWISH: Operation not supported" in text
    code, text, _ = check(small_net("table"), "--log", log, "--json")
    (content,) = json.loads(text)
    assert code == 1 and content["compiler"]["on_tpu"] == 1
    assert content["differences"] == [
        {"op": "DEQUANTIZE", "predicted": [0, 1], "compiled": [0, 0]},
        {"op": "QUANTIZE", "predicted": [0, 1], "compiled": [0, 0]},
    ]
    code, text, _ = check(small_net("table"), "--log", log)
    assert "is it the log of this file?" in text


def test_the_compilers_word_counts(check, tmp_path):
    log = tmp_path / "log"
    log.write_text("Edge TPU Compiler version 16.0.1\nRELU6  1  Operation version not supported\n")
    assert check(single("RELU6", IMAGE), "--log", log)[0] == 1
    log.write_text("Edge TPU Compiler version 16.0.1\nHARD_SWISH  1  Mapped to Edge TPU\n")
    assert check(single("HARD_SWISH", IMAGE), "--log", log)[0] == 0


def test_logs_that_cannot_be_used(check, tmp_path):
    code, _, error = check(small_net(), "--log", tmp_path / "none")
    assert code == 2 and "cannot be read" in error
    (tmp_path / "log").write_text("Edge TPU Compiler version 16.0\nInvalid model\n")
    code, _, error = check(small_net(), "--log", tmp_path / "log")
    assert code == 2 and "Invalid model" in error
    (tmp_path / "log").write_text(
        "Edge TPU Compiler version 16.0\nNumber of Edge TPU subgraphs: 1\nTotal number of operations: 1\n"
    )
    code, text, _ = check(single("RELU6", IMAGE), "--log", tmp_path / "log")
    assert code == 0 and "no table in this log" in text and "1 operators on the Edge TPU" in text


def test_a_directory_is_all_its_files(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.tflite").write_bytes(single("RELU6", IMAGE))
    assert [content["on_tpu"] for content in finished.check(tmp_path)] == [1, 1]
    with pytest.raises(UsageError, match=r"holds 2 \.tflite files"):
        finished.check(tmp_path, TRANSCRIPTS / "edgetpu_operations.txt")
