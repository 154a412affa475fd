"""What a whole int8 build needs in memory: builds one after another, each in a process of its own.

    python benchmarks/memory.py [NAME ...]

Bars: a network of up to 30 M parameters at its own resolution builds with 128 calibration images in at most
4 GB, MobileNetV3-Large with 1,024 in at most 2 GB. Weights are random, latency is off, nothing is cached. A
build beyond its bar is stopped at half as much again. Leaves: a line a network, and results/memory.md, where
the networks that were run are replaced. Exits 1 over a bar.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "memory.md"
HEAD = (
    "| network | calibration | evaluation | profile | peak RSS, MB | bar, MB | in stage | seconds | |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)
_MB = 1 << 20
_FINISHED = re.compile(r"\u2713 (\S+).* m?s$")


@dataclass(frozen=True)
class Job:
    """One build and the most memory it may take."""

    model: str
    calibration: int
    bar_mb: int
    evaluation: int = 64
    profile: str = "thorough"

    @property
    def row(self) -> str:
        """How its line in the table begins."""
        return f"| {self.model} | {self.calibration:,} | {self.evaluation:,} | {self.profile} |"


JOBS = (
    Job("mobilenet_v3_large", 1024, 2048),
    Job("mobilenet_v3_large", 1024, 2048, evaluation=2000, profile="fast"),
    Job("timm:xcit_nano_12_p8_224", 128, 4096),
    Job("timm:mobilevitv2_100", 128, 4096),
    Job("resnet50", 128, 4096),
    Job("timm:convnext_tiny", 128, 4096, profile="fast"),
    Job("timm:deit_small_patch16_224", 128, 4096, profile="fast"),
    Job("timm:swin_tiny_patch4_window7_224", 128, 4096, profile="fast"),
)


@dataclass(frozen=True)
class Measured:
    """peak_mb: of resident memory. stage: the one it was reached in. ended: how the build did."""

    peak_mb: float
    stage: str
    seconds: float
    ended: str


def measure(job: Job) -> Measured:
    """Build once and watch."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        command = [str(Path(sys.executable).with_name("edgekit")), "build", job.model, "--weights", "random"]
        command += ["--calibration", str(job.calibration), "--evaluation", str(job.evaluation)]
        command += ["--profile", job.profile, "--latency", "off", "--no-cache", "--jobs", "1"]
        began = time.perf_counter()
        with log.open("wb") as output:
            child = subprocess.Popen(
                [*command, "--out", str(Path(folder, "out"))],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        ended, most, at = "", 0.0, 0
        while True:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            resident = resident_mb(child.pid)
            if resident > most:
                most, at = resident, len(stages(log))
            if resident > 1.5 * job.bar_mb:
                child.kill()
                ended = "stopped"
            time.sleep(0.1)
        child.returncode = os.waitstatus_to_exitcode(status)
        # 1 is a gate that failed, which random weights may
        ended = ended or ("built" if child.returncode in (0, 1) else f"exit {child.returncode}")
        done = stages(log)
        stage = done[at] if at < len(done) else f"after {done[-1] if done else 'nothing'}"
        return Measured(usage.ru_maxrss / 1024, stage, time.perf_counter() - began, ended)


def stages(log: Path) -> list[str]:
    """The stages a build has finished, from its progress lines, which end with their time."""
    found = (_FINISHED.match(line) for line in log.read_text().splitlines())
    return [match[1] for match in found if match]


def resident_mb(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):  # it has just ended
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / _MB


def main(names: list[str]) -> int:
    missed = 0
    for job in JOBS:
        if names and job.model not in names:
            continue
        found = measure(job)
        fits = found.ended == "built" and found.peak_mb <= job.bar_mb
        missed += not fits
        row = (
            f"{job.row} {found.peak_mb:,.0f} | {job.bar_mb:,} | {found.stage} | {found.seconds:.0f} | "
            f"{found.ended if found.ended != 'built' or fits else 'over'} |"
        )
        print(row, flush=True)
        keep(job, row)
    return int(missed > 0)


def keep(job: Job, row: str) -> None:
    """Put a job's line into the table in place of an older one, in the order of JOBS."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    known = {each: line for each in JOBS for line in lines if line.startswith(each.row)}
    known[job] = row
    table = "\n".join(known[each] for each in JOBS if each in known)
    command = "`python benchmarks/memory.py`: one core, random weights, int8 TFLite, latency off, no cache."
    RESULTS.write_text(f"{command}\n\n{HEAD}{table}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
