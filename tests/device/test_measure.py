"""Measuring on a Raspberry Pi over real ssh: figures, proofs, heat, and what an invalid run becomes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boards import Board, leftovers, recorded

from edgekit.device.drift import Evaluation, compare, golden_evaluation
from edgekit.device.harness import FileRun
from edgekit.device.inventory import Device, Limits
from edgekit.device.measure import measure
from edgekit.device.probe import Sample
from edgekit.device.profiles import SUSTAINED, Profile
from edgekit.device.result import read_result, validate_result
from edgekit.device.sustained import sustained
from edgekit.errors import ArtifactError, DeviceJobError, DeviceRefusedError, ReportError, UsageError

SHORT = Profile("short", 2, 20, 0.0, 2.0, 2, 0.0)


@pytest.fixture
def device(pi: Board) -> Iterator[Device]:
    yield Device(
        "pi4-a",
        "raspberry_pi",
        pi.transport,
        python=sys.executable,
        base=str(pi.base),
        limits=Limits(cool_down_s=0.0),
    )
    (pi.root / "throttled").write_text("0x0\n")
    assert leftovers(pi.base) == []


def when(text: str, then: Callable[[], object]) -> Callable[[str], None]:
    """A progress function that acts the first time a line says `text`."""
    done: list[str] = []

    def say(line: str) -> None:
        if text in line and not done:
            done.append(line)
            then()

    return say


@pytest.fixture
def quick_device(pi: Board, device: Device) -> Device:
    """The same board with a benchmark_model that prints a transcript: for what happens around it."""
    return replace(
        device,
        runtimes=("benchmark_model",),
        tools={"benchmark_model": recorded(pi, "bm", "benchmark_model.txt")},
    )


def test_two_files_are_measured_side_by_side(device: Device, models: dict[str, Path], tmp_path: Path) -> None:
    golden = golden_evaluation(models["tflite-int8"].parent)
    assert golden is not None and golden.expected is not None
    here = replace(golden, expected=None, labels=np.array([0, 1, 2]))
    result = measure(
        device, models, SHORT, evaluations={"tflite-int8": golden, "tflite-float16": float_like(here)}
    )
    assert result.valid and result.reasons == []
    content = result.content
    assert content["device"]["fingerprint"]["model"] == "Raspberry Pi 4 Model B Rev 1.4"
    assert content["device"]["fingerprint"]["governor"] == "ondemand"
    assert "boot_id" in content["device"]["state"] and "boot_id" not in content["device"]["fingerprint"]
    assert content["runtime"]["harness"] == "litert" and content["runtime"]["delegate"] == "xnnpack"
    for name, row in content["files"].items():
        figures = row["figures"]
        assert figures["raw"] and figures["n"] == 40 == sum(map(len, result.samples[name]))
        assert len(result.samples[name]) == 2 and not figures["p99_supported"]
        assert figures["p50_interval"][0] <= figures["p50_ms"] <= figures["p50_interval"][1]
        assert figures["p50_ms"] == pytest.approx(np.median(np.concatenate(result.samples[name])) / 1e6)
        assert figures["init_ms"] > 0 and figures["first_ms"] > 0
        assert row["delegate"] == "xnnpack" and row["partitions"] >= 1
        assert 0 < row["memory"]["peak_bytes"] < 2**30 and "VmHWM" in row["memory"]["method"]
    assert [r["file"] for r in content["ratios"]] == ["tflite-int8"]
    drift = content["files"]["tflite-int8"]["drift"]
    assert drift["inputs"] == drift["identical"] == 3 and drift["max_lsb"] == 0
    drift = content["files"]["tflite-float16"]["drift"]
    assert drift["identical"] == 3 and drift["reference"].startswith("this machine, ai-edge-litert")
    assert drift["top1_device"] == drift["top1_reference"] is not None
    before = content["telemetry"]["before"]
    assert before["temperature_c"] == {"cpu-thermal": 48.312, "soc": 48.3} and before["throttled"] == 0
    assert before["clock_mhz"]["cpu3"] == 1800 and before["governor"] == "ondemand"
    assert content["telemetry"]["series"]
    path = result.write(tmp_path)
    again = read_result(path)
    assert again.samples == result.samples and again.run == result.run
    with pytest.raises(ReportError, match="validity"):
        validate_result(again.content | {"validity": {}})
    samples = next(tmp_path.glob("*.samples.json.gz"))
    samples.write_bytes(samples.read_bytes()[:-10])
    with pytest.raises(ArtifactError, match="pi4-a"):
        read_result(path)


def float_like(evaluation: Evaluation) -> Evaluation:
    """The same inputs as real numbers."""
    return replace(evaluation, inputs=[(evaluation.inputs[0] / np.float32(64)).astype(np.float32)])


def test_answers_are_compared_bit_by_bit() -> None:
    ours = [np.array([[[1, 5]], [[7, 2]], [[3, 3]]], np.int8)]
    theirs = [np.array([[[1, 5]], [[5, 6]], [[3, 3]]], np.int8)]
    found = compare(ours, theirs, np.array([1, 1, 0]))
    assert (found["identical"], found["max_lsb"], found["max_difference"]) == (2, 4, None)
    assert found["argmax_agreement"] == pytest.approx(2 / 3)
    assert (found["top1_device"], found["top1_reference"]) == (pytest.approx(2 / 3), 1.0)
    floats = [np.array([[[1.0, 2.0]]], np.float32)], [np.array([[[1.0, 2.5]]], np.float32)]
    assert compare(*floats, None)["max_difference"] == pytest.approx(0.2)


def test_a_tool_with_summaries_gives_what_it_has(
    quick_device: Device, models: dict[str, Path], tmp_path: Path
) -> None:
    golden = golden_evaluation(models["tflite-int8"].parent)
    assert golden is not None
    result = measure(quick_device, {"a": models["tflite-int8"]}, SHORT, evaluations={"a": golden})
    row = result.content["files"]["a"]
    assert (
        row["figures"]["p50_ms"] == 42.405 and row["figures"]["p99_ms"] is None and not row["figures"]["raw"]
    )
    assert row["figures"]["process_p50_ms"] == [42.405, 42.405]
    assert row["partitions"] == 33 and row["delegate"] == "xnnpack" and result.samples["a"] == [[], []]
    assert row["memory"]["peak_bytes"] == int(27.5859 * 2**20) and row["drift"] is None
    assert "gives no outputs" in result.content["validity"]["notes"][-1]
    result.write(tmp_path)


def test_a_run_that_was_throttled_is_published_as_invalid(
    pi: Board, quick_device: Device, models: dict[str, Path], tmp_path: Path
) -> None:
    """Bits 0-3 appear in the middle and stay."""
    throttle = when("process 2", lambda: (pi.root / "throttled").write_text("0x50005\n"))
    result = measure(quick_device, {"a": models["tflite-int8"]}, SHORT, progress=throttle)
    assert not result.valid and result.content["validity"]["attempts"] == 3
    assert "throttled: under-voltage" in result.reasons and "throttled: throttled" in result.reasons
    assert result.content["files"]["a"]["figures"]["p50_ms"] > 0
    assert not read_result(result.write(tmp_path)).valid


def test_throttling_that_passes_costs_an_attempt(
    pi: Board, quick_device: Device, models: dict[str, Path]
) -> None:
    """Only the bits since boot tell of it, and only by the change."""
    throttle = when("process 2", lambda: (pi.root / "throttled").write_text("0x40000\n"))
    result = measure(quick_device, {"a": models["tflite-int8"]}, SHORT, progress=throttle)
    assert result.valid and result.content["validity"]["attempts"] == 2
    assert result.content["validity"]["notes"][0] == "attempt 1 was invalid: throttled: throttled"


def test_a_governor_that_changes_is_invalid(pi: Board, quick_device: Device, models: dict[str, Path]) -> None:
    files = sorted(pi.root.glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"))
    turns = iter(range(100))

    def change(line: str) -> None:
        if "process 2" in line:
            for file in files:
                file.write_text(f"governor{next(turns)}\n")

    try:
        result = measure(quick_device, {"a": models["tflite-int8"]}, SHORT, progress=change)
    finally:
        for file in files:
            file.write_text("ondemand\n")
    assert not result.valid and any("governor changed" in reason for reason in result.reasons)


def test_a_missing_delegate_is_invalid_at_once(
    device: Device, models: dict[str, Path], tmp_path: Path
) -> None:
    result = measure(device, {"a": models["tflite-int8"]}, SHORT, delegate="libedgetpu.so.1")
    assert not result.valid and result.content["validity"]["attempts"] == 1
    assert "libedgetpu.so.1" in result.reasons[0] and "cannot open shared object file" in result.reasons[0]
    assert result.content["files"]["a"]["figures"] is None
    result.write(tmp_path)


def test_the_wrong_delegate_is_invalid(quick_device: Device, models: dict[str, Path]) -> None:
    result = measure(quick_device, {"a": models["tflite-int8"]}, SHORT, delegate="gpu")
    assert result.reasons == ["delegate gpu did not run a: xnnpack"]


def test_a_job_that_fails_is_not_repeated(device: Device, tmp_path: Path) -> None:
    damaged = tmp_path / "model.tflite"
    damaged.write_bytes(b"not a model")
    said: list[str] = []
    with pytest.raises(DeviceJobError, match="pi4-a") as caught:
        measure(device, {"a": damaged}, SHORT, progress=said.append)
    assert caught.value.exit_code == 1 and "Error" in caught.value.stderr
    assert sum("process" in line for line in said) == 1


def test_clocks_are_locked_and_put_back(pi: Board, quick_device: Device, models: dict[str, Path]) -> None:
    governor = pi.root / "sys/devices/system/cpu/cpu2/cpufreq/scaling_governor"
    seen: list[str] = []
    result = measure(
        replace(quick_device, clocks="lock"),
        {"a": models["tflite-int8"]},
        SHORT,
        progress=when("process 1", lambda: seen.append(governor.read_text())),
    )
    assert seen == ["performance\n"] and result.content["device"]["clocks"] == "governor performance"
    assert result.valid and leftovers(pi.base) == [] and governor.read_text() == "ondemand\n"


def test_a_sustained_run_is_a_curve(device: Device, models: dict[str, Path]) -> None:
    result = measure(device, {"a": models["tflite-int8"]}, "sustained", minutes=0.03)
    row = result.content["files"]["a"]
    heat = row["sustained"]
    assert heat["minutes"] == pytest.approx(0.03) and heat["first_minute_ms"] == heat["last_minute_ms"] > 0
    assert sum(point["n"] for point in heat["curve"]) == row["figures"]["n"] > 20
    assert all(point["temperature_c"] == 48.312 and point["clock_mhz"] == 1800 for point in heat["curve"])


def test_the_curve_of_a_run_that_slows_down() -> None:
    starts = np.arange(0, 180, 0.5)
    run = FileRun(
        samples_ns=[int(1e6 * (2 if t >= 120 else 1)) for t in starts],
        starts_ns=[int(t * 1e9) for t in starts],
        began_at_s=1000.0,
    )
    plan = replace(SUSTAINED, seconds=180.0)
    cold, hot = (
        Sample(1000.0, {"soc": 50.0}, {"cpu0": 1800.0}),
        Sample(1150.0, {"soc": 82.0}, {"cpu0": 1000.0}),
    )
    found = sustained(plan, run, [cold, hot])
    assert (found["first_minute_ms"], found["last_minute_ms"]) == (1.0, 2.0)
    assert found["curve"][0] == {
        "t_s": 0.0,
        "p50_ms": 1.0,
        "n": 20,
        "temperature_c": 50.0,
        "clock_mhz": 1800.0,
    }
    assert found["curve"][-1]["p50_ms"] == 2.0 and found["curve"][-1]["temperature_c"] == 82.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": "slow"}, "'slow' does not exist: quick, publish, sustained"),
        ({"minutes": 3.0}, "profile sustained"),
        ({"runtime": "litter"}, "did you mean litert"),
        ({"delegate": "gpu"}, "'gpu': litert has xnnpack, none"),
        ({"threads": 0}, "at least 1"),
    ],
)
def test_requests_that_cannot_be_right(
    device: Device, models: dict[str, Path], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        measure(device, {"a": models["tflite-int8"]}, **options)


def test_a_file_no_runtime_takes(device: Device, models: dict[str, Path], tmp_path: Path) -> None:
    odd = tmp_path / "model.onnx"
    odd.write_bytes(b"x")
    with pytest.raises(UsageError, match=r"no runtime for .onnx, .tflite together: litert takes .tflite"):
        measure(device, {"a": models["tflite-int8"], "b": odd})


def test_a_retired_board_is_left_alone(device: Device, models: dict[str, Path]) -> None:
    with pytest.raises(DeviceRefusedError, match="the inventory says retired"):
        measure(replace(device, health="retired"), {"a": models["tflite-int8"]})
