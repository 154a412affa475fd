"""Counts on hand-made files, and what LiteRT itself says about delegation."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from tflite_files import File, small_net

from edgekit.runtimes.audit import OpRecord, audit, delegation, totals
from edgekit.runtimes.runtime import run_model
from edgekit.targets import Promises
from edgekit.verify.gates import Evidence, judge


def test_counts_of_a_fully_int8_file():
    facts = audit(small_net("table"))
    assert facts.int8_ops_share == facts.int8_macs_share == 1.0
    assert facts.kinds == {"int8": 3, "table": 3}
    assert facts.table_ops == 3 and facts.float_ops == () and facts.transposes == ()
    assert facts.macs == 6 * 6 * 4 * 27 + 5 * 4
    assert facts.macs_by_module() == {"features.0": 6 * 6 * 4 * 27, "head": 20}
    assert facts.weight_bytes == {"int8": 4 * 27 + 20, "int32": 4 * (4 + 5 + 2)}
    assert facts.bytes_by_module() == {"features.0": 108 + 16, "head": 20 + 20, "pool": 8}
    assert facts.per_channel_share == 1.0
    assert (facts.inputs[0].dtype, facts.inputs[0].zero_point) == ("int8", 3)
    assert facts.inputs[0].scale == pytest.approx(0.02)
    content = facts.as_dict()
    assert content["input_dtype"] == content["output_dtype"] == "int8"
    json.dumps(content)


def test_modules_replace_tensor_names():
    facts = audit(small_net("builtin"), modules={"features.1": "features.1.act"})
    assert [row.module for row in facts.ops] == ["features.0", "features.1.act", "pool", "head"]
    left = delegation(small_net("builtin"), modules={"features.1": "features.1.act"}).undelegated_ops
    assert [str(op) for op in left] == ["HARD_SWISH at features.1.act"]


def _island(second_reader: bool, unary: str = "HARD_SWISH") -> bytes:
    """int8 -> DEQUANTIZE -> unary -> QUANTIZE -> int8, optionally with the float value read twice."""
    file = File()
    x = file.tensor("x", (1, 16), scale=0.1)
    a = file.tensor("a", (1, 16), "float32")
    b = file.tensor("b", (1, 16), "float32")
    y = file.tensor("y", (1, 16), scale=0.1)
    file.op("DEQUANTIZE", [x], [a], schema.DequantizeOptionsT())
    file.op(unary, [a], [b])
    file.op("QUANTIZE", [b], [y], schema.QuantizeOptionsT())
    outputs = [y]
    if second_reader:
        c = file.tensor("c", (1, 16), "float32")
        z = file.tensor("z", (1, 16), scale=0.1)
        file.op("MUL", [a, b], [c], schema.MulOptionsT())
        file.op("QUANTIZE", [c], [z], schema.QuantizeOptionsT())
        outputs.append(z)
    return file.bytes([x], outputs)


def test_a_chain_is_a_table_only_while_its_values_are_read_once():
    assert audit(_island(False)).kinds == {"table": 3}
    facts = audit(_island(True))
    assert facts.table_ops == 0 and facts.int8_ops_share == 0.0
    assert "HARD_SWISH at b" in facts.float_ops and "MUL at c" in facts.float_ops


@pytest.mark.parametrize(
    ("op", "constant", "table"),
    [("ADD", [3.0], True), ("MUL", None, True), ("ADD", [1.0] * 16, False), ("SOFTMAX", (), False)],
    ids=["scalar", "itself", "vector", "not a scalar function"],
)
def test_what_a_table_absorbs(op, constant, table):
    file = File()
    x, y = file.tensor("x", (1, 16), scale=0.1), file.tensor("y", (1, 16), scale=0.1)
    a, b = file.tensor("a", (1, 16), "float32"), file.tensor("b", (1, 16), "float32")
    operands = [a, a] if constant is None else [a]
    if constant:
        operands.append(file.tensor("c", (len(constant),), "float32", data=constant))
    file.op("DEQUANTIZE", [x], [a])
    file.op(op, operands, [b])
    file.op("QUANTIZE", [b], [y])
    assert (audit(file.bytes([x], [y])).table_ops == 3) is table


def test_a_change_of_scale_is_a_table_inside_and_a_conversion_at_the_border():
    def pair(inside):
        file = File()
        x, y = file.tensor("x", (1, 16), scale=0.1), file.tensor("y", (1, 16), scale=0.2)
        a = file.tensor("a", (1, 16), "float32")
        ends = []
        for stem, value in (("in", x), ("out", y)):
            shape = file.tensor(f"{stem}/shape", (2,), "int32", data=[4, 4])
            scale = 0.1 if stem == "in" else 0.2
            ends.append((file.tensor(stem, (4, 4), scale=scale), shape, value))
        if inside:
            file.op("RESHAPE", [ends[0][0], file.tensor("s", (2,), "int32", data=[1, 16])], [x])
        file.op("DEQUANTIZE", [x], [a])
        file.op("QUANTIZE", [a], [y])
        if inside:
            file.op("RESHAPE", [y, ends[1][1]], [ends[1][0]])
        return file.bytes([ends[0][0] if inside else x], [ends[1][0] if inside else y])

    assert audit(pair(True)).kinds == {"int8": 2, "table": 2}
    assert audit(pair(False)).kinds == {"convert": 2}


def test_conversions_at_the_border_are_not_computation():
    file = File()
    x = file.tensor("x", (1, 16), "float32")
    q = file.tensor("q", (1, 16), scale=0.1)
    r = file.tensor("r", (1, 4, 4), scale=0.1)
    y = file.tensor("y", (1, 4, 4), "float32")
    shape = file.tensor("shape", (3,), "int32", data=[1, 4, 4])
    file.op("QUANTIZE", [x], [q], schema.QuantizeOptionsT())
    file.op("RESHAPE", [q, shape], [r])
    file.op("DEQUANTIZE", [r], [y], schema.DequantizeOptionsT())
    facts = audit(file.bytes([x], [y]))
    assert facts.kinds == {"convert": 2, "int8": 1}
    assert facts.int8_ops_share == 1.0 and facts.inputs[0].scale is None


def test_float_transposes_are_named():
    file = File()
    x = file.tensor("x", (1, 3, 4, 4), "float32")
    y = file.tensor("stem/nhwc", (1, 4, 4, 3), "float32")
    order = file.tensor("order", (4,), "int32", data=[0, 2, 3, 1])
    file.op("TRANSPOSE", [x, order], [y])
    facts = audit(file.bytes([x], [y]))
    assert facts.transposes == ("stem/nhwc",) and facts.float_ops == ("TRANSPOSE at stem/nhwc",)


def test_the_runtime_names_what_it_does_not_delegate():
    whole, split = delegation(small_net("table")), delegation(small_net("builtin"))
    assert whole.complete and whole.partitions == 1 and whole.operators == 6
    assert split.partitions == 2 and not split.complete
    assert [op.op for op in split.undelegated_ops] == ["HARD_SWISH"]
    assert split.as_dict()["undelegated_ops"] == ["HARD_SWISH at features.1"]


def test_run_model_quantizes_lays_out_and_dequantizes():
    images = np.random.default_rng(0).uniform(-2, 2, (5, 3, 8, 8)).astype(np.float32)
    done: list[int] = []
    (logits,) = run_model(small_net(), images, progress=done.append)
    assert logits.shape == (5, 5) and sum(done) == 5
    steps = logits / np.float32(0.04)
    assert np.allclose(steps, np.rint(steps), atol=1e-3)
    assert np.array_equal(logits, run_model(small_net(), images, workers=2)[0])
    assert len(np.unique(logits, axis=0)) > 1


def test_products_of_two_activations_are_no_matter_of_weights():
    """Attention's products are placed where a runtime is fast on them: the promise is about layers."""
    rows = (
        OpRecord(0, "Convolution", "int8", "a", 300, 9),
        OpRecord(1, "MatMul", "float", "attention", 900, 0, product=True),
        OpRecord(2, "Gemm", "float", "head", 100, 4),
    )
    facts = replace(audit(small_net("table")), **totals(rows))
    assert facts.int8_macs_share == pytest.approx(300 / 1300)
    assert facts.int8_weighted_macs_share == pytest.approx(0.75)
    gates = {gate.name: gate for gate in judge(Evidence(audit=facts), Promises(min_int8_macs_share=0.5))}
    assert gates["int8"].ok and "75.0% of those on weights" in gates["int8"].detail
