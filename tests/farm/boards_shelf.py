"""A shelf of simulated boards, models that are only bytes, and a farm run over both in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.device.inventory import load_inventory
from edgekit.farm import plan, report, state
from edgekit.farm.run import Run
from edgekit.farm.scheduler import connect, find_boards
from edgekit.history import History

ROOT = Path(__file__).parents[2]
SIMULATED = ROOT / "benchmarks" / "simulated"


@dataclass
class Shelf:
    """An inventory of simulated boards under `folder`, and models to measure."""

    folder: Path
    boards: list[str]
    models: list[Path]
    faults: dict[str, list[str]] = field(default_factory=dict)
    ms: float = 5.0
    extra: str = ""
    written: str = ""  # an inventory to take instead

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def inventory(self, boards: list[str] | None = None, name: str = "devices.toml") -> Path:
        faults = self.folder / "faults.json"
        if not faults.exists():
            faults.write_text(json.dumps(self.faults))
        lines = ["schema_version = 1"]
        for board in boards or self.boards:
            base = self.folder / f"base-{board}"
            base.mkdir(exist_ok=True)
            env = f'SIM_MS = "{self.ms:g}", SIM_LOG = "{self.log}", SIM_FAULT = "{faults}"'
            lines += [
                f'[devices.{board}]\nkind = "simulated"\ntransport = {{ type = "local" }}\nemulated = true',
                f'base = "{base}"\nlimits = {{ cool_down_s = 0 }}\nenv = {{ {env} }}\n{self.extra}',
            ]
        path = self.folder / name
        path.write_text(self.written or "\n".join(lines) + "\n")
        return path

    def used(self) -> list[tuple[str, str]]:
        """(board, model) of every process that was started, in order."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [(line.split()[0], line.split()[1]) for line in lines if line.split()[2] == "start"]

    def run(self, resume: bool = False, **options: Any) -> dict[str, Any]:
        """A run on a LocalCluster in this process; its report."""
        with self.client() as client:
            return self.run_with(client, resume, **options)

    @contextmanager
    def client(self) -> Iterator[Any]:
        with connect(None, list(load_inventory(self.inventory()).devices.values())) as client:
            yield client

    def run_with(self, client: Any, resume: bool = False, **options: Any) -> dict[str, Any]:
        boards = find_boards(client, self.boards)
        work = plan.plan(plan.find_artifacts(self.models), boards, plan.Settings(wait_s=20.0))
        header = {"jobs": [job.id for job in work.jobs], "asked": {}, "settings": {}}
        opened = state.resume(self.out) if resume else state.create(self.out, header)
        with opened as journal, History() as history:
            going = Run(client, work.jobs, boards, journal, history, **options)
            going.go()
            about = {board.id: {**board.about, "bad": board.bad} for board in going.boards.values()}
            found = report.build(journal, list(going.rows.values()), about, history, work.skipped)
            report.write(self.out, found)
            assert state.overlaps(journal.rows.values()) == []
        return found
