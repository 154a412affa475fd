"""A damaged or foreign file is an ArtifactError: no traceback, no native crash."""

from __future__ import annotations

import numpy as np
import pytest
from tflite_files import File, small_net

from edgekit.errors import ArtifactError
from edgekit.lower.tflite.reader import read_model
from edgekit.runtimes.audit import audit, delegation
from edgekit.runtimes.litert.run import open_interpreter
from edgekit.runtimes.runtime import run_model

WHOLE = small_net()


def test_reads_what_was_written():
    graph = read_model(WHOLE).main
    assert [op.name for op in graph.operators] == [
        "CONV_2D",
        "DEQUANTIZE",
        "HARD_SWISH",
        "QUANTIZE",
        "MEAN",
        "FULLY_CONNECTED",
    ]
    weight = next(t for t in graph.tensors if t.name == "features.0/weight")
    assert weight.shape == (4, 3, 3, 3) and weight.dtype == "int8" and weight.axis == 0
    assert np.allclose(weight.scale, [0.01, 0.02, 0.005, 0.01])
    rng = np.random.default_rng(0)
    assert np.array_equal(weight.numpy(), rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8))


def test_every_truncation_is_an_artifact_error():
    accepted = []
    for length in range(0, len(WHOLE), 7):
        try:
            read_model(WHOLE[:length])
            accepted.append(length)
        except ArtifactError as error:
            assert "\n" not in str(error)
    assert not [length for length in accepted if length < len(WHOLE) - 8]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a model"),
        (b"PK\x03\x04" + bytes(100), "not a TFLite file"),
        (b"\x1c\x00\x00\x00ONNX" + bytes(100), "not a TFLite file"),
        (b"\xff\xff\xff\xffTFL3" + bytes(100), "truncated"),
        (b"\x08\x00\x00\x00TFL3" + b"\xff" * 100, "truncated"),
    ],
    ids=["empty", "zip", "other identifier", "root outside", "ones"],
)
def test_foreign_bytes(content, says):
    with pytest.raises(ArtifactError, match=says):
        read_model(content)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"none\.tflite: cannot be read"):
        audit(tmp_path / "none.tflite")


def test_fuzzed_bytes_end_in_an_answer_or_an_artifact_error():
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(1500):
        damaged = np.frombuffer(WHOLE, np.uint8).copy()
        places = rng.integers(0, damaged.size, rng.integers(1, 12))
        damaged[places] = rng.integers(0, 256, places.size)
        try:
            audit(damaged.tobytes())
        except ArtifactError:
            refused += 1
    assert refused > 100


def _one_op(scale=0.1, zero_point=0, written=True):
    file = File()
    x = file.tensor("x", (1, 16), scale=0.1)
    y = file.tensor("y", (1, 4, 4), scale=scale, zero_point=zero_point)
    elsewhere = file.tensor("z", (1, 16), scale=0.1)
    shape = file.tensor("shape", (3,), "int32", data=[1, 4, 4])
    file.op("RESHAPE", [x if written else elsewhere, shape], [y])
    return file.bytes([x], [y])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ({"zero_point": 300}, "zero point 300, outside int8"),
        ({"scale": 1e-12}, "has scales 0.1 to 1e-12"),
        ({"scale": float("nan")}, "not positive numbers"),
        ({"written": False}, "reads 'z', which nothing wrote"),
    ],
)
def test_what_would_kill_or_confuse_the_runtime_is_refused_by_name(damage, says):
    read_model(_one_op())
    with pytest.raises(ArtifactError, match=says):
        read_model(_one_op(**damage))


def test_the_runtime_is_never_shown_a_file_our_reader_refuses():
    for broken in (WHOLE[:-100], WHOLE[:200], b"TFL3TFL3" * 10):
        for use in (open_interpreter, delegation):
            with pytest.raises(ArtifactError):
                use(broken)


def test_a_file_the_runtime_refuses_says_why():
    file = File()
    x = file.tensor("x", (1, 16), scale=0.1)
    y = file.tensor("y", (1, 3, 5), scale=0.1)
    file.op("RESHAPE", [x, file.tensor("shape", (3,), "int32", data=[1, 3, 5])], [y])
    with pytest.raises(ArtifactError, match="LiteRT refuses it"):
        delegation(file.bytes([x], [y]))


def test_images_of_another_size_are_refused():
    with pytest.raises(ArtifactError, match=r"\(3, 9, 9\) was given: the file takes"):
        run_model(WHOLE, np.zeros((1, 3, 9, 9), np.float32))
