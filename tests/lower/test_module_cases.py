"""Every operator of MODULE_CASES: eager torch, our graph, and the runtimes on the written files."""

from __future__ import annotations

import functools

import litert
import numpy as np
import onnx_runs
import openvino_runs
import pytest
import torch
from torch.utils._pytree import tree_leaves

from edgekit.capture import capture
from edgekit.graph.ir import Graph
from edgekit.graph.run import run
from edgekit.lower import onnx, openvino, tflite
from edgekit.passes import optimize
from edgekit.targets import get_target
from tests.modules import MODULE_CASES, ModuleCase

FLOAT, INT8 = ("tflite-float32", "onnx-float32"), ("tflite-int8", "onnx-int8", "openvino-int8")
FORMATS = {"tflite": tflite, "onnx": onnx, "openvino": openvino}
Arrays = list[np.ndarray]


@functools.cache
def _captured(name: str) -> tuple[Graph, Arrays]:
    """The optimized graph of a case, and eager's answers to its last image."""
    case = MODULE_CASES[name]
    module, images = case.module(), case.images()
    with torch.no_grad():
        answers = [t.numpy().astype(np.float32) for t in tree_leaves(module(images[-1:]))]
    graph = capture(module, case.images(1), name)
    optimize(graph)
    return graph, answers


def _answers(name: str, target_name: str) -> Arrays:
    """The written file's, in torch's layout."""
    target, image = get_target(target_name), MODULE_CASES[name].images()[-1:]
    graph = _captured(name)[0].copy()
    if target.quantized:
        _calibrate(graph, MODULE_CASES[name].images())
    form = FORMATS[target.format]
    lowered = form.lower(form.prepare(graph, target), target)
    if target.format == "tflite":
        return [litert.to_torch_layout(y) for y in litert.run_file(lowered.data, image)]
    if target.format == "onnx":
        return onnx_runs.run_file(lowered, image)
    return openvino_runs.run_files(lowered.files, image)


def _calibrate(graph: Graph, images: torch.Tensor) -> None:
    litert.annotate(graph, images)


def _rows(targets: tuple[str, ...]) -> list:
    return [
        pytest.param(
            name,
            target,
            id=f"{name}-{target}",
            marks=[pytest.mark.xfail(reason=case.xfail[target], strict=True)] if target in case.xfail else [],
        )
        for name, case in MODULE_CASES.items()
        for target in targets
    ]


@pytest.mark.parametrize("name", MODULE_CASES)
def test_the_graph_answers_as_eager_does(name: str) -> None:
    """Capture proves it on one image; here it is another."""
    graph, answers = _captured(name)
    for wanted, found in zip(answers, run(graph, [MODULE_CASES[name].images()[-1:]]), strict=True):
        assert tuple(found.shape) == wanted.shape
        assert _error(found.numpy(), wanted) <= MODULE_CASES[name].float_error


@pytest.mark.parametrize(("name", "target"), _rows(FLOAT))
def test_float_files_answer_as_eager_does(name: str, target: str) -> None:
    for wanted, found in zip(_captured(name)[1], _answers(name, target), strict=True):
        assert _error(found.reshape(wanted.shape), wanted) <= MODULE_CASES[name].float_error


@pytest.mark.parametrize(("name", "target"), _rows(INT8))
def test_int8_files_stay_close_to_eager(name: str, target: str) -> None:
    case: ModuleCase = MODULE_CASES[name]
    for wanted, found in zip(_captured(name)[1], _answers(name, target), strict=True):
        found = found.reshape(wanted.shape)
        if case.agreement is not None:
            assert (found == wanted).mean() >= case.agreement
        else:
            assert _sqnr_db(found, wanted) >= case.int8_db


def _error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-12))


def _sqnr_db(found: np.ndarray, wanted: np.ndarray) -> float:
    noise = float(((found - wanted).astype(np.float64) ** 2).sum())
    return 10 * np.log10(max(float((wanted.astype(np.float64) ** 2).sum()), 1e-30) / max(noise, 1e-30))
