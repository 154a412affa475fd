"""A file that edgetpu_compiler has not seen, on a board with an Edge TPU: the result says so first."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from boards import Board

from edgekit.device.inventory import Device, Limits
from edgekit.device.kinds import find_kind
from edgekit.device.measure import measure
from edgekit.device.profiles import Profile

ONCE = Profile("once", 1, 5, 0.0, 1.0, 1, 0.0)
LIBRARY = "libedgetpu.so.1"


@pytest.fixture
def device(local: Board) -> Device:
    limits = Limits(cool_down_s=0.0)
    return Device(
        "coral-a", "coral", local.transport, python=sys.executable, base=str(local.base), limits=limits
    )


def test_the_result_says_that_it_was_not_compiled(device: Device, models: dict[str, Path]) -> None:
    result = measure(device, {"net": models["tflite-int8"]}, ONCE)
    first = result.reasons[0]
    assert not result.valid and first.startswith(f"net: not compiled for {LIBRARY}")
    assert "it runs on the processor: edgetpu_compiler makes the file" in first
    assert LIBRARY in result.reasons[1]  # there is none here
    assert result.content["validity"]["attempts"] == 1


def test_the_processor_may_be_measured_on_purpose(device: Device, models: dict[str, Path]) -> None:
    result = measure(device, {"net": models["tflite-int8"]}, ONCE, delegate="xnnpack")
    assert result.valid and result.reasons == []


def test_only_what_was_not_compiled_is_called_that(tmp_path: Path, models: dict[str, Path]) -> None:
    unfit = find_kind("coral").unfit
    compiled = tmp_path / "net_edgetpu.tflite"
    compiled.write_bytes(models["tflite-int8"].read_bytes() + b"\x11\0\0\0edgetpu-custom-op\0")
    assert unfit(models["tflite-int8"], LIBRARY) and unfit(compiled, LIBRARY) is None
    assert find_kind("host").unfit(models["tflite-int8"], "xnnpack") is None
