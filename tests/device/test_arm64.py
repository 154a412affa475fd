"""LiteRT for arm64 under qemu, on a board with a Raspberry Pi's /sys: the same answers as here, delegated.

The int8 files of the shipped reference models are among what is compared. What emulation says about time
means nothing, and the record says that.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from boards import Board, leftovers, missing, need

from edgekit.device.drift import Evaluation, golden_evaluation
from edgekit.device.evaluation import slice_evaluation
from edgekit.device.harness import Board as Connected
from edgekit.device.harness import Task
from edgekit.device.harness.script import LITERT
from edgekit.device.inventory import Device, Limits
from edgekit.device.measure import measure
from edgekit.device.profiles import Profile
from edgekit.device.reservation import look
from edgekit.pipeline import pipeline, recipe

IMAGES = 3
HERE = Device("host", "host", {"type": "local"}, python=sys.executable)
SHORT = Profile("short", 1, 5, 0.0, 20.0, 1, 0.0)
CPUINFO = """\
processor\t: {cpu}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid{features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {part}
CPU revision\t: 3

"""
# a Raspberry Pi 4's core and a 5's, which has dot products: XNNPACK takes other kernels there
CORES = {"cortex-a72": ("0xd08", ""), "cortex-a76": ("0xd0b", " atomics fphp asimdhp asimdrdm lrcpc asimddp")}


@pytest.fixture(scope="session")
def arm64() -> Path:
    """Where fetch_arm64.sh put an arm64 Python: $EDGEKIT_ARM64, filled when it is empty."""
    need("qemu-aarch64-static", "qemu-user-static")
    where = os.environ.get("EDGEKIT_ARM64")
    if where is None:
        missing("EDGEKIT_ARM64 is not set: a directory for tests/device/fetch_arm64.sh to fill (220 MB)")
        raise AssertionError
    script = Path(__file__).with_name("fetch_arm64.sh")
    done = subprocess.run(
        ["sh", str(script), where],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHON": sys.executable},
        timeout=600,
    )
    if done.returncode:
        pytest.skip(f"arm64 packages cannot be fetched here: {done.stderr.strip().splitlines()[-1]}")
    return Path(where).resolve()


@pytest.fixture
def cores(pi: Board, arm64: Path) -> Iterator[dict[str, Device]]:
    """LiteRT crashes under qemu when it reads this machine's /sys and /proc/cpuinfo: both are a Pi's."""
    (python,) = sorted((arm64 / "sysroot/usr/bin").glob("python3.[0-9]*"))[:1]
    user = "" if os.getuid() == 0 else "-Ur "
    found = {}
    for core, (part, features) in CORES.items():
        cpuinfo = pi.root / f"cpuinfo-{core}"
        cpuinfo.write_text("".join(CPUINFO.format(cpu=cpu, part=part, features=features) for cpu in range(4)))
        emulator = f"qemu-aarch64-static -cpu {core} -L {arm64}/sysroot {python}"
        wrapper = pi.tools / f"python-{core}"
        wrapper.write_text(
            "#!/bin/sh\n"
            f"exec unshare {user}-m sh -c 'mount --bind {cpuinfo} /proc/cpuinfo && exec \"$@\"' arm64 "
            f'env PYTHONPATH={arm64}/site PYTHONHOME={arm64}/sysroot/usr {emulator} "$@"\n'
        )
        wrapper.chmod(0o755)
        found[core] = Device(
            f"pi-{core}",
            "raspberry_pi",
            pi.transport,
            python=str(wrapper),
            base=str(pi.base),
            emulated=True,
            limits=Limits(cool_down_s=0.0),
        )
    yield found
    assert leftovers(pi.base) == []


@pytest.fixture
def device(cores: dict[str, Device]) -> Device:
    return cores["cortex-a72"]


def test_it_is_arm64(device: Device) -> None:
    with look(device, "machine") as transport:
        board = Connected(transport, device)
        done = board.run([board.python, "-c", "import platform; print(platform.machine())"])
    assert done.out.strip() == "aarch64", done.err


@pytest.mark.parametrize("delegate", ["xnnpack", "reference"])
def test_answers_are_those_of_this_machine(
    device: Device, models: dict[str, Path], delegate: str, tmp_path: Path
) -> None:
    """64 random inputs: the hash of all outputs is the host's; optimised kernels undelegated differ."""
    golden = golden_evaluation(models["tflite-int8"].parent)
    assert golden is not None
    shape = (64, *golden.inputs[0].shape[1:])
    inputs = np.random.default_rng(0).integers(-128, 128, shape, dtype=np.int8)
    there, here = (answers(one, models["tflite-int8"], inputs, delegate, tmp_path) for one in (device, HERE))
    assert there.tobytes() == here.tobytes()


@pytest.mark.parametrize(
    "name", ["mobilenet_v3_large", "mobilenet_v3_small", "mobilenet_v2", "efficientnet_lite0"]
)
def test_reference_models_answer_as_on_this_machine(
    cores: dict[str, Device], name: str, tmp_path: Path
) -> None:
    """The int8 file of a shipped checkpoint over embedded images: every output value is the host's."""
    settings = {
        "model": name,
        "weights": "reference",
        "data": {"calibration": 16, "evaluation": IMAGES},
        "quantize": {"profile": "fast"},
        # so few images say nothing about accuracy
        "verify": {"max_top1_drop": "off"},
        "device": {"profile": "off"},
    }
    built = pipeline.build(recipe.from_dict(settings), out=tmp_path / "build").artifacts["tflite-int8"]
    assert not built.rejected
    evaluation = slice_evaluation(json.loads((built.path.parent / "manifest.json").read_text()), IMAGES)
    assert evaluation is not None
    here = answers(HERE, built.path, evaluation.inputs[0], "xnnpack", tmp_path)
    # answers, not a constant: another one for each image
    assert len(np.unique(here, axis=0)) == IMAGES and here.dtype == np.int8
    for core, device in cores.items():
        there = answers(device, built.path, evaluation.inputs[0], "xnnpack", tmp_path)
        assert there.tobytes() == here.tobytes(), core


def answers(device: Device, model: Path, inputs: np.ndarray, delegate: str, folder: Path) -> np.ndarray:
    """The outputs of a board, proven to be the delegate's."""
    arrays, into = folder / "inputs.npz", folder / "outputs.npz"
    np.savez(arrays, **{"0": inputs})  # type: ignore[arg-type]
    with look(device, "answers") as transport:
        path = transport.push(model)
        task = Task({"a": path}, SHORT, 1, delegate)
        given = LITERT.outputs(Connected(transport, device), path, arrays, task, into)
    assert given.delegate == delegate and given.partitions == (1 if delegate == "xnnpack" else 0)
    with np.load(into) as content:
        (outputs,) = (content[name] for name in content.files)
    assert given.count == len(inputs) == len(outputs)
    assert given.sha256 == hashlib.sha256(outputs.tobytes()).hexdigest()
    return outputs


def test_an_emulated_board_is_measured_and_says_so(device: Device, models: dict[str, Path]) -> None:
    golden = golden_evaluation(models["tflite-int8"].parent)
    assert isinstance(golden, Evaluation)
    result = measure(device, {"a": models["tflite-int8"]}, SHORT, evaluations={"a": golden})
    row = result.content["files"]["a"]
    assert result.valid and row["delegate"] == "xnnpack" and row["partitions"] == 1
    assert row["drift"]["identical"] == 3 and row["drift"]["max_lsb"] == 0
    assert result.content["device"]["emulated"] and "emulated" in " ".join(
        result.content["validity"]["notes"]
    )
