"""How many cores a build uses: what is asked, what the environment says, or the cores this process may use.

Two numbers follow from it: the threads of each torch operator, and how many sessions of a runtime answer
images side by side. The sums of floats depend on the first, so it stands in the keys of what quantizes; the
second changes nothing.

Waiting matters more than the number. A thread of torch that waits for the others spins by default, and beside
other work it spins away the time that the thread it waits for needs: 17 s of processor time instead of 1.7,
53 s of waiting instead of 4. `wait_passively` says so to OpenMP, which reads it once, when torch loads. Where
torch was loaded before, a build takes only the cores that are idle when it begins.

Sessions of LiteRT, ONNX Runtime and OpenVINO have one thread each, outside measurements.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

POLICY = "OMP_WAIT_POLICY"
_TOLD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # torch follows them when it loads
_SAMPLE_S = 0.2
_CGROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_workers = 1


def wait_passively() -> None:
    """Let OpenMP's threads sleep while they wait; too late, and without effect, once torch is loaded."""
    if "torch" not in sys.modules:
        os.environ.setdefault(POLICY, "PASSIVE")


@contextmanager
def using(jobs: int | None) -> Iterator[None]:
    """Inside the block torch and the runtimes use `jobs` threads, or what `chosen` finds."""
    global _workers
    import torch

    before = torch.get_num_threads(), _workers
    threads, _workers = (jobs, jobs) if jobs is not None else chosen(before[0])
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        _workers = before[1]


def workers() -> int:
    """How many sessions run side by side in this build."""
    return _workers


def chosen(torch_threads: int) -> tuple[int, int]:
    """(threads of torch, sessions side by side) where nobody asked for a number.

    Args:
        torch_threads: torch's own number: the variables', the caller's or one a core.
    """
    if any(os.environ.get(name) for name in _TOLD):
        return torch_threads, torch_threads
    cores = usable_cores()
    if os.environ.get(POLICY, "").upper() == "PASSIVE":
        return min(torch_threads, cores), cores
    return min(torch_threads, max(1, round(idle_cores(cores)))), cores


def usable_cores() -> int:
    """Cores this process may run on: its affinity, and the quota of the control groups it is in."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _quota())))


def idle_cores(cores: int) -> float:
    """How many of the cores nobody else uses: seen for a moment on Linux, by the load elsewhere."""
    before = _idle_share_ticks()
    if before is None:
        return cores - os.getloadavg()[0] if hasattr(os, "getloadavg") else cores
    time.sleep(_SAMPLE_S)
    after = _idle_share_ticks()
    assert after is not None
    idle, total = after[0] - before[0], after[1] - before[1]
    return cores * idle / total if total else cores


def _idle_share_ticks() -> tuple[int, int] | None:
    """(idle ticks, all ticks) of the cores this process may run on."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
        mine = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    except (OSError, AttributeError):
        return None
    rows = [[int(word) for word in line.split()[1:9]] for line in lines if line.split(" ", 1)[0] in mine]
    return (sum(row[3] + row[4] for row in rows), sum(map(sum, rows))) if rows else None


def _quota() -> float:
    """Cores' worth of time that the control groups allow, inf where they allow all."""
    allowed = math.inf
    for folder in _groups():
        with suppress(OSError, ValueError):
            limit, period = (folder / "cpu.max").read_text().split()
            if limit != "max":
                allowed = min(allowed, int(limit) / int(period))
        with suppress(OSError, ValueError):
            limit, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if int(limit) > 0:
                allowed = min(allowed, int(limit) / int(period))
    return allowed


def _groups() -> Iterator[Path]:
    """Folders of the groups of this process and of those above, versions 2 and 1."""
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, name = line.split(":", 2)
        if number == "0":
            root = _CGROUPS
        elif "cpu" in controllers.split(","):
            root = _CGROUPS / "cpu"
        else:
            continue
        place = root / name.lstrip("/")
        while place.is_relative_to(root):
            yield place
            place = place.parent
