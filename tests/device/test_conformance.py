"""One suite over every kind of board, on the transport it has: a new kind is one more row of BOARDS."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from boards import Board, leftovers, recorded

from edgekit.device.doctor import doctor, probe
from edgekit.device.inventory import Device, Limits
from edgekit.device.kinds import Kind, find_kind, kinds
from edgekit.device.measure import measure
from edgekit.device.probe import fingerprint_id
from edgekit.device.probe.telemetry import parse_telemetry
from edgekit.device.profiles import Profile
from edgekit.device.reservation import look
from edgekit.device.result import read_result

SHORT = Profile("short", 2, 5, 0.0, 1.0, 1, 0.0)


def script(board: Board, name: str, body: str) -> None:
    path = board.tools / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def host(_board: Board) -> dict[str, object]:
    return {"python": sys.executable}


def raspberry_pi(_board: Board) -> dict[str, object]:
    return {"python": sys.executable}


def jetson(board: Board) -> dict[str, object]:
    recorded(board, "trtexec", "trtexec_10_3.txt")
    log = recorded(board, "tegrastats_once", "tegrastats.txt")
    script(board, "tegrastats", f"while {log}; do sleep 0.2; done")
    script(board, "nvpmodel", 'echo "NV Power Mode: MAXN"; echo 0')
    return {}


def android(board: Board) -> dict[str, object]:
    recorded(board, "dumpsys", "thermalservice.txt")
    script(board, "getprop", 'case $1 in ro.product.model) echo "Pixel 8" ;; *) echo unknown ;; esac')
    return {"tools": {"benchmark_model": recorded(board, "bm", "benchmark_model.txt")}}


def coral(_board: Board) -> dict[str, object]:
    return {"python": sys.executable}


# kind -> board it lives on, what the inventory says, the model's suffix, valid here, a fact, its telemetry
BOARDS: dict[str, tuple[str, Callable[[Board], dict[str, object]], str, bool, str, str]] = {
    "host": ("local", host, ".tflite", True, "cpu", "at_s"),
    "raspberry_pi": ("pi", raspberry_pi, ".tflite", True, "firmware", "throttled"),
    "jetson": ("ssh", jetson, ".onnx", True, "power_mode", "power_mw"),
    "android": ("adb", android, ".tflite", True, "model", "thermal_status"),
    # no Edge TPU here: the delegate is missing
    "coral": ("ssh", coral, ".tflite", False, "machine", "at_s"),
}


@pytest.fixture(params=sorted(BOARDS))
def case(request: pytest.FixtureRequest) -> Iterator[tuple[Kind, Device]]:
    fixture, describe, *_ = BOARDS[request.param]
    board: Board = request.getfixturevalue(fixture)
    given = describe(board)
    limits = Limits(cool_down_s=0.0)
    name = request.param
    known = {"transport": board.transport, "base": str(board.base), "limits": limits}
    device = Device(id=name, kind=name, **known, **given)  # type: ignore[arg-type]
    yield find_kind(name), device
    assert leftovers(board.base) == []


def test_every_kind_is_here() -> None:
    assert set(BOARDS) == set(kinds())


def test_a_kind_says_what_it_needs(case: tuple[Kind, Device]) -> None:
    kind, device = case
    assert device.transport["type"] in kind.transports and kind.harnesses and kind.probe.facts
    for harness in kind.harnesses:
        assert kind.harness(harness.name) is harness and harness.formats and len(harness.version) == 16
        assert kind.delegate[harness.name] in harness.delegates and kind.install[harness.name]


def test_it_is_the_same_board_when_it_is_asked_again(case: tuple[Kind, Device]) -> None:
    kind, device = case
    with look(device, "twice") as transport:
        first, second = kind.probe.fingerprint(transport), kind.probe.fingerprint(transport)
    assert fingerprint_id(first) == fingerprint_id(second) and first[BOARDS[kind.name][4]]


def test_telemetry_alone_and_beside_a_command(case: tuple[Kind, Device]) -> None:
    kind, device = case
    found = BOARDS[kind.name][5]
    assert found in probe(device)["now"]  # type: ignore[operator]
    with look(device, "beside") as transport:
        stream = kind.probe.start(transport, 30)
        time.sleep(0.6)
        samples = parse_telemetry(stream.stop())
    assert samples and found in samples[-1].as_dict()


def test_doctor_has_a_cure_for_all_that_is_missing(case: tuple[Kind, Device]) -> None:
    kind, device = case
    findings = doctor(device)
    assert {h.name for h in kind.harnesses} <= {finding.what for finding in findings}
    assert all(finding.cure for finding in findings if not finding.ok)
    assert findings[0].what == "connection" and findings[0].ok


def test_a_measurement_is_a_record(
    case: tuple[Kind, Device], models: dict[str, Path], tmp_path: Path
) -> None:
    kind, device = case
    _, _, suffix, valid, *_ = BOARDS[kind.name]
    model = tmp_path / f"model{suffix}"
    model.write_bytes(models["tflite-int8"].read_bytes())
    result = read_result(measure(device, {"a": model}, SHORT).write(tmp_path / "out"))
    assert result.valid == valid == (result.reasons == [])
    row = result.content["files"]["a"]
    if valid:
        assert (
            row["figures"]["p50_ms"] > 0
            and row["delegate"] == kind.delegate[result.content["runtime"]["harness"]]
        )
    else:
        assert "libedgetpu.so.1" in result.reasons[0] and row["figures"] is None
