"""Every op case on every ONNX target: torch or the integer simulation against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_runs import lowered_case, run_file

from edgekit.graph.ops import OPS
from edgekit.graph.run import run
from edgekit.lower.onnx import supported
from edgekit.quantize import simulate
from edgekit.targets import get_target
from tests.cases import OP_CASES, Case

# Outputs without parameters: float sums in another order, and a bias rounded to the accumulator's grid.
FLOAT_OUTPUT = {"onnx-int8": 2e-5, "tensorrt-int8": 1e-5}


def _rows(target: str) -> list:
    return [
        pytest.param(
            case,
            id=name,
            marks=[pytest.mark.xfail(reason=case.xfail[target], strict=True)] if target in case.xfail else [],
        )
        for name, case in OP_CASES.items()
    ]


@pytest.mark.parametrize("case", _rows("onnx-float32"))
def test_float32_answers_as_torch_does(case: Case) -> None:
    _, lowered = lowered_case(case, "onnx-float32")
    image = case.images(1)
    for wanted, found in zip(run(case.graph(), [image]), run_file(lowered, image), strict=True):
        wanted = wanted.numpy()
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= case.float_tolerance * np.abs(wanted).max()


@pytest.mark.parametrize("target", ["onnx-int8", "tensorrt-int8"])
@pytest.mark.parametrize("case", _rows("onnx-int8"))
def test_int8_answers_as_the_simulation_does(case: Case, target: str) -> None:
    prepared, lowered = lowered_case(case, target, stem=False)
    image = case.images(1)
    rows = zip(prepared.outputs, simulate(prepared, image), run_file(lowered, image), strict=True)
    for value, wanted, found in rows:
        wanted = wanted.numpy()
        error = np.abs(found - wanted).max()
        if value.quant is not None:
            assert error <= (case.int8_lsb + 0.01) * value.quant.scale[0]
        else:
            assert error <= max(case.float_tolerance, FLOAT_OUTPUT[target]) * np.abs(wanted).max()


def test_every_op_is_lowered() -> None:
    assert supported(get_target("onnx-int8")) == set(OPS) - {"dropout"}  # no target sees it
