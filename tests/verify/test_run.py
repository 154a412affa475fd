"""Images in, logits out: against arithmetic done by hand."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from tflite_files import File, small_net

from edgekit.errors import ArtifactError
from edgekit.runtimes.layout import to_file, to_graph
from edgekit.runtimes.litert.run import Runner, dequantize_from, quantize_to
from edgekit.runtimes.runtime import OpenModel, run_model


def _detail(dtype, scale=0.5, zero_point=3):
    return {"name": "x", "dtype": dtype, "quantization": (scale, zero_point)}


@pytest.mark.parametrize("dtype", [np.int8, np.dtype(np.int8)], ids=["class", "dtype"])
def test_quantization_rounds_half_to_even_and_saturates(dtype):
    values = np.array([0.0, 0.25, 0.75, -0.25, 1000.0, -1000.0], np.float32)
    assert quantize_to(values, _detail(dtype)).tolist() == [3, 3, 5, 3, 127, -128]
    assert quantize_to(values, _detail(dtype)).dtype == np.int8


def test_floats_pass_unchanged_and_integers_without_a_scale_do_not():
    values = np.array([0.3], np.float32)
    assert quantize_to(values, _detail(np.float32)) == values
    with pytest.raises(ArtifactError, match="without a scale"):
        quantize_to(values, _detail(np.int8, 0.0))


def test_dequantization():
    assert dequantize_from(np.array([3, 5, -128], np.int8), _detail(np.int8)).tolist() == [0.0, 1.0, -65.5]


def test_pictures_are_laid_out_and_back():
    image = np.arange(24, dtype=np.float32).reshape(1, 3, 2, 4)
    rows = to_file(image, (0, 2, 3, 1))
    assert rows.flags["C_CONTIGUOUS"] and rows[0, 1, 2].tolist() == image[0, :, 1, 2].tolist()
    assert np.array_equal(to_graph(rows, (0, 2, 3, 1), image.shape), image)
    assert np.array_equal(to_graph(rows[None], (0, 2, 3, 1), image.shape, stacked=True), image[None])


def test_a_file_that_only_reshapes_returns_the_quantized_image():
    file = File()
    x = file.tensor("x", (1, 2, 2, 3), scale=0.1, zero_point=-7)
    y = file.tensor("y", (1, 12), scale=0.1, zero_point=-7)
    options = schema.ReshapeOptionsT()
    options.newShape = [1, 12]
    file.op("RESHAPE", [x, file.tensor("shape", (2,), "int32", data=[1, 12])], [y], options)
    images = np.random.default_rng(0).uniform(-3, 3, (4, 3, 2, 2)).astype(np.float32)
    (found,) = run_model(file.bytes([x], [y]), images)
    wanted = np.rint(images / 0.1).transpose(0, 2, 3, 1).reshape(4, 12) * 0.1
    assert np.allclose(found, wanted, atol=1e-5)


def test_two_workers_answer_as_one():
    images = np.random.default_rng(0).uniform(-2, 2, (9, 3, 8, 8)).astype(np.float32)
    assert np.array_equal(*(run_model(small_net(), images, workers=n)[0] for n in (1, 2)))


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_go_through_a_file_that_is_opened_once(monkeypatch, workers):
    opened = []

    class Counted(Runner):
        def __init__(self, *args):
            opened.append(args)
            super().__init__(*args)

    monkeypatch.setattr("edgekit.runtimes.litert.run.Runner", Counted)
    images = np.random.default_rng(0).normal(size=(11, 3, 8, 8)).astype(np.float32)
    model = OpenModel(small_net(), workers=workers)
    parts = [model(images[start : start + 4])[0] for start in range(0, 11, 4)]
    assert len(opened) == workers
    assert np.array_equal(np.concatenate(parts), run_model(small_net(), images)[0])
