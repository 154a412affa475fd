"""edgetpu_compiler's log -> what runs on the Edge TPU and what does not, with the compiler's own reasons."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from edgekit.errors import DeviceJobError

MAPPED = "Mapped to Edge TPU"
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZE = r"([0-9.]+)(B|KiB|MiB|GiB)"


@dataclass(frozen=True)
class OperatorRow:
    name: str
    count: int
    status: str


@dataclass(frozen=True)
class Compilation:
    """Sizes in bytes; operators as the compiler's table lists them."""

    version: str
    on_chip_bytes: int
    on_chip_left_bytes: int
    off_chip_bytes: int
    subgraphs: int
    on_tpu: int
    on_cpu: int
    operators: tuple[OperatorRow, ...] = field(default=())

    @property
    def reasons(self) -> list[str]:
        """Why something runs on the processor: '1 CUSTOM: Operation is working on ...'."""
        return [f"{row.count} {row.name}: {row.status}" for row in self.operators if row.status != MAPPED]


def parse_edgetpu_compiler(log: str) -> Compilation:
    """The two "will run on" lines are absent when everything is mapped: then the table and the total say it.

    Raises: DeviceJobError for a log of a compilation that failed.
    """
    version = re.search(r"Edge TPU Compiler version ([0-9.]+)", log)
    subgraphs = re.search(r"Number of Edge TPU subgraphs: (\d+)", log)
    total = re.search(r"Total number of operations: (\d+)", log)
    if not (version and subgraphs and total):
        said = [line.strip() for line in log.splitlines() if line.strip()]
        raise DeviceJobError(
            f"edgetpu_compiler: {(said or ['no output'])[-1][:300]}: a fully 8-bit model with static shapes"
        )
    rows = []
    for line in log.splitlines():
        if match := re.fullmatch(r"([A-Z][A-Z0-9_]*)\s+(\d+)\s+(\S.*)", line.strip()):
            rows.append(OperatorRow(match[1], int(match[2]), match[3]))
    cpu = re.search(r"operations that will run on CPU: (\d+)", log)
    tpu = re.search(r"operations that will run on Edge TPU: (\d+)", log)
    on_cpu = int(cpu[1]) if cpu else sum(row.count for row in rows if row.status != MAPPED)
    return Compilation(
        version=version[1],
        on_chip_bytes=_bytes(log, "On-chip memory used for caching model parameters"),
        on_chip_left_bytes=_bytes(log, "On-chip memory remaining for caching model parameters"),
        off_chip_bytes=_bytes(log, "Off-chip memory used for streaming uncached model parameters"),
        subgraphs=int(subgraphs[1]),
        on_tpu=int(tpu[1]) if tpu else int(total[1]) - on_cpu,
        on_cpu=on_cpu,
        operators=tuple(rows),
    )


def _bytes(log: str, label: str) -> int:
    found = re.search(rf"{label}: {_SIZE}", log)
    return round(float(found[1]) * _UNITS[found[2]]) if found else 0
