"""Padding, stride, size and kernel in every combination that changes which padding form is chosen."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from litert import lowered_case, run_file, to_torch_layout

from edgekit.graph.run import run
from edgekit.quantize import simulate
from tests.cases import Case, conv

KERNELS = ((1, 1), (3, 3), (5, 5), (1, 7), (7, 1))
GRID = [
    pytest.param(
        Case(
            conv(8, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups),
            (1, channels, *size),
        ),
        id=f"{channels}x{size[0]}x{size[1]}-k{kernel[0]}x{kernel[1]}-s{stride}-d{dilation}-g{groups}-p{padding}",
    )
    for kernel, stride, size, dilation, (channels, groups) in itertools.product(
        KERNELS, (1, 2, 3), ((12, 12), (13, 15)), (1, 2), ((3, 1), (8, 8), (8, 2))
    )
    for padding in (
        (0, 0, 0, 0),
        (kernel[0] // 2 * dilation,) * 2 + (kernel[1] // 2 * dilation,) * 2,
        (1, 2, 0, 3),
    )
    if (dilation == 1 or (stride == 1 and kernel == (3, 3)))
    and (stride < 3 or kernel == (3, 3))
    and not (padding == (1, 2, 0, 3) and kernel == (1, 1))
]


@pytest.mark.parametrize("case", GRID)
def test_float32_and_int8(case: Case) -> None:
    image = case.images(1)
    (wanted,) = run(case.graph(), [image])
    _, lowered = lowered_case(case, "tflite-float32")
    found = to_torch_layout(run_file(lowered.data, image)[0])
    assert np.abs(found - wanted.numpy()).max() <= 2e-6 * np.abs(wanted.numpy()).max()

    prepared, lowered = lowered_case(case, "tflite-int8")
    (simulated,) = simulate(prepared, image)
    found = to_torch_layout(run_file(lowered.data, image)[0])
    quant = prepared.outputs[0].quant
    assert quant is not None
    assert np.abs(found - simulated.numpy()).max() <= 1.01 * quant.scale[0]
