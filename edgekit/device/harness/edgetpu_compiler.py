"""edgetpu_compiler's log -> what runs on the Edge TPU and what does not, with the compiler's own reasons.

Two texts hold it: what the compiler prints (the table only with --show_operations), and the file
NAME_edgetpu.log that it writes, which has the table and no sizes.
"""

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
    """Sizes in bytes, None where the text has none; operators as the compiler's table lists them."""

    version: str
    on_chip_bytes: int | None
    on_chip_left_bytes: int | None
    off_chip_bytes: int | None
    subgraphs: int | None
    on_tpu: int
    on_cpu: int
    operators: tuple[OperatorRow, ...] = field(default=())

    @property
    def reasons(self) -> list[str]:
        """Why something runs on the processor: '1 CUSTOM: Operation is working on ...'."""
        return [f"{row.count} {row.name}: {row.status}" for row in self.operators if row.status != MAPPED]

    def counts(self) -> dict[str, tuple[int, int]]:
        """Operator -> how many are mapped, how many are not; empty where the text has no table."""
        found: dict[str, tuple[int, int]] = {}
        for row in self.operators:
            mapped, left = found.get(row.name, (0, 0))
            is_mapped = row.status == MAPPED
            found[row.name] = (mapped + row.count * is_mapped, left + row.count * (not is_mapped))
        return found


def parse_edgetpu_compiler(log: str) -> Compilation:
    """The two "will run on" lines are absent when all is mapped, and in the log file: the table says it.

    Raises: DeviceJobError for a log of a compilation that failed.
    """
    version = re.search(r"Edge TPU Compiler version ([0-9.]+)", log)
    subgraphs = re.search(r"Number of Edge TPU subgraphs: (\d+)", log)
    total = re.search(r"Total number of operations: (\d+)", log)
    rows = []
    for line in log.splitlines():
        if match := re.fullmatch(r"([A-Z][A-Z0-9_]*)\s+(\d+)\s+(\S.*)", line.strip()):
            rows.append(OperatorRow(match[1], int(match[2]), match[3]))
    if not version or not (rows or (subgraphs and total)):
        said = [line.strip() for line in log.splitlines() if line.strip()]
        wanted = (
            "a fully 8-bit model with static shapes" if version else "a log that names the compiler's version"
        )
        raise DeviceJobError(f"edgetpu_compiler: {(said or ['no output'])[-1][:300]}: {wanted}")
    operations = int(total[1]) if total else sum(row.count for row in rows)
    cpu = re.search(r"operations that will run on CPU: (\d+)", log)
    tpu = re.search(r"operations that will run on Edge TPU: (\d+)", log)
    on_cpu = int(cpu[1]) if cpu else sum(row.count for row in rows if row.status != MAPPED)
    return Compilation(
        version=version[1],
        on_chip_bytes=_bytes(log, "On-chip memory used for caching model parameters"),
        on_chip_left_bytes=_bytes(log, "On-chip memory remaining for caching model parameters"),
        off_chip_bytes=_bytes(log, "Off-chip memory used for streaming uncached model parameters"),
        subgraphs=int(subgraphs[1]) if subgraphs else None,
        on_tpu=int(tpu[1]) if tpu else operations - on_cpu,
        on_cpu=on_cpu,
        operators=tuple(rows),
    )


def _bytes(log: str, label: str) -> int | None:
    found = re.search(rf"{label}: {_SIZE}", log)
    return round(float(found[1]) * _UNITS[found[2]]) if found else None
