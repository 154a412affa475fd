"""OpenVINO files on boards: an .xml travels with its .bin, counts with it, and answers as here to the bit."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from boards import Board, leftovers

import edgekit
from edgekit.device.drift import golden_evaluation
from edgekit.device.harness import Board as Connected
from edgekit.device.harness import Task
from edgekit.device.harness.script import OPENVINO
from edgekit.device.inventory import Device, Limits
from edgekit.device.measure import measure
from edgekit.device.profiles import Profile
from edgekit.device.reservation import look
from edgekit.device.result import read_result
from edgekit.errors import ArtifactError
from edgekit.history import load
from edgekit.history.compare import compare
from edgekit.runtimes.openvino.run import Runner
from edgekit.runtimes.sources import open_source

HERE = Device("host", "host", {"type": "local"}, python=sys.executable)
SHORT = Profile("short", 2, 20, 0.0, 2.0, 2, 0.0)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """OpenVINO bundles of one small net, int8 and float16."""
    torch.manual_seed(3)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=2, padding=1),
        torch.nn.Hardswish(),
        torch.nn.Conv2d(8, 8, 3, padding=1, groups=8),
        torch.nn.ReLU6(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 5),
    ).eval()
    images = torch.randn(16, 3, 32, 32)
    names = ["openvino-int8", "openvino-float16"]
    folder = tmp_path_factory.mktemp("openvino")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CACHE", str(folder / "cache"))
        built = edgekit.build(
            net,
            targets=names,
            calibration=images,
            evaluation=images,
            out=folder / "build",
            quantize={"profile": "fast"},
            verify={"min_pairwise_agreement": "off"},
            device={"profile": "off"},
        )
    assert built.ok
    return {name: built.artifacts[name].path for name in names}


@pytest.fixture(params=["host", "raspberry_pi"])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    """This machine, and one reached by ssh; not `pi`: on x86 OpenVINO crashes over a Pi's /sys."""
    board: Board = request.getfixturevalue({"host": "local", "raspberry_pi": "ssh"}[request.param])
    yield Device(
        f"{request.param}-a",
        request.param,
        board.transport,
        python=sys.executable,
        base=str(board.base),
        limits=Limits(cool_down_s=0.0),
    )
    assert leftovers(board.base) == []


def test_raw_samples_memory_and_answers(device: Device, bundles: dict[str, Path], tmp_path: Path) -> None:
    """Our script is what a board takes for an .xml, and its answers are the reference's to the bit."""
    golden = golden_evaluation(bundles["openvino-int8"].parent)
    assert golden is not None
    evaluations = {"openvino-int8": golden, "openvino-float16": replace(golden, expected=None)}
    result = read_result(measure(device, bundles, SHORT, evaluations=evaluations).write(tmp_path))
    assert result.valid and result.content["runtime"]["harness"] == "openvino"
    for name, row in result.content["files"].items():
        assert row["figures"]["raw"] and row["figures"]["n"] == 40 == sum(map(len, result.samples[name]))
        assert "process_p50_ms" not in row["figures"] and row["figures"]["init_ms"] > 0
        assert row["delegate"] == "CPU" and row["partitions"] is None
        assert 0 < row["memory"]["peak_bytes"] < 2**30
        assert row["drift"]["identical"] == row["drift"]["inputs"] == 3
        parts = bundles[name].read_bytes(), bundles[name].with_suffix(".bin").read_bytes()
        assert row["sha256"] == hashlib.sha256(b"".join(parts)).hexdigest()
        assert row["size_bytes"] == sum(map(len, parts))
    assert result.content["files"]["openvino-float16"]["drift"]["reference"].startswith("this machine, openv")


@pytest.mark.parametrize("name", ["openvino-int8", "openvino-float16"])
def test_answers_are_those_of_openvino_itself(bundles: dict[str, Path], name: str, tmp_path: Path) -> None:
    """float32 arithmetic on one thread, as the verifying runtime of this machine has it."""
    images = np.random.default_rng(5).standard_normal((16, 1, 3, 32, 32)).astype(np.float32)
    np.savez(tmp_path / "inputs.npz", **{"0": images})  # type: ignore[arg-type]
    with look(HERE, "answers") as transport:
        board = Connected(transport, HERE)
        path = board.push(bundles[name])
        task, into = Task({"a": path}, SHORT, 1, "CPU"), tmp_path / "outputs.npz"
        found = OPENVINO.outputs(board, path, tmp_path / "inputs.npz", task, into)
    assert (found.count, found.delegate) == (16, "CPU")
    runner = Runner(open_source(bundles[name]))
    with np.load(into) as content:
        for ours, image in zip(content["0"], images, strict=True):
            assert ours.tobytes() == runner.raw([image])[1][0].tobytes()


def test_two_files_that_differ_in_their_weights_alone(bundles: dict[str, Path], tmp_path: Path) -> None:
    """One .xml, two .bin: two artifacts, and each runs with its own weights."""
    original = bundles["openvino-float16"]
    weights = original.with_suffix(".bin").read_bytes()
    given = {name: tmp_path / f"{name}.xml" for name in ("a", "b")}
    for path in given.values():
        path.write_bytes(original.read_bytes())
    given["a"].with_suffix(".bin").write_bytes(weights)
    given["b"].with_suffix(".bin").write_bytes(bytes(200) + weights[200:])
    golden = golden_evaluation(original.parent)
    assert golden is not None
    result = measure(HERE, given, SHORT, evaluations={"a": golden, "b": golden})
    rows = result.content["files"]
    assert rows["a"]["sha256"] != rows["b"]["sha256"]
    assert (rows["a"]["drift"]["identical"], rows["b"]["drift"]["identical"]) == (3, 0)


def test_weights_that_are_missing(bundles: dict[str, Path], tmp_path: Path) -> None:
    alone = tmp_path / "model.xml"
    alone.write_bytes(bundles["openvino-int8"].read_bytes())
    with pytest.raises(ArtifactError, match=r"model\.bin is missing"):
        measure(HERE, {"a": alone}, SHORT)


def test_a_device_this_openvino_has_not(bundles: dict[str, Path]) -> None:
    result = measure(HERE, {"a": bundles["openvino-int8"]}, SHORT, delegate="libnpu")
    assert result.reasons == ["delegate libnpu is missing: OSError: this openvino has no libnpu"]


def test_benchmark_app_has_a_verdict_from_the_medians_of_its_processes(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    """The real tool, which gives no samples: four processes a side are enough to compare."""
    plan = Profile("short", 4, 1, 1.0, 1.0, 1, 0.0)
    records = []
    for run in ("before", "after"):
        result = measure(HERE, {"a": bundles["openvino-int8"]}, plan, runtime="benchmark_app", run=run)
        figures = result.content["files"]["a"]["figures"]
        assert not figures["raw"] and len(figures["process_p50_ms"]) == 4 and result.samples["a"] == [[]] * 4
        records += load(result.write(tmp_path))
    found = compare(*records)
    assert found.verdict != "no verdict" and found.processes == (4, 4)
    assert any("benchmark_app gives no raw samples" in note for note in found.notes)
