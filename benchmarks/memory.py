"""What a whole int8 build needs in memory: builds one after another, each in a process of its own.

    python benchmarks/memory.py [NAME ...]

Bars: a network of up to 30 M parameters at its own resolution builds with 128 calibration images in at most
4 GB, MobileNetV3-Large with 1,024 in at most 2 GB. Weights are random, latency is off, nothing is cached. A
build beyond its bar is stopped at half as much again. Leaves: results/memory.md. Exits 1 over a bar.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "memory.md"
_MB = 1 << 20


@dataclass(frozen=True)
class Job:
    """One build and the most memory it may take."""

    model: str
    images: int
    bar_mb: int


JOBS = (
    Job("mobilenet_v3_large", 1024, 2048),
    Job("timm:xcit_nano_12_p8_224", 128, 4096),
    Job("timm:mobilevitv2_100", 128, 4096),
    Job("timm:convnext_tiny", 128, 4096),
    Job("timm:swin_tiny_patch4_window7_224", 128, 4096),
    Job("timm:xcit_small_12_p8_224", 128, 4096),
)


def measure(job: Job) -> tuple[float, float, str]:
    """Peak RSS in MB, seconds, and how the build ended."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).with_name("edgekit")), "build", job.model, "--weights", "random"]
        command += ["--calibration", str(job.images), "--evaluation", "64", "--latency", "off", "--no-cache"]
        began = time.perf_counter()
        child = subprocess.Popen(
            [*command, "--out", folder],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        ended = ""
        while True:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            if resident_mb(child.pid) > 1.5 * job.bar_mb:
                child.kill()
                ended = "stopped"
            time.sleep(0.1)
        child.returncode = os.waitstatus_to_exitcode(status)
        # 1 is a gate that failed, which random weights may
        ended = ended or ("built" if child.returncode in (0, 1) else f"exit {child.returncode}")
        return usage.ru_maxrss / 1024, time.perf_counter() - began, ended


def resident_mb(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):  # it has just ended
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / _MB


def main(names: list[str]) -> int:
    rows, missed = [], 0
    for job in JOBS:
        if names and job.model not in names:
            continue
        peak, seconds, ended = measure(job)
        fits = ended == "built" and peak <= job.bar_mb
        missed += not fits
        row = f"| {job.model} | {job.images} | {peak:,.0f} | {job.bar_mb:,} | {seconds:.0f} | {ended} |"
        rows.append(row)
        print(row, flush=True)
    head = (
        "| network | calibration images | peak RSS, MB | bar, MB | seconds | |\n|---|---|---|---|---|---|\n"
    )
    if not names:
        RESULTS.write_text(head + "\n".join(rows) + "\n")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
