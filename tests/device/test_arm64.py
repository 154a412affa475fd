"""LiteRT for arm64 under qemu, on a board with a Raspberry Pi's /sys: the same answers as here, delegated.

What emulation says about time means nothing, and the record says that.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from boards import Board, leftovers, missing, need

from edgekit.device.drift import Evaluation, golden_evaluation
from edgekit.device.harness import Board as Connected
from edgekit.device.harness import Task
from edgekit.device.harness.script import LITERT
from edgekit.device.inventory import Device, Limits
from edgekit.device.measure import measure
from edgekit.device.profiles import Profile
from edgekit.device.reservation import look

SHORT = Profile("short", 1, 5, 0.0, 20.0, 1, 0.0)
CPUINFO = """\
processor\t: {cpu}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""


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
def device(pi: Board, arm64: Path) -> Iterator[Device]:
    """LiteRT crashes under qemu when it reads this machine's /sys and /proc/cpuinfo: both are a Pi's."""
    cpuinfo = pi.root / "cpuinfo"
    cpuinfo.write_text("".join(CPUINFO.format(cpu=cpu) for cpu in range(4)))
    (python,) = sorted((arm64 / "sysroot/usr/bin").glob("python3.[0-9]*"))[:1]
    emulator = f"qemu-aarch64-static -cpu cortex-a72 -L {arm64}/sysroot {python}"
    user = "" if os.getuid() == 0 else "-Ur "
    wrapper = pi.tools / "python-arm64"
    wrapper.write_text(
        "#!/bin/sh\n"
        f"exec unshare {user}-m sh -c 'mount --bind {cpuinfo} /proc/cpuinfo && exec \"$@\"' arm64 "
        f'env PYTHONPATH={arm64}/site PYTHONHOME={arm64}/sysroot/usr {emulator} "$@"\n'
    )
    wrapper.chmod(0o755)
    yield Device(
        "pi-emulated",
        "raspberry_pi",
        pi.transport,
        python=str(wrapper),
        base=str(pi.base),
        emulated=True,
        limits=Limits(cool_down_s=0.0),
    )
    assert leftovers(pi.base) == []


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
    arrays = tmp_path / "inputs.npz"
    np.savez(arrays, **{"0": inputs})  # type: ignore[arg-type]
    here = Device("host", "host", {"type": "local"}, python=sys.executable)
    digests = []
    for one in (device, here):
        with look(one, f"answers-{delegate}") as transport:
            board = Connected(transport, one)
            path = transport.push(models["tflite-int8"])
            into = tmp_path / f"{one.id}.npz"
            found = LITERT.outputs(board, path, arrays, Task({"a": path}, SHORT, 1, delegate), into)
            with np.load(into) as content:
                digest = hashlib.sha256(np.ascontiguousarray(content["0"]).tobytes()).hexdigest()
            assert found.count == 64 and digest == found.sha256
            digests.append(digest)
    assert digests[0] == digests[1]


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
