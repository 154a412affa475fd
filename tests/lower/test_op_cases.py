"""Every op case on every TensorFlow Lite target: torch, our graph, the real runtime."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from litert import lowered_case, run_file, to_torch_layout

from edgekit.graph.ops import OPS
from edgekit.graph.run import run
from edgekit.quantize import simulate
from tests.cases import OP_CASES, Case

RELATIVE = {"tflite-float32": None, "tflite-float16": 4e-3, "tflite-dynamic-int8": 6e-2}


def _rows(target: str) -> list:
    return [
        pytest.param(
            case,
            id=name,
            marks=[pytest.mark.xfail(reason=case.xfail[target], strict=True)] if target in case.xfail else [],
        )
        for name, case in OP_CASES.items()
    ]


def _float_error(case: Case, target: str) -> float:
    _, lowered = lowered_case(case, target)
    image = case.images(1)
    expected = run(case.graph(), [image])
    worst = 0.0
    for reference, found in zip(expected, run_file(lowered.data, image), strict=True):
        wanted = reference.numpy()
        worst = max(worst, np.abs(to_torch_layout(found) - wanted).max() / np.abs(wanted).max())
    return worst


@pytest.mark.parametrize("case", _rows("tflite-float32"))
def test_float32_answers_as_torch_does(case: Case) -> None:
    assert _float_error(case, "tflite-float32") <= case.float_tolerance


@pytest.mark.parametrize("case", _rows("tflite-float16"))
def test_float16_weights_stay_close(case: Case) -> None:
    assert _float_error(case, "tflite-float16") <= RELATIVE["tflite-float16"]


@pytest.mark.parametrize("case", _rows("tflite-dynamic-int8"))
def test_dynamic_int8_stays_close(case: Case) -> None:
    assert _float_error(case, "tflite-dynamic-int8") <= RELATIVE["tflite-dynamic-int8"]


def _steps(case: Case, target: str, *, delegate: bool = True) -> float:
    """The largest difference between file and simulation, in output steps."""
    prepared, lowered = lowered_case(case, target)
    image = case.images(1)
    worst = 0.0
    for value, wanted, found in zip(
        prepared.outputs,
        simulate(prepared, image),
        run_file(lowered.data, image, delegate=delegate),
        strict=True,
    ):
        step = value.quant.scale[0] if value.quant else 1.0  # places are whole numbers
        worst = max(worst, np.abs(to_torch_layout(found) - wanted.numpy()).max() / step)
    return worst


@pytest.mark.parametrize("case", _rows("tflite-int8"))
def test_int8_answers_as_the_simulation_does(case: Case) -> None:
    assert _steps(case, "tflite-int8") <= case.int8_lsb + 0.01


@pytest.mark.parametrize("case", _rows("tflite-int8"))
def test_int8_scales_hold_without_the_delegate(case: Case) -> None:
    assert _steps(case, "tflite-int8", delegate=False) <= case.int8_lsb + 1.01


@pytest.mark.parametrize("case", _rows("tflite-int16x8"))
def test_int16x8_answers_as_the_simulation_does(case: Case) -> None:
    prepared, lowered = lowered_case(case, "tflite-int16x8")
    image = case.images(1)
    wanted = simulate(prepared, image)[0].numpy()
    found = to_torch_layout(run_file(lowered.data, image)[0])
    assert np.abs(found - wanted).max() <= 1e-3 * np.abs(wanted).max() + 1e-6


def test_every_op_has_a_case() -> None:
    covered = {node.op for case in OP_CASES.values() for node in case.graph().nodes}
    composite = {name for name, row in OPS.items() if row.composite}
    assert set(OPS) - covered <= composite  # gone before any backend sees them
    assert torch.get_num_threads() >= 1
