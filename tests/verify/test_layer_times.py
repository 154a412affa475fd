"""The structure of what is timed; nothing here asserts a speed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx_files import float_onnx, int8_onnx, openvino_files
from tflite_files import small_net

from edgekit.device.profiles import Profile
from edgekit.lower.tflite.expose import prefix
from edgekit.lower.tflite.reader import read_model
from edgekit.pipeline.timing import latency
from edgekit.runtimes.audit import audit
from edgekit.runtimes.litert.times import cut_points
from edgekit.runtimes.runtime import read_values, run_model
from edgekit.verify.layer_times import layer_times

TINY = Profile("tiny", 2, 12, 0.0, 5.0, 2, 0.0)


def tiny(files, *, threads):
    return latency(files, profile=TINY, threads=threads)


FILES = {
    "tflite": lambda: small_net("table"),
    "onnx": int8_onnx,
    "onnx float": float_onnx,
    "openvino": openvino_files,
    "openvino int8": lambda: openvino_files(True),
}


@pytest.mark.parametrize("name", FILES)
def test_rows_cover_every_operator_and_add_up_to_the_whole(name):
    file = FILES[name]()
    found = layer_times(file, {"features.0": "stem", "features.0/Conv": "stem"}, latency=tiny)
    assert [i for row in found.rows for i in row.operators] == list(range(len(audit(file).ops)))
    assert found.total_ms > 0 and all(row.ms >= 0 for row in found.rows)
    assert sum(row.ms for row in found.rows) == pytest.approx(found.total_ms)
    assert sum(row.share for row in found.rows) == pytest.approx(1.0)
    assert found.slowest(1)[0].ms == max(row.ms for row in found.rows)
    assert found.method == ("prefixes" if name == "tflite" else "profiler")
    assert any("stem" in row.modules for row in found.rows)
    assert all(len(row.operators) == 1 for row in found.rows if found.method == "profiler")
    json.dumps(found.as_dict())


def test_a_folded_chain_is_one_row():
    found = layer_times(small_net("table"), latency=tiny)
    assert [row.ops for row in found.rows] == [
        ("CONV_2D",),
        ("DEQUANTIZE", "HARD_SWISH", "QUANTIZE"),
        ("MEAN",),
        ("FULLY_CONNECTED",),
    ]


@pytest.mark.parametrize(
    ("operators", "inseparable", "cuts", "points"),
    [
        (6, [(1, 3)], 24, [1, 4, 5, 6]),
        (6, [], 3, [2, 4, 6]),
        (6, [(0, 5)], 3, [6]),
        (5, [], 1, [5]),
        (100, [], 24, None),
    ],
)
def test_where_files_are_cut(operators, inseparable, cuts, points):
    found = cut_points(operators, inseparable, cuts)
    assert points is None or found == points
    assert found[-1] == operators and len(found) <= cuts and found == sorted(set(found))


def test_a_prefix_computes_what_the_whole_does():
    whole = small_net("builtin")
    images = np.random.default_rng(0).uniform(-2, 2, (3, 3, 8, 8)).astype(np.float32)
    for count, name in ((1, "features.0"), (2, "features.1"), (3, "pool")):
        part = prefix(whole, count)
        assert len(read_model(part).main.operators) == count and len(part) <= len(whole) + 64
        wanted = read_values(whole, [name], images)[name].reshape(3, -1)
        assert np.array_equal(run_model(part, images)[0].reshape(3, -1), wanted)
