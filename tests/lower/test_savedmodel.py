"""The TensorFlow hand-over: every op case and three models against torch, files, signature, training."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit import zoo
from edgekit.capture import capture
from edgekit.errors import UnsupportedError, UsageError
from edgekit.graph.ir import Graph
from edgekit.graph.run import run
from edgekit.lower import savedmodel
from edgekit.lower.lowered import Lowered
from edgekit.lower.savedmodel.operators import OPERATORS
from edgekit.passes import optimize
from edgekit.runtimes.tensorflow.run import run_saved_model
from edgekit.targets import get_target
from tests.cases import OP_CASES, Case, Sketch
from tests.lower.tensorflow_runs import run_programs

TARGET = get_target("savedmodel")
TOLERANCE = 1e-4
REASON = "the extra edgekit[tensorflow] is not installed"
MODELS = ("mobilenet_v3_small", "resnet18", "shufflenet_v2_x0_5")


def _net(s: Sketch):
    """Two convolutions that share their weight, and a head."""
    weight, bias = s.const(8, 8, 1, 1, scale=0.3), s.const(8)
    attrs = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1, "activation": "relu"}
    x = s.op("conv2d", s.op("conv2d", s.input, weight, bias, **attrs), weight, None, **attrs)
    return s.linear(s.op("mean", x, dims=(2, 3), keepdim=False), 4)


NET = Case(_net)


@pytest.fixture(scope="session")
def tensorflow() -> None:
    if importlib.util.find_spec("tensorflow") is None:
        if os.environ.get("EDGEKIT_CI") == "1":
            pytest.fail(REASON)
        pytest.skip(REASON)


def _prepared(case: Case) -> Graph:
    return savedmodel.prepare(case.graph(), TARGET)


@pytest.fixture(scope="session")
def answers(tensorflow: None) -> dict[str, float | str]:
    """Case or model -> largest error over three images, relative to the largest output; or what failed."""
    names, jobs, expected = [], [], []
    for name, graph, images in _graphs():
        program, _ = savedmodel.program_of(savedmodel.prepare(graph, TARGET), TARGET)
        names.append(name)
        jobs.append((program, images.numpy().transpose(0, 2, 3, 1)))
        expected.append(run(graph, [images]))
    answers = {}
    for name, wanted, found in zip(names, expected, run_programs(jobs), strict=True):
        if isinstance(found, str):
            answers[name] = found
        else:
            answers[name] = max(_relative(f, w) for f, w in zip(found.values(), wanted, strict=True))
    return answers


def _graphs():
    for name, case in OP_CASES.items():
        if "tflite-float32" not in case.xfail:
            yield name, case.graph(), case.images(3)
    for name in MODELS:
        images = torch.randn((3, 3, 64, 64), generator=torch.Generator().manual_seed(3))
        graph = capture(zoo.resolve(name, "random").module, images[:1], name)
        optimize(graph)
        yield name, graph, images


def _relative(found: np.ndarray, wanted: torch.Tensor) -> float:
    found = found.transpose(0, 3, 1, 2) if found.ndim == 4 else found
    assert found.shape == tuple(wanted.shape)
    return float(np.abs(found - wanted.numpy()).max() / np.abs(wanted.numpy()).max())


@pytest.fixture(scope="session")
def written(tensorflow: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Lowered, Path]:
    """NET's lowering and the directory it was written to."""
    lowered = savedmodel.lower(_prepared(NET), TARGET)
    root = tmp_path_factory.mktemp("hand-over")
    for name, data in lowered.files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return lowered, root / "saved_model"


@pytest.mark.parametrize("name", [n for n, case in OP_CASES.items() if "tflite-float32" not in case.xfail])
def test_an_op_answers_as_torch_does(answers: dict[str, float | str], name: str) -> None:
    found = answers[name]
    assert isinstance(found, float), found
    assert found <= TOLERANCE


@pytest.mark.parametrize("name", MODELS)
def test_a_model_answers_as_torch_does(answers: dict[str, float | str], name: str) -> None:
    found = answers[name]
    assert isinstance(found, float), found
    assert found <= TOLERANCE


def test_the_files(written: tuple[Lowered, Path]) -> None:
    lowered, _ = written
    assert list(lowered.files) == [
        "saved_model/saved_model.pb",
        "saved_model/variables/variables.data-00000-of-00001",
        "saved_model/variables/variables.index",
    ]
    assert (lowered.inputs, lowered.outputs, lowered.batchable) == (("image",), ("linear_1",), True)
    assert lowered.tensors == {"image": "image", "linear_1": "linear_1"}
    assert [op.source for op in lowered.operators] == ["conv2d.0", "conv2d.1", "mean.2", "linear.3"]


def test_a_second_build_writes_the_same_bytes(written: tuple[Lowered, Path]) -> None:
    assert savedmodel.lower(_prepared(NET), TARGET).files == written[0].files


def test_the_directory_answers_any_number_of_images(written: tuple[Lowered, Path]) -> None:
    images = NET.images(19)
    (wanted,) = run(NET.graph(), [images])
    (found,) = run_saved_model(written[1], images.numpy(), written[0].ports)
    assert found.shape == (19, 4)
    assert np.abs(found - wanted.numpy()).max() <= TOLERANCE * np.abs(wanted.numpy()).max()


TRAINING = """
import json, sys
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
image = tf.random.stateless_uniform((2, 10, 12, 8), (0, 1))
def loss():
    return tf.reduce_mean(tf.square(model.serve(image)["linear_1"] - 1.0))
before = float(loss())
names = sorted(model.parameters)
variables = [model.parameters[name] for name in names]
for _ in range(5):
    with tf.GradientTape() as tape:
        value = loss()
    for variable, slope in zip(variables, tape.gradient(value, variables)):
        variable.assign_sub(0.01 * slope)
shapes = {name: list(v.shape) for name, v in zip(names, variables)}
print(json.dumps({"before": before, "after": float(loss()), "shapes": shapes}))
"""


def test_its_weights_are_variables_that_train(written: tuple[Lowered, Path]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, str(written[1])],
        capture_output=True,
        text=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["after"] < told["before"]
    assert told["shapes"] == {  # the shared weight once; the second convolution has no bias to train
        "const_1": [1, 1, 8, 8],
        "const_2": [8],
        "const_3": [4, 8],
        "const_4": [4],
    }


def test_a_graph_that_bakes_in_its_batch_takes_one_image() -> None:
    graph = _prepared(NET)
    graph.batchable = False
    program, _ = savedmodel.program_of(graph, TARGET)
    assert not program.batchable
    assert program.tensors[program.inputs[0][1]].shape == (1, 10, 12, 8)


def test_variables_have_the_names_of_module_paths() -> None:
    image = torch.ones(1, 3, 64, 64)
    graph = capture(zoo.resolve("resnet18", "random").module, image, "resnet18")
    optimize(graph)
    program, _ = savedmodel.program_of(savedmodel.prepare(graph, TARGET), TARGET)
    names = {tensor.variable for tensor in program.tensors if tensor.variable}
    assert len(names) == 42  # 20 convolutions with the bias of their batch norm, and the head
    assert {"conv1.weight", "layer4.1.conv2.bias", "fc.weight", "fc.bias"} <= names


def test_sizes_that_count_images_are_found() -> None:
    program, _ = savedmodel.program_of(_prepared(OP_CASES["windows"]), TARGET)
    assert program.batchable
    assert (-6, 20, 8) in {tensor.shape for tensor in program.tensors}  # six windows an image


def test_every_builtin_that_cannot_be_rebuilt_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(OPERATORS, "CONV_2D")
    monkeypatch.delitem(OPERATORS, "MEAN")
    with pytest.raises(UnsupportedError) as error:
        savedmodel.program_of(_prepared(NET), TARGET)
    assert str(error.value) == (
        "savedmodel: cannot rebuild CONV_2D at conv2d.0; CONV_2D at conv2d.1; MEAN at mean.2"
    )


def test_without_tensorflow_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'edgekit\[tensorflow\]'$"):
        savedmodel.lower(_prepared(NET), TARGET)


def test_the_only_input_type_is_float32() -> None:
    with pytest.raises(UsageError, match="'int8' is no input type of savedmodel: one of float32"):
        savedmodel.lower(_prepared(NET), TARGET, io_dtype="int8")
